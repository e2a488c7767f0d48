"""The condition of an attempt, derived from what the cluster lists: one word and a reason. Makes no requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.rayjob import COMPUTE_GARDENER, QUEUE

Object = dict[str, Any]

BEING_MADE = ("ContainerCreating", "PodInitializing")
PULLS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
NOT_PULLED = "cannot be pulled"
ABSENT = "its pod is not there yet"
NOT_CREATED = "its RayJob is not created yet"
"""Begins the reason of an attempt whose RayJob the API server refuses for now."""
QUOTA = "exceeded quota"
UNCOVERED = "unavailable in ClusterQueue"
_GARDENER = re.compile(r"carbon intensity|electricity|price|max-power|efficiency", re.IGNORECASE)
"""What Compute Gardener's own reasons name; a pod of its scheduler may wait for other reasons too."""
_REMEDIES = (
    (NOT_PULLED, "set executor.kubernetes.image to one that the nodes can pull"),
    ("RuntimeClass", "set executor.kubernetes.runtime_class to one that the cluster has, or to null"),
    ("per Container", "change executor.kubernetes.cpu or memory, or the namespace's LimitRange"),
    ("per Pod", "change executor.kubernetes.cpu or memory, or the namespace's LimitRange"),
    ("persistentvolumeclaim", "look at the claim, or name another one in executor.kubernetes.volume"),
    (UNCOVERED, "ask for a ClusterQueue that covers this resource, or name another one in executor.kubernetes.queue"),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of an attempt, with a reason `why`.

    `waits`: not begun, held by `by`. `runs`: running. `leaves`: being stopped. `over`: none of its workers is alive.
    `why` never contains a pod's name, so that equal failures have equal text. `stuck`: it waits for something that
    time alone does not bring, because it is `refused`, or because its pod is `absent` and nothing says why.
    """

    kind: Literal["waits", "runs", "leaves", "over"]
    why: str = ""
    by: str = ""
    stuck: Literal["", "refused", "absent"] = ""


def condition(
    job: Object | None, pods: Sequence[Object], *, started: bool, queue_says: str = "", claim_says: str = ""
) -> Condition:
    """Return the condition of an attempt. `started`: its worker has begun to work at some time.

    `queue_says` is Kueue's reason for not admitting the RayJob, `claim_says` the latest warning about the volume claim.
    """
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
        case "" | "Initializing" as stage:
            if queued(job) and job["spec"].get("suspend") and not stage and not alive:
                return _suspended(job, queue_says)
            return _waits(job, pods, alive, started, claim_says)
        case "Suspending" | "Suspended":
            if started and not alive:
                return Condition("over", "its RayJob was suspended while it ran")
            return _suspended(job, queue_says)
        case "Running":
            if started and not alive and (why := evicted(pods)):
                return Condition("over", why)
            return Condition("runs")
        case other:  # Retrying, Waiting, and states of later versions
            return Condition("waits", said(status.get("message")) or f"its RayJob is {other}", "KubeRay")


def queued(job: Object) -> bool:
    """Return whether Kueue admits the RayJob."""
    return QUEUE in (job["metadata"].get("labels") or {})


def _suspended(job: Object, queue_says: str) -> Condition:
    if not queued(job):
        return Condition("waits", "its RayJob is suspended", "Kubernetes")
    why = f"its RayJob is suspended: {queue_says}" if queue_says else "its RayJob is suspended"
    return Condition("waits", why, "Kueue", "refused" if UNCOVERED in queue_says else "")


def _waits(
    job: Object, pods: Sequence[Object], alive: Sequence[Object], started: bool, claim_says: str = ""
) -> Condition:
    """Return the condition of a RayJob that is not ready yet: the reason its pod is held."""
    if not alive:
        if started and (why := evicted(pods)):
            return Condition("over", why)
        if why := refused_pod(job):
            return Condition("waits", why, "Kubernetes", "" if QUOTA in why else "refused")
        return Condition("waits", ABSENT, "KubeRay", "absent")
    pod = alive[0]
    if why := unscheduled(pod):
        gardener = pod["spec"].get("schedulerName") == COMPUTE_GARDENER and _GARDENER.search(why)
        claims = "persistentvolumeclaim" in why.lower()
        if claims and claim_says:
            why = f"{why} ({claim_says})"
        return Condition("waits", why, "Compute Gardener" if gardener else "Kubernetes", "refused" if claims else "")
    if why := not_started(pod):
        return Condition("waits", why, "Kubernetes", "refused")
    if phase(pod) == "Pending":
        return Condition("waits", "its pod is being made", "Kubernetes")
    return Condition("waits", "its Ray head starts", "KubeRay")


def unscheduled(pod: Object) -> str:
    """Return the scheduler's reason why a pod has no node; "" if the scheduler names none."""
    for told in (pod.get("status") or {}).get("conditions") or ():
        if told.get("type") == "PodScheduled" and told.get("status") == "False":
            return said(told.get("message")) or "its pod has no node yet"
    return ""


def not_started(pod: Object) -> str:
    """Return the kubelet's reason why a container of a pod does not start, such as its image; "" if it names none."""
    images = {made["name"]: made.get("image", "") for made in pod["spec"].get("containers") or ()}
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        why = f"{reason}: {said(waiting.get('message'))}".rstrip(": ")
        if reason in PULLS:
            return f"the image {images.get(container.get('name'), '')} {NOT_PULLED} ({why})".replace("  ", " ")
        if reason and reason not in BEING_MADE:
            return why
    return ""


def refused_pod(job: Object) -> str:
    """Return why KubeRay may not create a RayJob's pod, by the conditions of its RayCluster; "" if they do not say.

    Two lines: a reason such as `FailedCreateHeadPod`, and `pods "NAME" is forbidden: WHY`.
    """
    cluster = (job.get("status") or {}).get("rayClusterStatus") or {}
    for told in cluster.get("conditions") or ():
        if told.get("type") == "ReplicaFailure" and told.get("status") == "True":
            message = str(told.get("message") or told.get("reason") or "")
            _, _, after = message.partition(" is forbidden: ")
            return f"its pod is refused: {said(after or message)}"
    return ""


def same_trouble(one: str, other: str) -> bool:
    """Return whether two reasons tell of one image that is not pulled: the kubelet alternates between two words."""
    image, cut, _ = one.partition(NOT_PULLED)
    return bool(cut) and other.startswith(image + cut)


def admission(workload: Object) -> str:
    """Return Kueue's reason for not admitting a workload; "" if it is admitted or Kueue does not say."""
    for told in (workload.get("status") or {}).get("conditions") or ():
        if told.get("type") == "QuotaReserved" and told.get("status") == "False":
            return said(told.get("message"))
    return ""


def never_began(job: Object | None, pods: Sequence[Object]) -> bool:
    """Return whether the cluster itself shows that no worker of a RayJob has started; then there are no files."""
    if job is None:
        return False
    status = job.get("status") or {}
    stage, pending = status.get("jobDeploymentStatus") or "", all(phase(pod) == "Pending" for pod in pods)
    if stage in ("Suspending", "Suspended") and status.get("startTime"):
        return False  # it may have run before it was suspended
    return not status.get("jobStatus") and stage not in ("Running", "Complete") and pending


def remedy(why: str) -> str:
    """Return a reason with what to do about it, where there is something to do in the spec."""
    return next((f"{why}; {what}" for sign, what in _REMEDIES if sign.lower() in why.lower()), why)


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def evicted(pods: Sequence[Object]) -> str:
    """Return why the first failed pod failed; "" if none has."""
    for pod in pods:
        status = pod.get("status") or {}
        if phase(pod) == "Failed":
            if status.get("reason") == "Evicted":
                return f"its pod was evicted: {said(status.get('message')) or 'Kubernetes names no reason'}"
            return f"its pod failed: {status.get('reason') or 'no reason given'} {said(status.get('message'))}".strip()
    return ""


def failure(job: Object, stage: str) -> str:
    """Return why a RayJob failed: KubeRay's reason, and the last line that Ray received from the worker."""
    status = job.get("status") or {}
    lines = [line.strip() for line in str(status.get("message") or "").splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no message"
    if "ModuleNotFoundError" in last or "No module named" in last:
        image = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].get("image")
        what = f"the image {image} has no worker of this version in it ({last})"
        return f"{what}; set executor.kubernetes.image to one that has"
    if stage == "ValidationFailed":
        return f"KubeRay refuses the RayJob: {last}"
    return f"its RayJob failed ({status.get('reason') or 'no reason given'}): {last}"


def said(text: object) -> str:
    """Return a message of the cluster as one line of at most 300 characters."""
    return " ".join(str(text or "").split())[:300]
