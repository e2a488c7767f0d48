"""The rights a sweep takes, and checks before the first submission for problems that would make it fail."""

from __future__ import annotations

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import CLAIMS, JOBS, Api, Forbidden, NotFound, Resource
from gridsweep.executors.kubernetes.listing import no_kuberay
from gridsweep.executors.kubernetes.manifests.roles import OPTIONAL, RIGHTS, Rules, laptop_rules
from gridsweep.sweep.clusters import KubernetesCluster


def missing_rights(api: Api, rules: Rules) -> list[str]:
    """Return the rights of these rules that our account lacks, `verb resource` each; not those that are optional."""
    return [
        f"{verb} {kind}"
        for group, resource, verbs in rules
        if (group, resource) not in OPTIONAL
        for verb in verbs
        if not api.may(verb, kind := Resource(group, resource))
    ]


def check_cluster(api: Api, cluster: KubernetesCluster, *, outside: bool) -> None:
    """Raise `ExecutorError` if there is no cluster, no KubeRay or no usable volume, or if a right is missing."""
    if missing := missing_rights(api, laptop_rules() if outside else RIGHTS):
        raise Forbidden(
            f"our account lacks rights in the namespace {cluster.namespace}: {', '.join(missing)}; "
            "ask for a Role with these verbs (`gridsweep render --role` writes one)"
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
