"""The rights a sweep takes, and checks before the first submission for problems that would make it fail."""

from __future__ import annotations

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import CLAIMS, JOBS, Api, Forbidden, NotFound, Resource
from gridsweep.executors.kubernetes.listing import no_kuberay
from gridsweep.executors.kubernetes.manifests.controller import RIGHTS
from gridsweep.sweep.clusters import KubernetesCluster

Rules = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Rules of a Role, each as group, resource and verbs."""
READER: Rules = (
    ("", "pods", ("get", "list", "create", "delete")),
    ("", "pods/proxy", ("get", "delete")),
)
"""What reading the volume from outside the cluster takes, through a pod that is created for it."""
OPTIONAL = (("", "events"), ("kueue.x-k8s.io", "workloads"))
"""Resources that only say why an attempt waits: without these rights the reason is missing, and nothing else."""


def controller_rules() -> Rules:
    """Return the rules that the loop needs in the cluster, where the volume is mounted."""
    return RIGHTS


def laptop_rules() -> Rules:
    """Return the rules that the loop needs outside the cluster: the controller's, and those to read the volume."""
    merged: dict[tuple[str, str], tuple[str, ...]] = {}
    for group, resource, verbs in (*RIGHTS, *READER):
        had = merged.get((group, resource), ())
        merged[group, resource] = (*had, *(verb for verb in verbs if verb not in had))
    return tuple((group, resource, verbs) for (group, resource), verbs in merged.items())


def check_cluster(api: Api, cluster: KubernetesCluster, *, outside: bool) -> None:
    """Raise `ExecutorError` if there is no cluster, no KubeRay or no usable volume, or if a right is missing."""
    rules = laptop_rules() if outside else controller_rules()
    missing = [
        f"{verb} {kind}"
        for group, resource, verbs in rules
        if (group, resource) not in OPTIONAL
        for verb in verbs
        if not api.may(verb, kind := Resource(group, resource))
    ]
    if missing:
        raise Forbidden(
            f"our account lacks rights in the namespace {cluster.namespace}: {', '.join(missing)}; "
            "ask for a Role with these verbs (`gridsweep render` writes one)"
        )
    try:
        api.list(JOBS, "gridsweep.io/sweep=none")
    except NotFound as error:
        raise ExecutorError(no_kuberay(cluster, error)) from None
    _check_volume(api, cluster)


def _check_volume(api: Api, cluster: KubernetesCluster) -> None:
    try:
        claim = api.get(CLAIMS, cluster.volume)
    except NotFound:
        raise ExecutorError(
            f"there is no volume claim {cluster.volume} in the namespace {cluster.namespace}; "
            "`gridsweep render` writes one to apply, or name yours in executor.kubernetes.volume"
        ) from None
    if claim["metadata"].get("deletionTimestamp"):
        raise ExecutorError(
            f"the volume claim {cluster.volume} is being deleted; wait until it is gone and apply it anew, "
            "or name another one in executor.kubernetes.volume"
        )
    phase, spec = (claim.get("status") or {}).get("phase"), claim.get("spec") or {}
    if phase == "Lost":
        raise ExecutorError(f"the volume behind the claim {cluster.volume} is gone; make another claim")
    if phase != "Bound" and not spec.get("storageClassName") and not spec.get("volumeName"):
        raise ExecutorError(
            f"the volume claim {cluster.volume} cannot be bound: it names no StorageClass, and the cluster has no "
            "default; set executor.kubernetes.storage_class, and apply the claim anew"
        )
