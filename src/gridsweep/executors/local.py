"""Attempts as processes on this machine, each in its own session, so that they outlive the loop and can be adopted.

A worker is identified by its folder alone: it is alive while the folder's lock is held, SIGTERM asks it to stop, and
it is done when result.json exists.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from gridsweep.energy.nvml import visible_gpus
from gridsweep.errors import ExecutorError, printable
from gridsweep.executors.assigning import assignment
from gridsweep.executors.border import WITHHELD, printed
from gridsweep.executors.environment import passed, withheld
from gridsweep.executors.handover import news, touched
from gridsweep.executors.publisher import Publisher
from gridsweep.records.attempts import AttemptFolder
from gridsweep.records.process import holding, holds, tell
from gridsweep.state.events import Event
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.clusters import Limits
from gridsweep.sweep.stints import memory_beside

WORKER = (sys.executable, "-P", "-m", "gridsweep.train")
EXIT_GRACE = timedelta(seconds=30)
"""How long a worker may take to exit after writing its result; then its device counts as free anyway."""

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def limit(process: int, limits: Limits) -> None:
    """Limit what a process, and those that it starts, may take. Raise `OSError` if the system does not allow it."""
    gigabytes = 10**9
    wanted = (
        (resource.RLIMIT_DATA, limits.memory_gb and int(limits.memory_gb * gigabytes)),
        (resource.RLIMIT_FSIZE, limits.file_gb and int(limits.file_gb * gigabytes)),
        (resource.RLIMIT_NOFILE, limits.open_files),
    )
    for kind, most in wanted:
        if most:
            with suppress(ProcessLookupError):  # it has ended already
                before = resource.prlimit(process, kind)[1]
                kept = most if before == resource.RLIM_INFINITY else min(most, before)
                resource.prlimit(process, kind, (kept, kept))


class Local:
    """Executor that runs attempts below `store`; `gpus` are its CUDA devices, in the order of the sweep's devices."""

    def __init__(self, store: Path, command: Sequence[str] = WORKER, gpus: Sequence[str] | None = None):
        self.store, self.command = store, tuple(command)
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        self._children: list[int] = []  # only to reap them
        self._publisher = Publisher(store)

    def folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self.store / "stints" / attempt)

    # -- observing the workers

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        self._children = [child for child in self._children if not _reaped(child)]
        events: list[Event] = []
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if (folder.path / "log.txt").exists():
                # Check for the end before reading the files, so that the files of an ended worker are complete.
                events += news(state, attempt, folder, now, ended=self._ended(folder), before=events)
        return events

    def changed(self, state: State) -> bool:
        """Return whether a worker has ended since the state was folded."""
        return any(self._ended(self.folder(a.id)) for a in state.active.values() if a.over_at is None)

    def alive(self, state: State) -> bool:
        """Return whether any worker of the state is alive."""
        return any(self.folder(attempt).alive() for attempt in state.active if self.folder(attempt).path.exists())

    def last_sign(self, state: State) -> datetime | None:
        """Return the wall time of the last write by any active worker."""
        signs = [touched(self.folder(a).path) for a in state.active if self.folder(a).path.exists()]
        return max(signs, default=None)

    def logs(self, attempt: str) -> Iterator[str]:
        """Yield the lines that a worker has printed so far."""
        yield from printed(self.folder(attempt).path)

    @staticmethod
    def _ended(folder: AttemptFolder) -> bool:
        if not (folder.path / "log.txt").exists():
            return False
        written = folder.path / "result.json"
        if folder.alive():
            return os.path.lexists(written) and time.time() - written.lstat().st_ctime > EXIT_GRACE.total_seconds()
        return True

    # -- acting for the loop

    def act(self, state: State) -> None:
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if not (folder.path / "log.txt").exists():
                self._start(state, attempt, folder)
            if attempt.pausing_since is not None:
                self._signal(folder, signal.SIGKILL if attempt.killed else signal.SIGTERM)
        self._publisher.publish(state)

    def abandon(self) -> None:
        """Kill the workers that this loop has started: their folder is gone, and they would write into another one."""
        for child in self._children:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)

    def _start(self, state: State, attempt: Attempt, folder: AttemptFolder) -> None:
        environment = self._environment(state, attempt)
        try:
            beside = () if self.gpus else memory_beside(state.sweep.devices, attempt.device)
            folder.prepare(replace(assignment(state, attempt), beside=beside))
            lock = folder.lock()
            if lock is None:
                return  # a worker already runs there
            try:
                os.set_inheritable(lock, True)
                child = os.posix_spawnp(
                    self.command[0],
                    [*self.command, str(folder.path)],
                    environment,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 1, folder.path / "log.txt", _APPEND, 0o644),
                        (os.POSIX_SPAWN_DUP2, 1, 2),
                    ],
                    setsid=True,
                )
                self._children.append(child)
                limit(child, state.sweep.executor.local)
            finally:
                os.close(lock)
        except OSError as error:
            raise ExecutorError(
                f"cannot start {attempt.id} in {folder.path}: {error.strerror or error}; "
                "put that right and run again: nothing is lost"
            ) from None
        self._say(folder, withheld(os.environ, state.sweep))

    @staticmethod
    def _say(folder: AttemptFolder, names: Sequence[str]) -> None:
        """Add to the worker's log which variables it did not get; a full disk is no reason to end the run for that."""
        if names:
            with suppress(OSError), (folder.path / "log.txt").open("a") as log:
                log.write(f"{WITHHELD} {printable(', '.join(names))}; spec key `env` adds variables\n")

    def _environment(self, state: State, attempt: Attempt) -> Mapping[str, str]:
        names = [device.name for device in state.sweep.devices]
        index = names.index(attempt.device) if attempt.device in names else 0
        environment = passed(os.environ, state.sweep)
        if self.gpus:
            if index >= len(self.gpus):
                raise ExecutorError(
                    f"{attempt.device} is device {index + 1} of the sweep, and this machine shows {len(self.gpus)} "
                    f"GPU(s); set `devices: {len(self.gpus)}`, or CUDA_VISIBLE_DEVICES= to train on the CPU"
                )
            # The energy counters are numbered in PCI bus order.
            environment |= {"CUDA_VISIBLE_DEVICES": self.gpus[index], "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        else:
            # One thread per worker: two threads on two busy cores spin against each other, many times slower.
            environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return environment

    @staticmethod
    def _signal(folder: AttemptFolder, what: signal.Signals) -> None:
        if not folder.alive():
            return
        # Somebody holds the lock, and worker.json says who; it may say anything, so the named one must hold it.
        process = folder.process()
        named = [process] if process is not None and holds(process, folder.path) else holding(folder.path)
        for worker in named:
            tell(worker, what, group=True)


def _reaped(child: int) -> bool:
    """Reap a child if it has ended, and return whether it has."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True
