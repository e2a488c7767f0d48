"""One look at the cluster: RayJobs, pods, and the objects that say why a pod is not there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any  # a Kubernetes object

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import (
    EVENTS,
    JOBS,
    PODS,
    WORKLOADS,
    Api,
    Forbidden,
    NotFound,
    Resource,
    Unreachable,
)
from gridsweep.executors.kubernetes.conditions import Condition, admission, condition, queued, said, unscheduled
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, COMPONENT
from gridsweep.sweep.clusters import KubernetesCluster

Object = dict[str, Any]

UNTOLD = "Kueue's reason is not known, because our account may not list workloads.kueue.x-k8s.io"


@dataclass(frozen=True, slots=True)
class Seen:
    """The contents of the cluster when it was last listed: RayJobs by name, pods by attempt.

    `queue` has Kueue's reasons by the uid of the RayJob; None if they may not be read. `claim_says` is the latest
    warning about the volume claim, if a pod waits for it.
    """

    at: float
    jobs: dict[str, Object]
    pods: dict[str, list[Object]]
    queue: dict[str, str] | None
    claim_says: str

    def condition(self, attempt: str, job: Object | None, *, started: bool) -> Condition:
        """Return the condition of an attempt with this RayJob."""
        uid = job["metadata"].get("uid", "") if job is not None else ""
        says = UNTOLD if self.queue is None else self.queue.get(uid, "")
        return condition(job, self.pods.get(attempt, []), started=started, queue_says=says, claim_says=self.claim_says)


def listed(api: Api, cluster: KubernetesCluster, selector: str, at: float) -> Seen:
    """Return what the cluster holds of a sweep; `at` is the time of the look.

    Raise `Unreachable` without an answer, `ExecutorError` without KubeRay or the namespace.
    """
    try:
        jobs, _ = api.list(JOBS, selector)
    except NotFound as error:
        raise ExecutorError(no_kuberay(cluster, error)) from None
    pods: dict[str, list[Object]] = defaultdict(list)
    # Pods are listed after the RayJobs, so that the pods of a RayJob that is gone are not missed.
    for pod in api.list(PODS, f"{selector},{COMPONENT}=worker")[0]:
        pods[(pod["metadata"].get("annotations") or {}).get(ATTEMPT, "")].append(pod)
    waiting = any("persistentvolumeclaim" in unscheduled(pod).lower() for found in pods.values() for pod in found)
    return Seen(
        at,
        {job["metadata"]["name"]: job for job in jobs},
        dict(pods),
        _queue(api, jobs),
        warning(api, "PersistentVolumeClaim", cluster.volume) if waiting else "",
    )


def _queue(api: Api, jobs: Sequence[Object]) -> dict[str, str] | None:
    """Return Kueue's reasons by the uid of the RayJob, read only while Kueue holds one; None without the right."""
    if not any(queued(job) and job["spec"].get("suspend") for job in jobs):
        return {}
    for resource in WORKLOADS:
        try:
            found = api.list(resource)[0]
        except NotFound:  # another version of Kueue, or none
            continue
        except Forbidden:
            return None
        return {
            owner.get("uid", ""): why
            for workload in found
            if (why := admission(workload))
            for owner in workload["metadata"].get("ownerReferences") or ()
        }
    return {}


def warning(api: Api, kind: str, name: str) -> str:
    """Return the latest warning among an object's events; "" if there is none, or without the right to read them."""
    found = _optional(api, EVENTS, f"involvedObject.kind={kind},involvedObject.name={name},type=Warning")
    last = max(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default={})
    return f"{last.get('reason')}: {said(last.get('message'))}" if last else ""


def eviction(api: Api, raycluster: str) -> str:
    """Return why a head of a RayCluster was evicted; "" if none was, or if its events are gone or may not be read.

    KubeRay replaces an evicted pod at once, so the pod itself is often gone before it is listed.
    """
    for event in _optional(api, EVENTS, "involvedObject.kind=Pod,reason=Evicted") if raycluster else ():
        if str(event["involvedObject"].get("name", "")).startswith(f"{raycluster}-head"):
            return f"its pod was evicted: {said(event.get('message'))}"
    return ""


def _optional(api: Api, resource: Resource, fields: str) -> list[Object]:
    try:
        return api.list(resource, fields=fields)[0]
    except (Forbidden, NotFound, Unreachable):
        return []


def no_kuberay(cluster: KubernetesCluster, error: Exception) -> str:
    return (
        f"the cluster knows no RayJobs ({error}); install the KubeRay operator, "
        f"and see that the namespace {cluster.namespace} exists"
    )
