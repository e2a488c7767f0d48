"""Checks before the first submission for problems that would make a sweep fail on a cluster."""

from __future__ import annotations

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import CLAIMS, JOBS, PODS, Api, Forbidden, NotFound, Resource
from gridsweep.sweep.clusters import KubernetesCluster

LOOP = ((JOBS, ("list", "watch", "get", "create", "delete")), (PODS, ("list",)))
READER = ((PODS, ("get", "create", "delete")), (Resource("", "pods/proxy"), ("get", "delete")))
"""`LOOP`: the rights the loop needs. `READER`: additional rights to read the volume from outside the cluster."""


def check_cluster(api: Api, cluster: KubernetesCluster, *, outside: bool) -> None:
    """Raise `ExecutorError` if there is no cluster, no KubeRay or no usable volume, or if a right is missing."""
    missing = [
        f"{verb} {resource}"
        for resource, verbs in (*LOOP, *(READER if outside else ()))
        for verb in verbs
        if not api.may(verb, resource)
    ]
    if missing:
        raise Forbidden(
            f"our account lacks rights in the namespace {cluster.namespace}: {', '.join(missing)}; "
            "ask for a Role with these verbs (`gridsweep render` writes one)"
        )
    try:
        api.list(JOBS, "gridsweep.io/sweep=none")
    except NotFound as error:
        raise ExecutorError(
            f"the cluster knows no RayJobs ({error}); install the KubeRay operator, "
            f"and see that the namespace {cluster.namespace} exists"
        ) from None
    _check_volume(api, cluster)


def _check_volume(api: Api, cluster: KubernetesCluster) -> None:
    try:
        claim = api.get(CLAIMS, cluster.volume)
    except Forbidden:
        return  # this right is optional; a pod that waits for its volume reports it
    except NotFound:
        raise ExecutorError(
            f"there is no volume claim {cluster.volume} in the namespace {cluster.namespace}; "
            "`gridsweep render` writes one to apply, or name yours in executor.kubernetes.volume"
        ) from None
    phase, spec = (claim.get("status") or {}).get("phase"), claim.get("spec") or {}
    if phase == "Lost":
        raise ExecutorError(f"the volume behind the claim {cluster.volume} is gone; make another claim")
    if phase != "Bound" and not spec.get("storageClassName") and not spec.get("volumeName"):
        raise ExecutorError(
            f"the volume claim {cluster.volume} cannot be bound: it names no StorageClass, and the cluster has no "
            "default; set executor.kubernetes.storage_class, and apply the claim anew"
        )
