"""An attempt's folder: the protocol between whoever starts a worker and the worker.

    store/stints/<stint>/<number>/
        stint.json        what to do                       written by the starter, before the worker
        worker.json       pid, host, start                 written by the worker, first of all
        log.txt           stdout and stderr
        progress.jsonl    a line a step worth telling      appended by the worker
        energy.jsonl      a line a measured segment        appended by the worker
        checkpoints/<step>/<experiment>/                   whole or not there: renamed into place
        adapters/<experiment>/                             likewise
        result.json       an outcome per member            last, by rename

An attempt folder has one writer and is never used again. The worker is alive while the `flock` on the folder is held:
it is taken before the fork and inherited, so no pid is needed to know it. Times here are the worker's wall clock.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gridsweep.records import codec
from gridsweep.records.files import appearing, digest, replace_file, sync, verify, write_file
from gridsweep.sweep.experiments import Base, Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Checkpoint, Device, Outcome

__all__ = [
    "Assignment",
    "AttemptFolder",
    "EnergyLine",
    "Outcome",
    "Part",
    "Progress",
    "Result",
    "digest",
    "now",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Part:
    """One member's work: optimizer steps `[from_step, to_step)`, from a checkpoint unless it starts at 0."""

    experiment: str
    params: LoraParams
    seed: int
    from_step: int
    to_step: int
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """All a worker is told."""

    attempt: str
    model: Model
    dataset: Dataset
    recipe: Recipe
    total_steps: int
    device: Device
    members: tuple[Part, ...]
    base: Base = "full"
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of progress.jsonl; the first `training` line says that the worker is ready."""

    at: datetime
    phase: Literal["loading", "training", "evaluating"]
    step: int
    losses: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class EnergyLine:
    """One line of energy.jsonl: what was drawn in `seconds` from `start`, with `step` reached at its end."""

    start: datetime
    seconds: float
    kwh: float
    source: str
    step: int


@dataclass(frozen=True, slots=True)
class Result:
    """result.json. `error` is set when the attempt itself broke down (out of memory, no model): it may be retried."""

    ended_at: datetime
    outcomes: tuple[Outcome, ...]
    error: str = ""
    facts: dict[str, str] | None = None
    schema_version: int = 1


class AttemptFolder:
    """Reads and writes one attempt's folder."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def store(self) -> Path:
        return self.path.parent.parent.parent

    # -- written by the starter

    def prepare(self, assignment: Assignment) -> None:
        """Make the folder with its stint.json, whole or not at all. Does nothing if it is there."""
        if self.path.exists():
            return
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write_file(draft / "stint.json", codec.dumps(assignment, indent=1))
        sync(draft)
        draft.rename(self.path)
        sync(self.path.parent)

    def lock(self) -> int | None:
        """Take the lock that says a worker lives; its file descriptor, or None where one lives already."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    # -- written by the worker

    def assignment(self) -> Assignment:
        return codec.loads(Assignment, (self.path / "stint.json").read_bytes())

    def sign_in(self) -> None:
        """Say who works here. To be called before anything slow."""
        signature = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": now().isoformat()}
        write_file(self.path / "worker.json", json.dumps(signature))

    def append(self, line: Progress | EnergyLine) -> None:
        """Add one line to progress.jsonl or energy.jsonl."""
        name = "progress.jsonl" if isinstance(line, Progress) else "energy.jsonl"
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(codec.dumps(line) + "\n")

    def saving(self, experiment: str, step: int) -> AbstractContextManager[Path]:
        """A folder to save a checkpoint into; it appears under its name, with digests, when the block ends well."""
        return appearing(self.path / "checkpoints" / str(step) / experiment, step)

    def saving_adapter(self, experiment: str, step: int) -> AbstractContextManager[Path]:
        """The same for a finished adapter."""
        return appearing(self.path / "adapters" / experiment, step)

    def forget_checkpoints(self, keep: int = 2) -> None:
        """Remove all but the newest checkpoints, to spare the disk."""
        for step in self._steps()[keep:]:
            shutil.rmtree(self.path / "checkpoints" / str(step), ignore_errors=True)

    def finish(self, result: Result) -> None:
        """Write result.json: the last thing a worker does."""
        replace_file(self.path / "result.json", codec.dumps(result, indent=1))
        sync(self.path)

    # -- read by the starter

    def pid(self) -> int | None:
        """Who to signal; None while the worker has not signed in."""
        try:
            pid = int(json.loads((self.path / "worker.json").read_text())["pid"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return pid if pid > 1 else None

    def alive(self) -> bool:
        """Whether a worker (or the starter, about to fork one) holds the lock."""
        handle = self.lock()
        if handle is None:
            return True
        os.close(handle)
        return False

    def result(self) -> Result | None:
        try:
            return codec.loads(Result, (self.path / "result.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def checkpoint(self, experiment: str, at_most: int | None = None) -> Checkpoint | None:
        """The newest checkpoint of an experiment whose files match their digests."""
        for step in self._steps():
            folder = self.path / "checkpoints" / str(step) / experiment
            if (at_most is None or step <= at_most) and verify(folder):
                return Checkpoint(experiment, step, str(folder.relative_to(self.store)), digest(folder))
        return None

    def _steps(self) -> list[int]:
        folder = self.path / "checkpoints"
        names = (p.name for p in folder.iterdir()) if folder.is_dir() else iter(())
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def now() -> datetime:
    """The worker's wall clock."""
    return datetime.now(UTC)
