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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any  # a Kubernetes object

from gridsweep.accounting.compute_gardener import Gardened, facts, gardened
from gridsweep.errors import ExecutorError
from gridsweep.executors.assigning import assignment
from gridsweep.executors.border import printed
from gridsweep.executors.handover import news, touched
from gridsweep.executors.kubernetes.api import JOBS, Api, Conflict, NotFound, QuotaExceeded, Unreachable, Watch
from gridsweep.executors.kubernetes.conditions import NOT_CREATED, Condition, evicted, never_began, phase
from gridsweep.executors.kubernetes.endings import Timers, age, held, not_begun, unreadable, unstartable
from gridsweep.executors.kubernetes.listing import Seen, eviction, listed, no_kuberay
from gridsweep.executors.kubernetes.manifests.names import job_name
from gridsweep.executors.kubernetes.manifests.rayjob import rayjob
from gridsweep.executors.kubernetes.ownership import RUN, attempt_of, earlier_run, made_for, run_of, selector
from gridsweep.executors.kubernetes.preflight import check_cluster
from gridsweep.executors.kubernetes.publishing import Publishing
from gridsweep.executors.kubernetes.reader import ReaderDown
from gridsweep.executors.kubernetes.volume import Files, Mounted
from gridsweep.state.events import Ended, Event
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.clusters import KubernetesCluster

Object = dict[str, Any]

BRIEF_SECONDS = 2.0
"""Seconds of retries in each look while the server does not answer."""
STUCK_SECONDS, LEAVE_SECONDS = 600.0, 60.0
CREATE_AGAIN_SECONDS = 10.0
"""Seconds between attempts to create a RayJob that a quota of the namespace refuses."""


