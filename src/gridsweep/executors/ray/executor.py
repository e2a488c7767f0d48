"""Attempts as jobs of a Ray cluster, through its Jobs API: one job per attempt, named after it, so none starts twice.

Without a shared folder, inputs travel with the job, and the worker's files are fetched into a mirror of its folder
below the store. Files stay on the cluster until they are fetched: this executor keeps only the mirror and, in
store/.ray/, a record of submitted jobs. A cluster that does not answer is no evidence about its workers: attempts are
reported as held.
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
from gridsweep.executors.assigning import assignment
from gridsweep.executors.border import printed
from gridsweep.executors.handover import news, touched
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
"""The worker's command; `python` is the Python of the cluster."""
ENTRYPOINT = "exec python -m gridsweep.executors.ray.entrypoint"  # exec: Ray must watch this process, not a shell
OLDEST = (2, 54)
GRACE = 60
"""Seconds between asking a worker to stop and killing it."""
LEAVING = 60
"""Additional seconds in which a job publishes its worker's last files."""
LOOK_SECONDS = 1.0
HELD_AFTER = 10.0
"""Seconds a job may wait for its resources before its attempt is reported as held."""
NODE_PATIENCE = 60.0
"""Seconds after a job's end in which a lost node may return with the worker's files."""


class Ray:
    """Executor that runs attempts on a Ray cluster.

    `store` holds the mirror of the attempts' folders, or the folders themselves if the cluster shares them.
    """

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
        self._told: set[str] = set()  # attempts already asked to stop; a cache

    def ready(self) -> None:
        """Raise `ExecutorError` if the cluster does not answer, refuses the token, or is too old."""
        try:
            version = self.api.version()
        except Unreachable as error:
            raise ExecutorError(f"{error}; {error.advice}") from None
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise ExecutorError(f"{self.cluster.address} runs Ray {version}; 2.54 or newer is needed")

    def folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self.store / "stints" / attempt)

    def job_id(self, attempt: str) -> str:
        """Return the name of an attempt's job, which is unique to this run of the sweep."""
        return f"gridsweep-{self._run()}-{attempt.replace('/', '-')}"

    # -- observing the workers

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        events: list[Event] = []
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if not folder.path.exists():
                continue
            try:
                events += self._news(state, attempt, folder, now, events)
            except Unreachable as error:
                events += held(attempt, now, str(error))
                events += news(state, attempt, folder, now, ended=False)
        return events

    def _news(
        self, state: State, attempt: Attempt, folder: AttemptFolder, now: datetime, before: Sequence[Event]
    ) -> list[Event]:
        job = self.api.job(self.job_id(attempt.id))
        submitted = self._submitted(attempt.id)
        if job is None:
            if not submitted and attempt.pausing_since is None:
                return []  # `act` will submit it
            if self.cluster.shared and folder.alive():
                return news(state, attempt, folder, now, ended=False)
            why = f"the cluster no longer knows {self.job_id(attempt.id)}; was its head restarted?"
            return news(state, attempt, folder, now, ended=True, why=why, before=before)
        if job.waits and attempt.pausing_since is not None:
            # Ray leaves the job pending, and stops it as soon as it gets its resources.
            self.api.stop(job.id)
            return news(state, attempt, folder, now, ended=True, before=before)
        if job.waits or job.never_started:
            patient = job.waits and time.time() - job.started < HELD_AFTER
            return [] if patient else held(attempt, now, line_of(job.message))
        whole = self.cluster.shared is not None or self._bring(job, folder)
        why = line_of(job.message) if job.node is None else ""
        ended = job.over and whole
        return held(attempt, now, "") + news(state, attempt, folder, now, ended=ended, why=why, before=before)

    def _bring(self, job: Job, folder: AttemptFolder) -> bool:
        """Fetch new data of a worker's files, and return whether, for a finished job, no more data can arrive."""
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
                    os.utime(folder.path, (newest, newest))  # the folder's times are the worker's too
                replace_file(record, told)
        except Missing as error:
            return not (error.node_gone and job.ended and time.time() - job.ended < NODE_PATIENCE)
        except (Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unreachable(f"what {job.id} left cannot be fetched: {error}") from None
        return True

    def changed(self, state: State) -> bool:
        """Return whether a worker has ended since the state was folded; asks the cluster at most once a second."""
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_SECONDS
        with suppress(Unreachable):
            known = (a.id for a in state.active.values() if a.over_at is None)
            jobs = (self.api.job(self.job_id(id)) for id in known if self._submitted(id))
            return any(job is None or job.over for job in jobs)
        return False

    def alive(self, state: State) -> bool:
        """Return whether any worker of the state is, or may be, alive: unreachable workers count as alive."""
        try:
            jobs = [self.api.job(self.job_id(id)) for id in state.active]
        except Unreachable:
            return bool(state.active)
        return any(job is not None and not job.over for job in jobs)

    def last_sign(self, state: State) -> datetime | None:
        """Return the wall time of the last known write by any active worker."""
        signs = [touched(self.folder(a).path) for a in state.active if self.folder(a).path.exists()]
        return max(signs, default=None)

    def logs(self, attempt: str) -> Iterator[str]:
        """Yield the lines that a worker has printed so far."""
        folder = self.folder(attempt)
        with suppress(Unreachable):
            if not self.cluster.shared and self._submitted(attempt) and (job := self.api.job(self.job_id(attempt))):
                self._bring(job, folder)
        yield from printed(folder.path)

    # -- acting for the loop

    def act(self, state: State) -> None:
        with suppress(Unreachable):  # the next `observe` reports it, and the next `act` retries
            for attempt in state.active.values():
                if attempt.running_at is None:
                    self._start(state, attempt)
                if attempt.pausing_since is not None and attempt.id not in self._told:
                    self.api.stop(self.job_id(attempt.id))
                    self._told.add(attempt.id)
        self._publisher.publish(state)

    def _start(self, state: State, attempt: Attempt) -> None:
        """Submit an attempt, unless the cluster knows it or knew it before.

        Raise `ExecutorError` if the folder cannot be read or the job is another run's, `Unreachable` without an answer.
        """
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
        # Ray decides which GPU a worker sees. On the CPU a worker has one thread, so that it sums in the same order as
        # a local worker.
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
                "env_vars": {
                    **dict(state.sweep.env),
                    **environment,
                    "RAY_JOB_STOP_WAIT_TIME_S": str(self.grace + LEAVING),
                },
            },
            "metadata": {
                "gridsweep_sweep": state.sweep.name,
                "gridsweep_experiment": ",".join(experiments),
                "gridsweep_tier": ",".join(sorted({state.standings[id].experiment.tier for id in experiments})),
                "gridsweep_attempt": attempt.id,
                "gridsweep_stint": told,
            },
        }

    # -- records beside the mirror

    def _record(self, job: str) -> Path:
        """Return the path of a submitted job's record: the last index fetched."""
        return self.store / ".ray" / f"{job}.json"

    def _submitted(self, attempt: str) -> bool:
        return self._record(self.job_id(attempt)).exists()

    def _run(self) -> str:
        """Return this run's name, created once, so that the same attempts of another run are different jobs."""
        path = self.store / ".ray" / "run"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, secrets.token_hex(4).encode())
        return path.read_text()


def held(attempt: Attempt, now: datetime, why: str) -> list[Event]:
    """Return a `Held` event if the reason `why` is new; an empty `why` means no longer held."""
    said = f"ray: {why}" if why else ""
    return [] if attempt.held == said else [Held(now, attempt.id, "ray", why)]


def line_of(message: str) -> str:
    """Return the first line of a job's message, at most 300 characters."""
    return message.strip().partition("\n")[0][:300] or "the job ended before its worker began"
