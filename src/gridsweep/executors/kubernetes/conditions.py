"""What a RayJob and its pods say about an attempt, in one word and a reason. No request is made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.rayjob import COMPUTE_GARDENER, QUEUE

Object = dict[str, Any]

BEING_MADE = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Condition:
    """`waits`: not begun, `by` holds it. `runs`. `leaves`: it is being stopped. `over`: no worker of it lives.

    `why` never holds an object's name, so that alike failures read alike.
    """

    kind: Literal["waits", "runs", "leaves", "over"]
    why: str = ""
    by: str = ""


def condition(job: Object | None, pods: Sequence[Object], *, started: bool) -> Condition:
    """Where an attempt stands. `started` says that its worker has begun to work at some time."""
    alive = [pod for pod in pods if phase(pod) not in ("Succeeded", "Failed")]
    if job is None or job["metadata"].get("deletionTimestamp"):
        if alive or job is not None:
            return Condition(
                "leaves", "its pod is being stopped" if alive else "its RayJob is being deleted", "KubeRay"
            )
        return Condition("over", evicted(pods) or "its RayJob was deleted by somebody else, or expired")
    status = job.get("status") or {}
    match status.get("jobDeploymentStatus") or "":
        case "Complete":
            return Condition("over", "its RayJob is complete, and there is no result")
        case "Failed" | "ValidationFailed" as stage:
            why = failure(job, stage)
            # Where Ray itself says that the job ended, the head may stay; else it has to be gone first.
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
        case other:  # Retrying, Waiting, and whatever later versions know
            return Condition("waits", said(status.get("message")) or f"its RayJob is {other}", "KubeRay")


def _waits(job: Object, pods: Sequence[Object], alive: Sequence[Object], started: bool) -> Condition:
    """Why a RayJob is not ready yet: what holds its pod."""
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
    """Why a pod failed, where one did and said so."""
    for pod in pods:
        status = pod.get("status") or {}
        if phase(pod) == "Failed":
            return f"its pod failed: {status.get('reason') or 'no reason given'} {said(status.get('message'))}".strip()
    return ""


def failure(job: Object, stage: str) -> str:
    """Why a RayJob failed: KubeRay's reason, and the last line that Ray had from the worker."""
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
    """A message of the cluster as one short line."""
    return " ".join(str(text or "").split())[:300]
