"""A small KubeRay and schedulers, which move RayJobs and pods of the API server double through their states.

Their messages are those that were recorded from the real programs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.names import ATTEMPT
from gridsweep.executors.kubernetes.manifests.rayjob import COMPUTE_GARDENER, QUEUE, THRESHOLD
from gridsweep.testing.kubernetes.processes import Work
from gridsweep.testing.kubernetes.server import ApiServer
from gridsweep.testing.kubernetes.store import Object

CLUSTER, ORIGIN = "ray.io/cluster", "ray.io/originated-from-cr-name"
TICK_SECONDS = 0.02
FULL = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
OUT_OF_REACH = "unbound immediate PersistentVolumeClaims"
UNCOVERED = "couldn't assign flavors to pod set head: resource ephemeral-storage unavailable in ClusterQueue"


class Starter(Protocol):
    """Starts the work of a pod: real processes, or virtual work."""

    def start(self, pod: dict[str, Any], entrypoint: str = "") -> Work: ...


class Cluster:
    """The operator, the scheduler and the kubelet of the double.

    At most `gpus` GPU pods run at a time. Pods are killed `grace` seconds after their deletion. KubeRay's objects
    are deleted `ttl` seconds after a RayJob ended, and with `vanish` the RayJob too. `intensity` is the value Compute
    Gardener reads. Call `tick`, or let `running` call it.
    """

    def __init__(self, server: ApiServer, starter: Starter, *, gpus: int = 8, grace: float = 30.0):
        self.server, self.starter, self.gpus, self.grace = server, starter, gpus, grace
        self.ttl, self.vanish = 60.0, False
        self.intensity: float | None = None
        self.hold = ""  # the reason no worker's pod is bound; "" if pods are bound
        self.reader_hold = ""  # the same for other pods
        self.gpu_quota: int | None = None  # of the namespace, on requests.nvidia.com/gpu
        self.refusal = ""  # why admission refuses the pods of workers, as in `refused`
        self.no_image: set[str] = set()  # images that cannot be pulled
        self.queue_says: str | None = None  # why Kueue does not admit a RayJob; None: there is no Kueue
        self.clock: Callable[[], float] = time.monotonic
        self._works: dict[str, Work] = {}
        self._deadlines: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._made = 0
        self._lock = threading.RLock()

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Tick in a thread; at the end kill everything that runs."""
        stop = threading.Event()

        def turn() -> None:
            while not stop.is_set():
                self.tick()
                stop.wait(TICK_SECONDS)

        thread = threading.Thread(target=turn, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            for work in self._works.values():
                work.kill()

    def tick(self) -> None:
        """Process every object once."""
        with self._lock:
            for job in self.server.all("rayjobs"):
                self._job(job)
            for pod in self.server.all("pods"):
                self._pod(pod)
            for name in [name for name in self._works if self.server.find("pods", name) is None]:
                self._works.pop(name).kill()  # its pod was deleted at once
                self.server.ports.pop(name, None)

    # -- for tests

    def pod_of(self, attempt: str) -> Object:
        """Return the pod of an attempt."""
        pods = self.server.all("pods")
        return next(pod for pod in pods if (pod["metadata"].get("annotations") or {}).get(ATTEMPT) == attempt)

    def kill(self, attempt: str) -> None:
        """Kill a worker and nothing else."""
        with self._lock:
            self._works[self.pod_of(attempt)["metadata"]["name"]].kill()

    def evict(self, attempt: str) -> None:
        """Fail a pod as if its node were short of memory, without a signal to the worker."""
        with self._lock:
            name = self.pod_of(attempt)["metadata"]["name"]
            self._works.pop(name).kill()
            status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
            self.server.change("pods", name, {"status": status})

    # -- RayJobs

    def _job(self, job: Object) -> None:
        name, status = job["metadata"]["name"], job.get("status") or {}
        self._check(job)
        if not job["metadata"].get("deletionTimestamp") and self._queued(job, name):
            job = self.server.find("rayjobs", name) or job
        pods = [p for p in self.server.all("pods") if p["metadata"].get("labels", {}).get(ORIGIN) == name]
        stage = status.get("jobDeploymentStatus", "")
        if job["metadata"].get("deletionTimestamp"):
            for pod in pods:
                self.server.mark_deleted("pods", pod["metadata"]["name"])
            self.server.remove("rayjobs", name)
        elif job["spec"].get("suspend") and stage in ("", "Initializing", "Running", "Suspending"):
            for pod in pods:
                self.server.mark_deleted("pods", pod["metadata"]["name"])
            self._say(name, jobDeploymentStatus="Suspending" if pods else "Suspended")
        elif stage == "Suspended" and not job["spec"].get("suspend"):
            self._say(name, jobDeploymentStatus="")
        elif stage in ("", "Initializing") and not self._queued(job, name):
            self._begin(job, name, pods)
        elif stage == "Running":
            self._watch_work(name, pods)
        elif stage in ("Complete", "Failed") and self.clock() > self._ended.setdefault(name, self.clock()) + self.ttl:
            for pod in pods:
                self.server.mark_deleted("pods", pod["metadata"]["name"])
            if self.vanish and not pods:
                self.server.remove("rayjobs", name)

    def _check(self, job: Object) -> None:
        """Note a RayJob of another shape than the recorded ones: one head, submitted by HTTP, tried once."""
        spec = job["spec"]
        shape = (spec["submissionMode"], spec["backoffLimit"], "workerGroupSpecs" in spec["rayClusterSpec"])
        if shape != ("HTTPMode", 0, False):
            self.server.unrecorded.append(f"a RayJob with {shape}")

    def _queued(self, job: Object, name: str) -> bool:
        """Let Kueue suspend a RayJob with its label, or release it; return whether the RayJob waits for Kueue."""
        if self.queue_says is None or QUEUE not in (job["metadata"].get("labels") or {}):
            return False
        self.server.kinds.add("workloads")
        told = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": self.queue_says}
        workload, owner = f"rayjob-{name}", {"kind": "RayJob", "uid": job["metadata"]["uid"]}
        meta = {"name": workload, "ownerReferences": [owner]}
        if not self.queue_says:
            self.server.remove("workloads", workload)
        elif self.server.find("workloads", workload) is None:
            self.server.put("workloads", {"metadata": meta, "status": {"conditions": [told]}})
        if bool(job["spec"].get("suspend")) != bool(self.queue_says):
            self.server.change("rayjobs", name, {"spec": {"suspend": bool(self.queue_says)}})
        return bool(self.queue_says)

    def _refused(self, name: str) -> str:
        """Return why admission refuses the pod of a RayJob; "" if it admits the pod."""
        used = sum(ORIGIN in (pod["metadata"].get("labels") or {}) for pod in self.server.all("pods"))
        if self.gpu_quota is not None and used >= self.gpu_quota:
            gpus = "requests.nvidia.com/gpu"
            return f"exceeded quota: team, requested: {gpus}=1, used: {gpus}={used}, limited: {gpus}={self.gpu_quota}"
        return self.refusal

    def _begin(self, job: Object, name: str, pods: list[Object]) -> None:
        why = "" if pods else self._refused(name)
        if why:
            said = f'FailedCreateHeadPod\npods "{name}-{self._made:05}-head-xxxxx" is forbidden: {why}'
            failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": said}
            self._say(name, jobDeploymentStatus="Initializing", rayClusterStatus={"conditions": [failure]})
        elif not pods:
            self._made += 1
            template = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
            cluster = f"{name}-{self._made:05}"
            labels = {**template["metadata"]["labels"], CLUSTER: cluster, ORIGIN: name}
            meta = {"name": f"{cluster}-head", "labels": labels, "annotations": template["metadata"]["annotations"]}
            pod = {"kind": "Pod", "metadata": meta, "spec": template["spec"], "status": {"phase": "Pending"}}
            self.server.put("pods", pod)
            begun = {"rayClusterName": cluster, "rayClusterStatus": None, "startTime": stamp()}
            self._say(name, jobDeploymentStatus="Initializing", **begun)
        elif pods[0].get("status", {}).get("phase") == "Running" and not pods[0]["metadata"].get("deletionTimestamp"):
            self._works[pods[0]["metadata"]["name"]] = self.starter.start(dict(pods[0]), job["spec"]["entrypoint"])
            self._say(name, jobDeploymentStatus="Running", jobStatus="RUNNING")

    def _watch_work(self, name: str, pods: list[Object]) -> None:
        work = self._works.get(pods[0]["metadata"]["name"]) if pods else None
        code = work.poll() if work else -1
        if code is None:
            return
        tail = work.tail() if work else "the head pod went away"
        said = f"Job entrypoint command failed with exit code {code}, last available logs:\n{tail}" if code else ""
        how = ("Failed", "FAILED", "AppFailed") if code else ("Complete", "SUCCEEDED", "")
        self._say(
            name, jobDeploymentStatus=how[0], jobStatus=how[1], reason=how[2], message=said.strip(), endTime=stamp()
        )

    def _say(self, name: str, **status: Any) -> None:
        self.server.change("rayjobs", name, {"status": status})

    # -- pods

    def _pod(self, pod: Object) -> None:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if pod["metadata"].get("deletionTimestamp"):
            self._take_down(name)
        elif pod["metadata"].get("labels", {}).get(ORIGIN) and not self._owner(pod):
            self.server.mark_deleted("pods", name)
        elif status.get("phase", "Pending") != "Pending":
            return
        elif why := self._held(pod):
            unbound = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
            self.server.change("pods", name, {"status": {"phase": "Pending", "conditions": [unbound]}})
        elif pod["spec"]["containers"][0]["image"] in self.no_image:
            self._unpulled(name, pod)
        else:
            notes = pod["metadata"].get("annotations") or {}
            if f"{COMPUTE_GARDENER}.kubernetes.io/initial-carbon-intensity" in notes:
                self._note(name, **{"bind-time-carbon-intensity": f"{self.intensity:.2f}", "bind-timestamp": stamp()})
            if ORIGIN not in (pod["metadata"].get("labels") or {}):
                started = dict(pod)
                self._works[name] = self.starter.start(started)
                self.server.ports[name] = started.get("port", 0)
            bound = {"type": "PodScheduled", "status": "True"}
            self.server.change("pods", name, {"status": {"phase": "Running", "conditions": [bound]}})

    def _unpulled(self, name: str, pod: Object) -> None:
        """Say that the image cannot be pulled, in the kubelet's two words by turns."""
        before = ((pod.get("status") or {}).get("containerStatuses") or [{}])[0].get("state", {}).get("waiting", {})
        reason = "ImagePullBackOff" if before.get("reason") == "ErrImagePull" else "ErrImagePull"
        container = {"name": pod["spec"]["containers"][0]["name"], "state": {"waiting": {"reason": reason}}}
        bound = {"type": "PodScheduled", "status": "True"}
        status = {"phase": "Pending", "conditions": [bound], "containerStatuses": [container]}
        self.server.change("pods", name, {"status": status})

    def _owner(self, pod: Object) -> Object | None:
        return self.server.find("rayjobs", pod["metadata"]["labels"][ORIGIN])

    def _held(self, pod: Object) -> str:
        """Return the scheduler's reason why a pod gets no node; "" if it gets one."""
        if ORIGIN not in (pod["metadata"].get("labels") or {}):
            return self.reader_hold
        notes, name = pod["metadata"].get("annotations") or {}, pod["metadata"]["name"]
        if pod["spec"].get("schedulerName") == COMPUTE_GARDENER and self.intensity is not None:
            threshold = float(notes[THRESHOLD])
            if self.intensity > threshold:
                now = {"initial-carbon-intensity": f"{self.intensity:.2f}", "carbon-delay-timestamp": stamp()}
                if f"{COMPUTE_GARDENER}.kubernetes.io/initial-carbon-intensity" not in notes:
                    self._note(name, **now)
                return f"Current carbon intensity ({self.intensity:.2f}) exceeds threshold ({threshold:.2f})"
        busy = [p for p in self.server.all("pods") if p.get("status", {}).get("phase") == "Running"]
        used = sum(ORIGIN in (p["metadata"].get("labels") or {}) for p in busy)
        return self.hold or (FULL if used >= self.gpus else "")

    def _note(self, name: str, **notes: str) -> None:
        prefixed = {f"{COMPUTE_GARDENER}.kubernetes.io/{key}": value for key, value in notes.items()}
        self.server.change("pods", name, {"metadata": {"annotations": prefixed}})

    def _take_down(self, name: str) -> None:
        """Run the preStop hook; when it is done or the grace period is over, end the pod."""
        work = self._works.get(name)
        deadline = self._deadlines.setdefault(name, self.clock() + self.grace)
        if work is not None and not work.stop() and self.clock() < deadline:
            return
        if work is not None:
            work.kill()
            del self._works[name]
        self.server.ports.pop(name, None)
        self.server.remove("pods", name)


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
