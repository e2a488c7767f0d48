"""Attempts as processes of this machine, each in its own session, so that they outlive the loop and can be adopted.

A worker is known by its folder alone: alive while the folder's lock is held, told to stop by SIGTERM, done when
result.json is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from gridsweep import codec
from gridsweep.attempt import Assignment, AttemptFolder, EnergyLine, Part, Progress, sync
from gridsweep.errors import ExecutorError
from gridsweep.events import Ended, Event, Lost, Paused, Progressed, Running, Segment
from gridsweep.schedule import device_named
from gridsweep.state import Attempt, State

WORKER = (sys.executable, "-m", "gridsweep.train")
PROGRESS_EVERY = timedelta(minutes=1)
EXIT_GRACE = timedelta(seconds=30)
"""How long a worker that wrote its result may take to leave before its device counts as free all the same."""

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND

L = TypeVar("L", Progress, EnergyLine)


class Local:
    """Runs attempts below `store`. `gpus` are the CUDA devices to hand out, in the order of the sweep's devices."""

    def __init__(self, store: Path, command: Sequence[str] = WORKER, gpus: Sequence[str] | None = None):
        self.store, self.command = store, tuple(command)
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        self._children: list[int] = []  # only to reap them
        self._published: set[str] = set()  # only to spare looking again

    def folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self.store / "stints" / attempt)

    # -- what the workers say

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        self._children = [child for child in self._children if not _reaped(child)]
        events: list[Event] = []
        for attempt in state.active.values():
            events += self._news(state, attempt, now)
        return events

    def changed(self, state: State) -> bool:
        """Whether a worker has ended since the state was folded."""
        return any(self._ended(self.folder(attempt)) for attempt in state.active)

    def alive(self, state: State) -> bool:
        """Whether any worker of the state lives."""
        return any(self.folder(attempt).alive() for attempt in state.active if self.folder(attempt).path.exists())

    def last_sign(self, state: State) -> datetime | None:
        """The wall time of the last thing any active worker wrote."""
        signs = [_touched(self.folder(a).path) for a in state.active if self.folder(a).path.exists()]
        return max(signs, default=None)

    def _news(self, state: State, attempt: Attempt, now: datetime) -> list[Event]:
        folder = self.folder(attempt.id)
        if not (folder.path / "log.txt").exists():
            return []
        ended = self._ended(folder)  # before reading: what it wrote until then is complete
        lines, progress_at = read_lines(Progress, folder.path / "progress.jsonl", attempt.cursor[0])
        energy, energy_at = read_lines(EnergyLine, folder.path / "energy.jsonl", attempt.cursor[1])
        events: list[Event] = []
        begun = next((line for line in lines if line.phase == "training"), None)
        if begun and attempt.running_at is None:
            events.append(Running(state.grid_time(begun.at), attempt.id))
        since = now - (attempt.seen_at or attempt.requested_at)
        if (lines or energy) and (ended or events or since >= PROGRESS_EVERY):
            events.append(
                Progressed(
                    state.grid_time(lines[-1].at) if lines else now,
                    attempt.id,
                    attempt.seq + 1,
                    max([attempt.step, *(line.step for line in lines)]),
                    {id: loss for line in lines for id, loss in line.losses.items()},
                    tuple(merged(state, attempt, energy)),
                    (progress_at, energy_at),
                )
            )
        return events + (self._end(state, attempt, folder) if ended else [])

    def _end(self, state: State, attempt: Attempt, folder: AttemptFolder) -> list[Event]:
        result = folder.result()
        if result is None or result.error:
            at = state.grid_time(result.ended_at if result else _touched(folder.path))
            why = result.error if result else attempt.reason or f"the worker vanished ({_last_words(folder.path)})"
            ids = [member.experiment for member in attempt.stint.members]
            saved = [folder.checkpoint(id) for id in ids]
            return [Lost(at, attempt.id, why, tuple(c for c in saved if c))]
        at = state.grid_time(result.ended_at)
        if any(outcome.status == "paused" for outcome in result.outcomes):
            return [Paused(at, attempt.id, result.outcomes)]
        return [Ended(at, attempt.id, result.outcomes, result.facts or {})]

    @staticmethod
    def _ended(folder: AttemptFolder) -> bool:
        if not (folder.path / "log.txt").exists():
            return False
        written = folder.path / "result.json"
        if folder.alive():
            return written.exists() and datetime.now(UTC) - _mtime(written) > EXIT_GRACE
        return True

    # -- what the loop wants

    def act(self, state: State) -> None:
        for attempt in state.active.values():
            folder = self.folder(attempt.id)
            if not (folder.path / "log.txt").exists():
                self._start(state, attempt, folder)
            if attempt.pausing_since is not None:
                self._signal(folder, signal.SIGKILL if attempt.killed else signal.SIGTERM)
        for standing in state.standings.values():
            if standing.status == "done" and standing.outcome and standing.outcome.adapter:
                self._publish(standing.experiment.id, standing.outcome.adapter, standing.attempts)

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

    def _publish(self, id: str, adapter: str, attempts: Sequence[str]) -> None:
        """Put a finished adapter into experiments/, whole or not at all, and drop its checkpoints."""
        if id in self._published:
            return
        final = self.store / "experiments" / id / "adapter"
        try:
            if not final.exists():
                draft = final.with_name(".adapter")
                shutil.rmtree(draft, ignore_errors=True)
                shutil.copytree(self.store / adapter, draft)
                draft.rename(final)
                sync(final.parent)
        except OSError as error:
            raise ExecutorError(
                f"cannot publish the adapter of {id} into {final}: {error.strerror or error}; it is safe in "
                f"{self.store / adapter}; put that right and run again"
            ) from None
        for attempt in attempts:
            shutil.rmtree(self.folder(attempt).path / "checkpoints", ignore_errors=True)
        self._published.add(id)


