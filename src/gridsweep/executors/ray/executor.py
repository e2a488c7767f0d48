"""Attempts as jobs of a Ray cluster, through its Jobs API: a job an attempt, named after it, so none starts twice.

Where no folder is shared, inputs travel with the job, and what the worker writes is fetched into a mirror of its folder
below the store. What lies on the cluster waits there until it is fetched: this executor keeps nothing but the mirror
and, in store/.ray/, what it submitted. A cluster that does not answer says nothing about its workers: they are held.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from gridsweep.errors import ExecutorError
from gridsweep.executors.handover import assignment, news, touched
from gridsweep.executors.publisher import Publisher
from gridsweep.executors.ray.jobs_api import Job, JobsApi, Missing, Unreachable
from gridsweep.executors.ray.packages import packages
from gridsweep.executors.ray.parcels import Damaged, replace_file, unpack
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import Event, Held
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.clusters import RayCluster

WORKER = ("python", "-m", "gridsweep.train")
"""The Python of the cluster, where the worker runs."""
ENTRYPOINT = "exec python -m gridsweep.executors.ray.entrypoint"  # exec: Ray is to watch it, not a shell
OLDEST = (2, 54)
GRACE = 60
"""Seconds a worker has from being told to stop until it is killed."""
LEAVING = 60
"""Seconds more that a job has to lay out what its worker left."""
LOOK_SECONDS = 1.0
HELD_AFTER = 10.0
"""A job that waits so many seconds for its resources is held."""
NODE_PATIENCE = 60.0
"""Seconds after a job's end in which its node may come back with what the worker wrote."""


