"""Attempts as RayJobs on a Kubernetes cluster, each with one pod; the loop is their controller.

A RayJob is created when its attempt is requested, and deleted when the attempt has ended or must pause; its pod is
asked to stop first, so that it writes its result. The state comes from lists; a watch only says when to list. The API
server says whether a worker is alive; the worker's files say what it did. A missing answer is no evidence: no attempt
is reported as lost because of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any  # a Kubernetes object

from gridsweep.accounting.compute_gardener import Gardened, facts, gardened
from gridsweep.errors import ExecutorError
from gridsweep.executors.border import printed
from gridsweep.executors.handover import assignment, news, touched
from gridsweep.executors.kubernetes.api import JOBS, PODS, Api, Conflict, NotFound, Unreachable, Watch
from gridsweep.executors.kubernetes.conditions import Condition, condition
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, COMPONENT, job_name
from gridsweep.executors.kubernetes.manifests.rayjob import rayjob
from gridsweep.executors.kubernetes.ownership import RUN, attempt_of, earlier_run, made_for, run_of, selector
from gridsweep.executors.kubernetes.preflight import check_cluster
from gridsweep.executors.kubernetes.volume import Files, Mounted
from gridsweep.executors.publisher import Publisher
from gridsweep.state.events import Ended, Event, Held, Lost
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.clusters import KubernetesCluster

Object = dict[str, Any]

BRIEF_SECONDS = 2.0
"""Seconds of retries in each look while the server does not answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The contents of the cluster when it was last listed: RayJobs by name, pods by attempt."""

    at: float
    jobs: dict[str, Object]
    pods: dict[str, list[Object]]


class Kubernetes:
    """Executor that runs attempts in a cluster's namespace; `files` gives access to the files they write.

    A list is valid for `relist` seconds, unless the watch signals a change. After a worker is gone without a result,
    its last files have `settle` seconds to become visible.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        api: Api,
        files: Files,
        *,
        relist: float = 30.0,
        settle: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        watch: bool = True,
    ):
        self.cluster, self.api, self.files = cluster, api, files
        self.relist, self.settle, self._clock, self._watched = relist, settle, clock, watch
        self._patience = api.patience
        self._publisher = Publisher(files.store)
        self._woken = threading.Event()
        self._watch: Watch | None = None
        self._seen: Seen | None = None
        # Caches and timers only: a new loop can find all of this out again.
        self._down_since: datetime | None = None
        self._over_since: dict[str, float] = {}
        self._met: set[str] = set()
        self._published: set[str] = set()
        self._gardened: dict[str, Gardened] = {}

    def ready(self) -> None:
        """Raise `ExecutorError` if the cluster lacks a requirement of a sweep: KubeRay, rights, the volume."""
        check_cluster(self.api, self.cluster, outside=not isinstance(self.files, Mounted))

    # -- observing the cluster and the workers

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        if not state.active:
            return ()
        try:
            seen: Seen | None = self._look(state)
            self._down_since = None
        except Unreachable:
            self._down_since = self._down_since or now
            seen = None
        events: list[Event] = []
        for attempt in state.active.values():
            if seen is None:
                events += self._unseen(state, attempt, now, events)
            else:
                events += self._news(state, attempt, seen, now, events)
        return events

    def _news(self, state: State, attempt: Attempt, seen: Seen, now: datetime, before: Sequence[Event]) -> list[Event]:
        """Return the new events of one attempt."""
        job, pods = self._job(state, attempt, seen), seen.pods.get(attempt.id, [])
        folder = self.files.folder(attempt.id)
        begun = attempt.running_at is not None or (folder.path / "worker.json").exists()
        if job is not None:
            self._met.add(attempt.id)
        if job is None and not pods and not begun and not self._known(attempt):
            return []  # its RayJob is not created yet
        where = condition(job, pods, started=begun)
        if where.kind != "over":
            self._over_since.pop(attempt.id, None)
        for pod in pods:
            if figures := gardened(pod["metadata"].get("annotations") or {}):
                self._gardened[attempt.id] = figures
        if where.kind != "waits" or begun:
            try:
                self.files.refresh(attempt.id)
            except Unreachable as error:
                return self._held(attempt, now, Condition("waits", str(error), "Kubernetes"))
            if attempt.running_at is None and earlier_run(folder.path, state):
                raise ExecutorError(
                    f"the volume {self.cluster.volume} holds {attempt.id} of an earlier run of {state.sweep.name}; "
                    "give the sweep another name, or remove that run's folder from the volume"
                )
        if os.path.lexists(folder.path / "result.json"):
            try:
                return self._told(attempt, news(state, attempt, folder, now, ended=True, before=before))
            except Unreachable as error:  # what it saved is verified on the volume
                return self._held(attempt, now, Condition("waits", str(error), "Kubernetes"))
        over = where.kind == "over" and self._settled(state, attempt, where)
        why = attempt.reason or where.why
        if not folder.path.exists():
            return [Lost(now, attempt.id, why)] if over else self._held(attempt, now, where)
        try:
            events = news(state, attempt, folder, now, ended=over, why=why, before=before)
        except Unreachable as error:  # checkpoints are verified on the volume
            return self._held(attempt, now, Condition("waits", str(error), "Kubernetes"))
        return [*(() if over else self._held(attempt, now, where)), *events]

    def _unseen(self, state: State, attempt: Attempt, now: datetime, before: Sequence[Event]) -> list[Event]:
        """Return the new events while the API server does not answer: at most what a mounted volume shows."""
        why = f"the API server has not answered since {self._down_since:%Y-%m-%d %H:%M} UTC; what runs goes on"
        held = self._held(attempt, now, Condition("waits", why, "Kubernetes"))
        folder = self.files.folder(attempt.id)
        if not folder.path.exists():
            return held
        ended = os.path.lexists(folder.path / "result.json")
        try:
            return [*held, *self._told(attempt, news(state, attempt, folder, now, ended=ended, before=before))]
        except Unreachable:  # a mirror's checkpoints are verified on the volume
            return held

    @staticmethod
    def _held(attempt: Attempt, now: datetime, where: Condition) -> list[Event]:
        """Return a `Held` event if the reason for holding an attempt has changed; an empty reason means released."""
        why = where.why if where.kind in ("waits", "leaves") else ""
        told = attempt.held.partition(": ")[2]
        return [Held(now, attempt.id, where.by if why else "", why)] if why != told else []

    def _told(self, attempt: Attempt, events: list[Event]) -> list[Event]:
        """Return the events; an end also gets the figures that Compute Gardener wrote on the pod."""
        figures = self._gardened.get(attempt.id)
        if figures is None or not events or not isinstance(end := events[-1], Ended):
            return events
        more = {key: value for m in attempt.stint.members for key, value in facts(m.experiment, figures).items()}
        return [*events[:-1], replace(end, facts={**end.facts, **more})]

    def _settled(self, state: State, attempt: Attempt, where: Condition) -> bool:
        """Return whether a fresh list confirms that an attempt is over, `settle` seconds after it was first seen so."""
        since = self._over_since.setdefault(attempt.id, self._clock())
        if self._clock() - since < self.settle:
            return False
        seen = self._look(state, anew=True)
        again = condition(self._job(state, attempt, seen), seen.pods.get(attempt.id, []), started=True)
        if again.kind != "over":
            del self._over_since[attempt.id]
        return again.kind == "over"

    def changed(self, state: State) -> bool:
        """Return whether the cluster has changed since it was last listed."""
        return self._woken.is_set()

    def alive(self, state: State) -> bool:
        """Return whether any worker may be alive; workers that cannot be observed count as alive."""
        try:
            seen = self._look(state, anew=True)
        except Unreachable:
            return bool(state.active)
        found = [(self._job(state, a, seen), seen.pods.get(a.id, [])) for a in state.active.values()]
        return any(condition(job, pods, started=True).kind != "over" for job, pods in found)

    def last_sign(self, state: State) -> datetime | None:
        """Return the wall time of the last known write by any active worker."""
        folders = [self.files.folder(attempt).path for attempt in state.active]
        return max((touched(path) for path in folders if path.exists()), default=None)

    def logs(self, attempt: str) -> Iterator[str]:
        """Yield the lines that a worker has printed so far."""
        with suppress(Unreachable):
            self.files.refresh(attempt)
        yield from printed(self.files.folder(attempt).path)

    # -- acting for the loop

    def act(self, state: State) -> None:
        if self._down_since is not None and not state.finished:
            return  # the next `observe` asks again
        try:
            self._match(state)
            self._publish(state)
        except Unreachable:
            if state.finished:  # report it: a rerun has only this left to do
                raise
        if state.finished:
            self.close()

    def _match(self, state: State) -> None:
        """Create RayJobs for requested attempts; delete those of attempts that have ended or must pause."""
        seen = self._look(state)
        for job in seen.jobs.values():
            attempt = state.attempts.get(attempt_of(job, state))
            if job["metadata"].get("deletionTimestamp"):
                continue
            if attempt and (attempt.id not in state.active or self._to_be_deleted(attempt, job, seen)):
                with suppress(NotFound, Conflict):  # gone, or the name belongs to another object by now
                    self.api.delete(JOBS, job["metadata"]["name"], job["metadata"].get("uid", ""))
                self._seen = None
        for attempt in state.active.values():
            if self._known(attempt) or seen.pods.get(attempt.id) or self._job(state, attempt, seen) is not None:
                continue
            self._create(state, attempt)

    def _known(self, attempt: Attempt) -> bool:
        """Return whether an attempt's RayJob was seen or must not be created; RayJobs that are gone stay gone."""
        seen = attempt.id in self._met or attempt.held or attempt.running_at is not None
        return bool(seen or attempt.pausing_since is not None)

    @staticmethod
    def _to_be_deleted(attempt: Attempt, job: Object, seen: Seen) -> bool:
        """Return whether an attempt must pause, or its RayJob failed while its pod still runs.

        In the second case deletion stops the pod, with time for a result.
        """
        where = condition(job, seen.pods.get(attempt.id, []), started=True)
        return attempt.pausing_since is not None or where.kind == "leaves"

    def _create(self, state: State, attempt: Attempt) -> None:
        made = rayjob(state.sweep, self.cluster, assignment(state, attempt))
        made["metadata"]["annotations"][RUN] = run_of(state)
        self._seen = None
        try:
            self.api.create(JOBS, made)
        except Conflict:
            with suppress(NotFound):
                self._check_ours(state, attempt, self.api.get(JOBS, made["metadata"]["name"]))
        except NotFound as error:
            raise ExecutorError(no_kuberay(self.cluster, error)) from None

    def _job(self, state: State, attempt: Attempt, seen: Seen) -> Object | None:
        """Return the RayJob of an attempt. Raise `ExecutorError` if the name belongs to another run."""
        job = seen.jobs.get(job_name(state.sweep.name, attempt.id, attempt.stint.members[0].experiment))
        if job is not None:
            self._check_ours(state, attempt, job)
        return job

    def _check_ours(self, state: State, attempt: Attempt, job: Object) -> None:
        if made_for(job, state, attempt):
            return
        raise ExecutorError(
            f"the RayJob {job['metadata']['name']} in the namespace {self.cluster.namespace} belongs to someone else's "
            f"run: the name is taken. Delete it, give the sweep another name than {state.sweep.name!r}, "
            "or use another namespace"
        )

    def _publish(self, state: State) -> None:
        """Fetch finished adapters, publish them, and remove their checkpoints from the volume."""
        done = {
            id: standing
            for id, standing in state.standings.items()
            if id not in self._published and standing.status == "done" and standing.outcome and standing.outcome.adapter
        }
        for id, standing in done.items():
            if not (self.files.store / "experiments" / id / "adapter").exists():
                assert standing.outcome and standing.outcome.adapter
                self.files.bring(standing.outcome.adapter)
        self._publisher.publish(state)
        for id, standing in done.items():
            for attempt in standing.attempts:
                members = state.attempts[attempt].stint.members
                # Checkpoints are removed per attempt, so only when none of its members can resume from them any more.
                if all(state.standings[member.experiment].status in ("done", "failed") for member in members):
                    self.files.forget(attempt)
            self._published.add(id)

    # -- the list

    def _look(self, state: State, *, anew: bool = False) -> Seen:
        """Return the contents of the cluster, listed again if they may have changed.

        Raise `Unreachable` without an answer, `ExecutorError` without KubeRay or the namespace.
        """
        seen = self._seen
        if seen and not anew and not self._woken.is_set() and self._clock() - seen.at < self.relist:
            return seen
        if self._watch is None and self._watched:
            self._watch = Watch(self.api, JOBS, selector(state), self._woken.set)
        self._woken.clear()
        self.api.patience = BRIEF_SECONDS if self._down_since is not None else self._patience
        self._seen = None
        try:
            jobs, _ = self.api.list(JOBS, selector(state))
        except NotFound as error:
            raise ExecutorError(no_kuberay(self.cluster, error)) from None
        pods: dict[str, list[Object]] = defaultdict(list)
        # Pods are listed after the RayJobs, so that the pods of a RayJob that is gone are not missed.
        for pod in self.api.list(PODS, f"{selector(state)},{COMPONENT}=worker")[0]:
            pods[(pod["metadata"].get("annotations") or {}).get(ATTEMPT, "")].append(pod)
        self._seen = Seen(self._clock(), {job["metadata"]["name"]: job for job in jobs}, dict(pods))
        return self._seen

    def close(self) -> None:
        """End the watch and the reader pod; further use of the executor opens them again."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._seen = None
        self.files.close()


def no_kuberay(cluster: KubernetesCluster, error: Exception) -> str:
    return (
        f"the cluster knows no RayJobs ({error}); install the KubeRay operator, "
        f"and see that the namespace {cluster.namespace} exists"
    )
