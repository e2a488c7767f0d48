"""Attempts as processes of this machine, each in its own session, so that they outlive the loop and can be adopted.

A worker is known by its folder alone: alive while the folder's lock is held, told to stop by SIGTERM, done when
result.json is there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gridsweep.energy.nvml import visible_gpus
from gridsweep.errors import ExecutorError
from gridsweep.executors.handover import assignment, news, touched, written_at
from gridsweep.executors.publisher import Publisher
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import Event
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State

WORKER = (sys.executable, "-m", "gridsweep.train")
EXIT_GRACE = timedelta(seconds=30)
"""How long a worker that wrote its result may take to leave before its device counts as free all the same."""

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class Local:
    """Runs attempts below `store`. `gpus` are the CUDA devices to hand out, in the order of the sweep's devices."""

    def __init__(self, store: Path, command: Sequence[str] = WORKER, gpus: Sequence[str] | None = None):
        self.store, self.command = store, tuple(command)
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        self._children: list[int] = []  # only to reap them
        self._publisher = Publisher(store)

    def folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self.store / "stints" / attempt)

    # -- what the workers say

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        self._children = [child for child in self._children if not _reaped(child)]
        events: list[Event] = []
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if (folder.path / "log.txt").exists():
                # Whether it ended, before its files are read: what it wrote until then is complete.
                events += news(state, attempt, folder, now, ended=self._ended(folder))
        return events

    def changed(self, state: State) -> bool:
        """Whether a worker has ended since the state was folded."""
        return any(self._ended(self.folder(a.id)) for a in state.active.values() if a.over_at is None)

    def alive(self, state: State) -> bool:
        """Whether any worker of the state lives."""
        return any(self.folder(attempt).alive() for attempt in state.active if self.folder(attempt).path.exists())

    def last_sign(self, state: State) -> datetime | None:
        """The wall time of the last thing any active worker wrote."""
        signs = [touched(self.folder(a).path) for a in state.active if self.folder(a).path.exists()]
        return max(signs, default=None)

    def logs(self, attempt: str) -> Iterator[str]:
        """What a worker printed so far, line by line."""
        with suppress(FileNotFoundError), (self.folder(attempt).path / "log.txt").open(errors="replace") as file:
            yield from (line.rstrip("\n") for line in file)

    @staticmethod
    def _ended(folder: AttemptFolder) -> bool:
        if not (folder.path / "log.txt").exists():
            return False
        written = folder.path / "result.json"
        if folder.alive():
            return written.exists() and datetime.now(UTC) - written_at(written) > EXIT_GRACE
        return True

    # -- what the loop wants

    def act(self, state: State) -> None:
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if not (folder.path / "log.txt").exists():
                self._start(state, attempt, folder)
            if attempt.pausing_since is not None:
                self._signal(folder, signal.SIGKILL if attempt.killed else signal.SIGTERM)
        self._publisher.publish(state)

    def _start(self, state: State, attempt: Attempt, folder: AttemptFolder) -> None:
        environment = self._environment(state, attempt)
        try:
            folder.prepare(assignment(state, attempt))
            lock = folder.lock()
            if lock is None:
                return  # a worker lives there already
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
            finally:
                os.close(lock)
        except OSError as error:
            raise ExecutorError(
                f"cannot start {attempt.id} in {folder.path}: {error.strerror or error}; "
                "put that right and run again: nothing is lost"
            ) from None
        self._children.append(child)

    def _environment(self, state: State, attempt: Attempt) -> Mapping[str, str]:
        names = [device.name for device in state.sweep.devices]
        index = names.index(attempt.device) if attempt.device in names else 0
        environment = dict(os.environ)
        if self.gpus:
            if index >= len(self.gpus):
                raise ExecutorError(
                    f"{attempt.device} is device {index + 1} of the sweep, and this machine shows {len(self.gpus)} "
                    f"GPU(s); set `devices: {len(self.gpus)}`, or CUDA_VISIBLE_DEVICES= to train on the CPU"
                )
            # The order of the bus is the one in which the energy counters are numbered.
            environment |= {"CUDA_VISIBLE_DEVICES": self.gpus[index], "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        else:
            # One thread a worker: two on a busy pair of cores spin against each other, many times slower.
            environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return environment

    @staticmethod
    def _signal(folder: AttemptFolder, what: signal.Signals) -> None:
        pid = folder.pid()
        if pid is not None and folder.alive():  # alive: the pid is the lock holder's, not a stranger's
            with suppress(ProcessLookupError, PermissionError):  # it may just have gone
                os.killpg(pid, what)


def _reaped(child: int) -> bool:
    """Whether a child has ended; no zombie is left of it then."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True