class Ray:
    """Runs attempts on a cluster, with their mirror (or, where it is shared, their folders) below `store`."""

    def __init__(
        self,
        store: Path,
        cluster: RayCluster,
        command: Sequence[str] = WORKER,
        *,
        grace: int = GRACE,
        timeout: float = 10.0,
    ):
        self.store, self.cluster, self.command, self.grace = store, cluster, tuple(command), grace
        self.api = JobsApi(cluster.address, cluster.token, timeout)
        self._publisher = Publisher(store)
        self._look_at = 0.0
        self._told: set[str] = set()  # only to spare saying it again

    def ready(self) -> None:
        """Raises `ExecutorError` where the cluster does not answer, refuses us, or is too old."""
        try:
            version = self.api.version()
        except Unreachable as error:
            raise ExecutorError(f"{error}; {error.advice}") from None
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise ExecutorError(f"{self.cluster.address} runs Ray {version}; 2.54 or newer is needed")

    def folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self.store / "stints" / attempt)

    def job_id(self, attempt: str) -> str:
        """The name of an attempt's job: no other run of the same sweep has it."""
        return f"gridsweep-{self._run()}-{attempt.replace('/', '-')}"

    # -- what the workers say

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        events: list[Event] = []
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if not folder.path.exists():
                continue
            try:
                events += self._news(state, attempt, folder, now)
            except Unreachable as error:
                events += held(attempt, now, str(error))
                events += news(state, attempt, folder, now, ended=False)
        return events

    def _news(self, state: State, attempt: Attempt, folder: AttemptFolder, now: datetime) -> list[Event]:
        job = self.api.job(self.job_id(attempt.id))
        submitted = self._submitted(attempt.id)
        if job is None:
            if not submitted and attempt.pausing_since is None:
                return []  # act will come to it
            if self.cluster.shared and folder.alive():
                return news(state, attempt, folder, now, ended=False)
            why = f"the cluster no longer knows {self.job_id(attempt.id)}; was its head restarted?"
            return news(state, attempt, folder, now, ended=True, why=why)
        if job.waits and attempt.pausing_since is not None:
            # Ray keeps it waiting, and stops it as soon as it has what it waits for.
            self.api.stop(job.id)
            return news(state, attempt, folder, now, ended=True)
        if job.waits or job.never_started:
            patient = job.waits and time.time() - job.started < HELD_AFTER
            return [] if patient else held(attempt, now, line_of(job.message))
        whole = self.cluster.shared is not None or self._bring(job, folder)
        why = line_of(job.message) if job.node is None else ""
        ended = job.over and whole
        return held(attempt, now, "") + news(state, attempt, folder, now, ended=ended, why=why)

    def _bring(self, job: Job, folder: AttemptFolder) -> bool:
        """Fetch what is new of a worker's files; whether no more can come of a job that is over."""
        if job.node is None:
            return True
        node, place = job.node, f"gridsweep/{job.id}"
        record = self._record(job.id)
        try:
            told = self.api.log_file(node, f"{place}/index.json")
            known = record.read_bytes()
            if told != known:
                index, before = json.loads(told), json.loads(known)
                unpack(index, folder.path, lambda piece: self.api.log_file(node, f"{place}/pieces/{piece}"), before)
                newest = max((entry["mtime"] for entry in index["files"].values()), default=None)
                if newest is not None:
                    os.utime(folder.path, (newest, newest))  # the folder's times, too, are the worker's
                replace_file(record, told)
        except Missing as error:
            return not (error.node_gone and job.ended and time.time() - job.ended < NODE_PATIENCE)
        except (Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreachable(f"what {job.id} left cannot be fetched: {error}") from None
        return True

    def changed(self, state: State) -> bool:
        """Whether a worker has ended since the state was folded; asks the cluster once a second at most."""
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_SECONDS
        with suppress(Unreachable):
            known = (a.id for a in state.active.values() if a.over_at is None)
            jobs = (self.api.job(self.job_id(id)) for id in known if self._submitted(id))
            return any(job is None or job.over for job in jobs)
        return False

    def alive(self, state: State) -> bool:
        """Whether any worker of the state lives, or might: nothing is known of one that cannot be reached."""
        try:
            jobs = [self.api.job(self.job_id(id)) for id in state.active]
        except Unreachable:
            return bool(state.active)
        return any(job is not None and not job.over for job in jobs)

    def last_sign(self, state: State) -> datetime | None:
        """The wall time of the last thing any active worker is known to have written."""
        signs = [touched(self.folder(a).path) for a in state.active if self.folder(a).path.exists()]
        return max(signs, default=None)

    def logs(self, attempt: str) -> Iterator[str]:
        """What a worker printed so far, line by line."""
        folder = self.folder(attempt)
        with suppress(Unreachable):
            if not self.cluster.shared and self._submitted(attempt) and (job := self.api.job(self.job_id(attempt))):
                self._bring(job, folder)
        with suppress(FileNotFoundError), (folder.path / "log.txt").open(errors="replace") as file:
            yield from (line.rstrip("\n") for line in file)

    # -- what the loop wants

    def act(self, state: State) -> None:
        with suppress(Unreachable):  # the next look says so, and then all this is done again
            for attempt in state.active.values():
                if attempt.running_at is None:
                    self._start(state, attempt)
                if attempt.pausing_since is not None and attempt.id not in self._told:
                    self.api.stop(self.job_id(attempt.id))
                    self._told.add(attempt.id)
        self._publisher.publish(state)

    def _start(self, state: State, attempt: Attempt) -> None:
        """Submit an attempt, unless the cluster knows it, or knew it. Raises `ExecutorError`, `Unreachable`."""
        folder = self.folder(attempt.id)
        try:
            folder.prepare(assignment(state, attempt))
            told = hashlib.sha256((folder.path / "stint.json").read_bytes()).hexdigest()[:16]
            id, submitted = self.job_id(attempt.id), self._submitted(attempt.id)
            job = self.api.job(id)
            if job is not None and job.never_started and attempt.pausing_since is None:
                self.api.delete(id)
                job, submitted = None, False
            if job is None and (submitted or attempt.pausing_since is not None):
                return
            if job is None and not self.api.submit(self._request(state, attempt, folder, told)):
                job = self.api.job(id)
            if job is not None and job.metadata.get("gridsweep_stint") != told:
                raise ExecutorError(f"{self.cluster.address} has a job {id} that is not ours; delete it there")
            if not submitted:
                replace_file(self._record(id), b"{}")
        except OSError as error:
            raise ExecutorError(
                f"cannot hand over {attempt.id} from {folder.path}: {error.strerror or error}; "
                "put that right and run again: nothing is lost"
            ) from None

    def _request(self, state: State, attempt: Attempt, folder: AttemptFolder, told: str) -> dict[str, object]:
        shared = self.cluster.shared is not None
        job = {
            "id": self.job_id(attempt.id),
            "attempt": attempt.id,
            "command": self.command,
            "grace": self.grace,
            "store": str(self.store.resolve()) if shared else None,
            "forget": [self.job_id(id) for id, other in state.attempts.items() if other.end],
        }
        first, *more = [self.api.upload(*package) for package in packages(job, None if shared else folder)]
        on_gpu = self.cluster.resource == "GPU"
        # Which GPU a worker sees is Ray's to say. On the CPU it has one thread, so that it adds in the same order as
        # a local one.
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if on_gpu else threads
        experiments = [member.experiment for member in attempt.stint.members]
        return {
            "submission_id": job["id"],
            "entrypoint": ENTRYPOINT,
            **({"entrypoint_num_gpus": 1} if on_gpu else {"entrypoint_resources": {self.cluster.resource: 1}}),
            "runtime_env": {
                "working_dir": first,
                "py_modules": more,
                "env_vars": {**environment, "RAY_JOB_STOP_WAIT_TIME_S": str(self.grace + LEAVING)},
            },
            "metadata": {
                "gridsweep_sweep": state.sweep.name,
                "gridsweep_experiment": ",".join(experiments),
                "gridsweep_tier": ",".join(sorted({state.standings[id].experiment.tier for id in experiments})),
                "gridsweep_attempt": attempt.id,
                "gridsweep_stint": told,
            },
        }

    # -- what is kept beside the mirror

    def _record(self, job: str) -> Path:
        """Of a submitted job: the index that was fetched last."""
        return self.store / ".ray" / f"{job}.json"

    def _submitted(self, attempt: str) -> bool:
        return self._record(self.job_id(attempt)).exists()

    def _run(self) -> str:
        """A name of this run, made once: the same attempts of another run are other jobs."""
        path = self.store / ".ray" / "run"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, secrets.token_hex(4).encode())
        return path.read_text()


def held(attempt: Attempt, now: datetime, why: str) -> list[Event]:
    """That an attempt is held, or no longer, where that is news."""
    said = f"ray: {why}" if why else ""
    return [] if attempt.held == said else [Held(now, attempt.id, "ray", why)]


def line_of(message: str) -> str:
    """The first line of a job's message."""
    return message.strip().partition("\n")[0][:300] or "the job ended before its worker began"