class Kubernetes:
    """Executor that runs attempts in a cluster's namespace; `files` gives access to the files they write.

    A list is valid for `relist` seconds, unless the watch signals a change. After a worker is gone without a result,
    its last files have `settle` seconds to become visible. `stuck` is how many seconds an attempt may wait for what
    time alone does not bring, and `leave` how many a stopping sweep waits for a reader pod that does not start.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        api: Api,
        files: Files,
        *,
        relist: float = 30.0,
        settle: float = 15.0,
        stuck: float = STUCK_SECONDS,
        leave: float = LEAVE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        watch: bool = True,
    ):
        self.cluster, self.api, self.files = cluster, api, files
        self.relist, self._clock, self._sleep, self._watched = relist, clock, sleep, watch
        self._patience = api.patience
        self._publishing = Publishing(files)
        self._woken = threading.Event()
        self._watch: Watch | None = None
        self._seen: Seen | None = None
        # Caches and timers only: a new loop can find all of this out again.
        self._down_since: datetime | None = None
        self._timers = Timers(clock, settle, stuck, leave)
        self._met: set[str] = set()
        self._idle: set[str] = set()  # attempts whose RayJob was seen, or deleted, before any worker began
        self._evicted: dict[str, str] = {}
        self._rayclusters: dict[str, str] = {}
        self._refused: dict[str, tuple[str, float]] = {}  # RayJobs that a quota refuses: why, and when it last did
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
            self._noted(attempt, job, pods)
        if job is None and not pods and not begun and not self._known(attempt):
            refused = self._refused.get(attempt.id, ("", 0.0))[0]  # else its RayJob is about to be created
            return held(attempt, now, Condition("waits", refused, "Kubernetes")) if refused else []
        where = self._timers.told(attempt.id, seen.condition(attempt.id, job, started=begun))
        if self._timers.stuck(attempt.id, where) and self._alone(state, attempt, seen):
            return [unstartable(attempt, where, now, begun=begun)]
        idle = not begun and (never_began(job, pods) or attempt.id in self._idle)
        if (where.kind != "waits" or begun) and not idle:
            try:
                self.files.refresh(attempt.id)
            except Unreachable as error:
                return self._unread(state, attempt, error, now)
            if attempt.running_at is None and earlier_run(folder.path, state):
                raise ExecutorError(
                    f"the volume {self.cluster.volume} holds {attempt.id} of an earlier run of {state.sweep.name}; "
                    "give the sweep another name, or remove that run's folder from the volume"
                )
        if os.path.lexists(folder.path / "result.json"):
            try:
                return self._told(attempt, news(state, attempt, folder, now, ended=True, before=before))
            except Unreachable as error:  # what it saved is verified on the volume
                return self._unread(state, attempt, error, now)
        over = where.kind == "over" and self._settled(state, attempt, where)
        if over and begun and attempt.id not in self._evicted:
            self._evicted[attempt.id] = eviction(self.api, self._rayclusters.get(attempt.id, ""))
        why = attempt.reason or self._evicted.get(attempt.id) or where.why
        if not folder.path.exists():
            return [not_begun(attempt, now, why)] if over else held(attempt, now, where)
        try:
            events = news(state, attempt, folder, now, ended=over, why=why, before=before)
        except Unreachable as error:  # checkpoints are verified on the volume
            return self._unread(state, attempt, error, now)
        return [*(() if over else held(attempt, now, where)), *events]

    def _noted(self, attempt: Attempt, job: Object, pods: Sequence[Object]) -> None:
        """Remember what a RayJob and its pods show now, and will not show when they are gone."""
        self._met.add(attempt.id)
        self._rayclusters[attempt.id] = (job.get("status") or {}).get("rayClusterName", "")
        if self._refused.pop(attempt.id, None):
            self._idle.discard(attempt.id)
        if any(phase(pod) == "Running" for pod in pods):
            self._idle.discard(attempt.id)  # it started before its deletion was known
        if any((pod.get("status") or {}).get("reason") == "Evicted" for pod in pods):
            self._evicted[attempt.id] = evicted(pods)
        for pod in pods:
            if figures := gardened(pod["metadata"].get("annotations") or {}):
                self._gardened[attempt.id] = figures

    def _unread(self, state: State, attempt: Attempt, error: Unreachable, now: datetime) -> list[Event]:
        """Return that an attempt's files cannot be read. Raise `ExecutorError` if waiting longer would not help."""
        if why := unreadable(state, error, self._timers):
            raise ExecutorError(why) from None
        return held(attempt, now, Condition("waits", str(error), "Kubernetes"))

    def _unseen(self, state: State, attempt: Attempt, now: datetime, before: Sequence[Event]) -> list[Event]:
        """Return the new events while the API server does not answer: at most what a mounted volume shows."""
        why = f"the API server has not answered since {self._down_since:%Y-%m-%d %H:%M} UTC; what runs goes on"
        waits = held(attempt, now, Condition("waits", why, "Kubernetes"))
        folder = self.files.folder(attempt.id)
        if not folder.path.exists():
            return waits
        ended = os.path.lexists(folder.path / "result.json")
        try:
            return [*waits, *self._told(attempt, news(state, attempt, folder, now, ended=ended, before=before))]
        except Unreachable:  # a mirror's checkpoints are verified on the volume
            return waits

    def _alone(self, state: State, attempt: Attempt, seen: Seen) -> bool:
        """Return whether an attempt that may start is refused with no other running; else its node may be at fault."""
        others = (other for other in state.active.values() if other.id != attempt.id)
        found = (seen.condition(a.id, self._job(state, a, seen), started=True) for a in others)
        return attempt.pausing_since is None and all(where.kind != "runs" for where in found)

    def _told(self, attempt: Attempt, events: list[Event]) -> list[Event]:
        """Return the events; an end also gets the figures that Compute Gardener wrote on the pod."""
        figures = self._gardened.get(attempt.id)
        if figures is None or not events or not isinstance(end := events[-1], Ended):
            return events
        more = {key: value for m in attempt.stint.members for key, value in facts(m.experiment, figures).items()}
        return [*events[:-1], replace(end, facts={**end.facts, **more})]

    def _settled(self, state: State, attempt: Attempt, where: Condition) -> bool:
        """Return whether a fresh list confirms that an attempt is over, `settle` seconds after it was first seen so."""
        if not self._timers.settled(attempt.id):
            return False
        seen = self._look(state, anew=True)
        again = seen.condition(attempt.id, self._job(state, attempt, seen), started=True)
        self._timers.told(attempt.id, again)
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
        active = state.active.values()
        found = (seen.condition(a.id, self._job(state, a, seen), started=True) for a in active)
        return any(where.kind != "over" for where in found)

    def last_sign(self, state: State) -> datetime | None:
        """Return the wall time of the last known write by any active worker."""
        folders = [self.files.folder(attempt).path for attempt in state.active]
        return max((touched(path) for path in folders if path.exists()), default=None)

    def logs(self, attempt: str) -> Iterator[str]:
        """Yield the lines that a worker has printed, as far as the loop has fetched them; first, how old they are.

        Nothing is fetched here: the reader pod is the loop's.
        """
        if (at := self.files.as_of(attempt)) is not None:
            yield f"(as of {at:%Y-%m-%d %H:%M:%S} UTC, {age(at)} ago: what the loop has fetched from the volume)"
        yield from printed(self.files.folder(attempt).path)

    # -- acting for the loop

    def act(self, state: State) -> None:
        if self._down_since is not None and not state.finished:
            return  # the next `observe` asks again
        end = self._clock() + self._timers.leave_seconds
        while True:
            try:
                self._match(state)
                self._publishing.publish(state)
                break
            except Unreachable as error:
                if not state.finished:
                    return  # the loop acts again
                if not isinstance(error, ReaderDown) or self._clock() > end:
                    raise  # a rerun has only this left to do
                self._sleep(0.5)  # its reader starts
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
                self._note_idle(state, attempt, job, seen)
                with suppress(NotFound, Conflict):  # gone, or the name belongs to another object by now
                    self.api.delete(JOBS, job["metadata"]["name"], job["metadata"].get("uid", ""))
                self._seen = None
        for attempt in state.active.values():
            if self._known(attempt) or seen.pods.get(attempt.id) or self._job(state, attempt, seen) is not None:
                continue
            self._create(state, attempt)

    def _note_idle(self, state: State, attempt: Attempt, job: Object, seen: Seen) -> None:
        """Remember that a RayJob about to be deleted has started no worker, if a fresh list says so."""
        name = job["metadata"]["name"]
        if never_began(job, seen.pods.get(attempt.id, [])):
            seen = self._look(state, anew=True)
            if never_began(seen.jobs.get(name), seen.pods.get(attempt.id, [])):
                self._idle.add(attempt.id)

    def _known(self, attempt: Attempt) -> bool:
        """Return whether an attempt's RayJob was seen or must not be created; RayJobs that are gone stay gone."""
        admitted = attempt.held and NOT_CREATED not in attempt.held
        seen = attempt.id in self._met or admitted or attempt.running_at is not None
        return bool(seen or attempt.pausing_since is not None)

    @staticmethod
    def _to_be_deleted(attempt: Attempt, job: Object, seen: Seen) -> bool:
        """Return whether an attempt must pause, or its RayJob failed while its pod still runs.

        In the second case deletion stops the pod, with time for a result.
        """
        where = seen.condition(attempt.id, job, started=True)
        return attempt.pausing_since is not None or where.kind == "leaves"

    def _create(self, state: State, attempt: Attempt) -> None:
        if self._clock() < self._refused.get(attempt.id, ("", -CREATE_AGAIN_SECONDS))[1] + CREATE_AGAIN_SECONDS:
            return
        made = rayjob(state.sweep, self.cluster, assignment(state, attempt))
        made["metadata"]["annotations"][RUN] = run_of(state)
        self._seen = None
        try:
            self.api.create(JOBS, made)
        except Conflict:
            with suppress(NotFound):
                self._check_ours(state, attempt, self.api.get(JOBS, made["metadata"]["name"]))
        except QuotaExceeded as error:
            self._refused[attempt.id] = (f"{NOT_CREATED}: {error.said}", self._clock())
            self._idle.add(attempt.id)
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

    # -- the list

    def _look(self, state: State, *, anew: bool = False) -> Seen:
        """Return the contents of the cluster, listed again if they may have changed. Raise as `listed` does."""
        if (seen := self._seen) and not anew and not self._woken.is_set() and self._clock() - seen.at < self.relist:
            return seen
        if self._watch is None and self._watched:
            self._watch = Watch(self.api, JOBS, selector(state), self._woken.set)
        self._woken.clear()
        self.api.patience = BRIEF_SECONDS if self._down_since is not None else self._patience
        self._seen = None  # a list that fails leaves no old one behind
        self._seen = listed(self.api, self.cluster, selector(state), self._clock())
        return self._seen

    def close(self) -> None:
        """End the watch and the reader pod; further use of the executor opens them again."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._seen = None
        self.files.close()
