"""A look at a cluster before a sweep is applied: what it lacks, and what it would refuse, all at once.

Nothing is changed. The answers to what an account may not read are unknown, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal  # a Kubernetes object

from gridsweep.errors import ApiError
from gridsweep.executors.kubernetes.api import (
    CLAIMS,
    JOBS,
    Api,
    Conflict,
    Forbidden,
    NotFound,
    Resource,
    Unauthorized,
    Unreachable,
)
from gridsweep.executors.kubernetes.manifests.checks import pod_templates
from gridsweep.executors.kubernetes.manifests.names import Manifest
from gridsweep.executors.kubernetes.manifests.pods import GPU
from gridsweep.executors.kubernetes.manifests.roles import laptop_rules
from gridsweep.executors.kubernetes.preflight import missing_rights
from gridsweep.sweep.clusters import KubernetesCluster

KINDS = {
    "Namespace": Resource("", "namespaces", namespaced=False),
    "PersistentVolumeClaim": CLAIMS,
    "ConfigMap": Resource("", "configmaps"),
    "ServiceAccount": Resource("", "serviceaccounts"),
    "Role": Resource("rbac.authorization.k8s.io", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io", "rolebindings"),
    "NetworkPolicy": Resource("networking.k8s.io", "networkpolicies"),
    "Job": Resource("batch", "jobs"),
    "RayJob": JOBS,
}
SECRETS, QUOTAS = Resource("", "secrets"), Resource("", "resourcequotas")
CLASSES = Resource("node.k8s.io", "runtimeclasses", namespaced=False)
QUEUES = Resource("kueue.x-k8s.io", "localqueues", "v1beta1")
CLUSTER_QUEUES = Resource("kueue.x-k8s.io", "clusterqueues", "v1beta1", namespaced=False)


@dataclass(frozen=True, slots=True)
class Look:
    """One thing looked at: `missing` keeps the sweep from running, a `note` may."""

    what: str
    state: Literal["ok", "note", "missing"]
    seen: str
    advice: str = ""


def examined(api: Api, cluster: KubernetesCluster, manifests: Sequence[Manifest]) -> list[Look]:
    """Return what was seen of all that a rendering needs. Raise `Unreachable` if the cluster does not answer."""
    try:
        api.list(JOBS, "gridsweep.io/sweep=none")
        looks = [Look("RayJobs", "ok", f"{JOBS} {JOBS.version} is served: KubeRay's definitions are there")]
    except NotFound:
        advice = "install the KubeRay operator, 1.7 or later"
        looks = [Look("RayJobs", "missing", "the cluster knows no RayJobs", advice)]
    except Unauthorized:
        raise  # nothing else would be answered
    except Forbidden:
        looks = []  # named below
    looks.append(_rights(api, cluster))
    looks.append(_claim(api, cluster))
    pods = [template["spec"] for made in manifests for template in pod_templates(made)]
    looks += [*_classes(api, pods), *_secrets(api, cluster, pods), *_quotas(api)]
    if cluster.gate == "kueue":
        looks += _queue(api, cluster, pods)
    return looks + _dry_run(api, manifests)


def _rights(api: Api, cluster: KubernetesCluster) -> Look:
    if absent := missing_rights(api, laptop_rules()):
        advice = "`gridsweep render --role` writes the Role to ask for; rights to apply manifests are looked at below"
        return Look("rights", "missing", f"in {cluster.namespace} this account may not {', '.join(absent)}", advice)
    return Look("rights", "ok", f"all that running from here takes in the namespace {cluster.namespace}")


def _claim(api: Api, cluster: KubernetesCluster) -> Look:
    name = f"claim {cluster.volume}"
    try:
        found = api.get(CLAIMS, cluster.volume)
    except NotFound:
        return Look(name, "note", "is not there yet", "apply base/ of a rendering before the sweep")
    except Forbidden:
        return _unknown(name, "persistentvolumeclaims")
    phase = str((found.get("status") or {}).get("phase") or "Pending")
    size = ((found.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", "")
    if phase == "Bound":
        return Look(name, "ok", f"bound, {size}")
    if phase == "Lost":
        return Look(name, "missing", "its volume is gone", "make another claim")
    return Look(name, "note", f"{phase}, {size}", "some classes bind a claim when its first pod starts")


def _classes(api: Api, pods: Sequence[dict[str, Any]]) -> Iterator[Look]:
    for name in dict.fromkeys(pod["runtimeClassName"] for pod in pods if pod.get("runtimeClassName")):
        try:
            api.get(CLASSES, name)
            yield Look(f"RuntimeClass {name}", "ok", "is there")
        except NotFound:
            advice = "install it with the GPU operator, or set executor.kubernetes.runtime_class to another or to null"
            yield Look(f"RuntimeClass {name}", "missing", "is not there: pods would be refused", advice)
        except Forbidden:
            yield _unknown(f"RuntimeClass {name}", "runtimeclasses.node.k8s.io")


def _secrets(api: Api, cluster: KubernetesCluster, pods: Sequence[dict[str, Any]]) -> Iterator[Look]:
    wanted: dict[str, set[str]] = {}
    for pod in pods:
        for variable in (variable for container in pod["containers"] for variable in container.get("env", ())):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                wanted.setdefault(reference["name"], set()).add(reference["key"])
    for name, keys in wanted.items():
        told = " ".join(f"--from-literal={key}=..." for key in sorted(keys))
        advice = f"kubectl -n {cluster.namespace} create secret generic {name} {told}"
        try:
            absent = keys - set(api.get(SECRETS, name).get("data") or {})
        except NotFound:
            yield Look(f"Secret {name}", "missing", "is not there: pods would not start", advice)
            continue
        except Forbidden:
            yield _unknown(f"Secret {name}", "secrets")
            continue
        seen = f"lacks {', '.join(sorted(absent))}" if absent else f"has {', '.join(sorted(keys))}"
        yield Look(f"Secret {name}", "missing" if absent else "ok", seen, advice if absent else "")


def _quotas(api: Api) -> Iterator[Look]:
    try:
        found, _ = api.list(QUOTAS)
    except (Forbidden, NotFound):
        yield _unknown("quotas", "resourcequotas")
        return
    for quota in found:
        status = quota.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        for name in (f"requests.{GPU}", "count/rayjobs.ray.io"):
            if name in hard:
                full = str(used.get(name, "0")) == str(hard[name])
                seen = f"{used.get(name, '0')} of {hard[name]} {name} are used"
                advice = "attempts wait until some are free" if full else ""
                yield Look(f"quota {quota['metadata']['name']}", "note" if full else "ok", seen, advice)


def _queue(api: Api, cluster: KubernetesCluster, pods: Sequence[dict[str, Any]]) -> Iterator[Look]:
    """Yield whether the local queue is there, and its cluster queue covers what pods request."""
    name = f"LocalQueue {cluster.queue}"
    try:
        whole = str(api.get(QUEUES, str(cluster.queue))["spec"]["clusterQueue"])
        groups = api.get(CLUSTER_QUEUES, whole)["spec"].get("resourceGroups") or ()
    except NotFound as error:
        yield Look(name, "missing", str(error), "make it, or name another in executor.kubernetes.queue")
        return
    except (Forbidden, KeyError):
        yield _unknown(name, "localqueues and clusterqueues of kueue.x-k8s.io")
        return
    covered = {resource for group in groups for resource in group.get("coveredResources", ())}
    wanted = {key for pod in pods for c in pod["containers"] for key in c["resources"].get("requests", {})}
    if absent := sorted(wanted - covered):
        advice = f"Kueue would hold the jobs for ever: add {', '.join(absent)} to the ClusterQueue {whole}"
        yield Look(name, "missing", f"its ClusterQueue {whole} does not cover {', '.join(absent)}", advice)
    else:
        yield Look(name, "ok", f"its ClusterQueue {whole} covers all that pods request")


def _dry_run(api: Api, manifests: Sequence[Manifest]) -> list[Look]:
    """Return what the server says to each object, without creating any; equal refusals are told once."""
    refused: dict[str, list[str]] = {}
    accepted = 0
    for made in manifests:
        try:
            api.try_create(KINDS[made["kind"]], made)
            accepted += 1
        except Conflict:
            accepted += 1  # it is there already, and would be updated
        except Unreachable:
            raise
        except ApiError as error:
            refused.setdefault(str(error), []).append(f"{made['kind']} {made['metadata']['name']}")
    looks = [Look("dry run", "ok", f"{accepted} of {len(manifests)} objects would be accepted")] if accepted else []
    for why, names in refused.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        looks.append(Look("dry run", "missing", f"{names[0]}{more}: {why}", "put that right, then look again"))
    return looks


def _unknown(what: str, resource: str) -> Look:
    return Look(what, "note", f"not looked at: this account may not read {resource}")