def assignment(state: State, attempt: Attempt) -> Assignment:
    """What the worker of an attempt is told."""
    sweep = state.sweep
    parts = []
    for member in attempt.stint.members:
        standing = state.standings[member.experiment]
        experiment = standing.experiment
        saved = standing.checkpoint if member.from_step else None
        parts.append(Part(experiment.id, experiment.params, experiment.seed, member.from_step, member.to_step, saved))
    device = device_named(state, attempt.device)
    return Assignment(attempt.id, sweep.model, sweep.dataset, sweep.recipe, sweep.total_steps, device, tuple(parts))


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may hold here: its own entries, else the numbers of the NVIDIA GPUs of this machine."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []
    return [str(index) for index in range(count)]


def read_lines(kind: type[L], path: Path, after: int) -> tuple[list[L], int]:
    """The whole lines of a file after a byte, and the byte after the last of them. Lines that are none are skipped."""
    try:
        with path.open("rb") as file:
            file.seek(after)
            data = file.read()
    except FileNotFoundError:
        return [], after
    whole = data[: data.rfind(b"\n") + 1]
    lines = []
    for text in whole.splitlines():
        try:
            lines.append(codec.loads(kind, text))
        except ValueError:
            continue
    return lines, after + len(whole)


def merged(state: State, attempt: Attempt, lines: Sequence[EnergyLine]) -> list[Segment]:
    """Energy lines as segments in grid time; neighbours become one where no more than a minute's detail is lost.

    What was drawn before the first new step stays apart: it is a reload where the attempt was not the first.
    """
    first = min(member.from_step for member in attempt.stint.members)
    segments: list[Segment] = []
    for line in lines:
        start = state.grid_time(line.start)
        end = max(start, state.grid_time(line.start + timedelta(seconds=max(0.0, line.seconds))))
        last = segments[-1] if segments else None
        close = last and (line.step == last.step or (last.step > first and end - last.start <= PROGRESS_EVERY))
        if last and close and last.source == line.source:
            segments[-1] = Segment(last.start, max(last.end, end), last.kwh + line.kwh, line.source, line.step)
        else:
            segments.append(Segment(start, end, line.kwh, line.source, line.step))
    return segments


def _reaped(child: int) -> bool:
    """Whether a child has ended; no zombie is left of it then."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def _touched(folder: Path) -> datetime:
    return max(_mtime(path) for path in [folder, *folder.iterdir()])


def _mtime(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _last_words(folder: Path) -> str:
    """The last line a worker printed."""
    try:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its last words: {lines[-1][:300]}" if lines else "it printed nothing"
