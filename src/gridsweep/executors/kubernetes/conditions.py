"""The condition of an attempt, derived from its RayJob and pods: one word and a reason. Makes no requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.rayjob import COMPUTE_GARDENER, QUEUE

Object = dict[str, Any]

BEING_MADE = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of an attempt, with a reason `why`.

    `waits`: not begun, held by `by`. `runs`: running. `leaves`: being stopped. `over`: none of its workers is alive.
    `why` never contains an object's name, so that equal failures have equal text.
    """

    kind: Literal["waits", "runs", "leaves", "over"]
    why: str = ""
    by: str = ""


def condition(job: Object | None, pods: Sequence[Object], *, started: bool) -> Condition:
    """Return the condition of an attempt. `started`: its worker has begun to work at some time."""
    alive = [pod for pod in pods if phase(pod) not in ("Succeeded", "Failed")]
    if job is None or job["metadata"].get("deletionTimestamp"):
        if alive or job is not None:
            return Condition(
                "leaves", "its pod is being stopped" if alive else "its RayJob is being deleted", "KubeRay"
            )
        return Condition("over", evicted(pods) or "its RayJob was deleted by another client, or expired")
    status = job.get("status") or {}
    match status.get("jobDeploymentStatus") or "":
        case "Complete":
            return Condition("over", "its RayJob is complete, and there is no result")
        case "Failed" | "ValidationFailed" as stage:
            why = failure(job, stage)
            # If Ray itself reports the end of the job, the head may still exist; otherwise it must be gone first.
            ended = status.get("jobStatus") in ("SUCCEEDED", "FAILED", "STOPPED") or not alive
            return Condition("over" if ended else "leaves", evicted(pods) or why, "KubeRay")
        case "" | "Initializing":
            return _waits(job, pods, alive, started)
        case "Suspending" | "Suspended":
            if started and not alive:
                return Condition("over", "its RayJob was suspended while it ran")
            queued = QUEUE in (job["metadata"].get("labels") or {})
            return Condition("waits", "its RayJob is suspended", "Kueue" if queued else "Kubernetes")
        case "Running":
            if started and not alive and (why := evicted(pods)):
                return Condition("over", why)
            return Condition("runs")
        case other:  # Retrying, Waiting, and states of later versions
            return Condition("waits", said(status.get("message")) or f"its RayJob is {other}", "KubeRay")


def _waits(job: Object, pods: Sequence[Object], alive: Sequence[Object], started: bool) -> Condition:
    """Return the condition of a RayJob that is not ready yet: the reason its pod is held."""
    if not alive:
        if started and (why := evicted(pods)):
            return Condition("over", why)
        return Condition("waits", "its pod is not there yet", "KubeRay")
    pod = alive[0]
    by = "Compute Gardener" if pod["spec"].get("schedulerName") == COMPUTE_GARDENER else "Kubernetes"
    for told in (pod.get("status") or {}).get("conditions") or ():
        if told.get("type") == "PodScheduled" and told.get("status") == "False":
            return Condition("waits", said(told.get("message")) or "its pod has no node yet", by)
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason and reason not in BEING_MADE:
            return Condition("waits", f"{reason}: {said(waiting.get('message'))}".rstrip(": "), "Kubernetes")
    if phase(pod) == "Pending":
        return Condition("waits", "its pod is being made", "Kubernetes")
    return Condition("waits", "its Ray head starts", "KubeRay")


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def evicted(pods: Sequence[Object]) -> str:
    """Return why the first failed pod failed; "" if none has."""
    for pod in pods:
        status = pod.get("status") or {}
        if phase(pod) == "Failed":
            return f"its pod failed: {status.get('reason') or 'no reason given'} {said(status.get('message'))}".strip()
    return ""


def failure(job: Object, stage: str) -> str:
    """Return why a RayJob failed: KubeRay's reason, and the last line that Ray received from the worker."""
    status = job.get("status") or {}
    lines = [line.strip() for line in str(status.get("message") or "").splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no message"
    if "ModuleNotFoundError" in last or "No module named" in last:
        image = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].get("image")
        return f"the image {image} has no worker in it ({last}); set executor.kubernetes.image to one that has"
    if stage == "ValidationFailed":
        return f"KubeRay refuses the RayJob: {last}"
    return f"its RayJob failed ({status.get('reason') or 'no reason given'}): {last}"


def said(text: object) -> str:
    """Return a message of the cluster as one line of at most 300 characters."""
    return " ".join(str(text or "").split())[:300]
