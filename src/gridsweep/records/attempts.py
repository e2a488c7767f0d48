"""An attempt's folder: the protocol between the starter of a worker and the worker.

    store/stints/<stint>/<number>/
        stint.json        the assignment                   written by the starter, before the worker starts
        worker.json       pid, host, start                 written by the worker, first of all
        log.txt           stdout and stderr
        progress.jsonl    one line per reported step       appended by the worker
        energy.jsonl      one line per measured segment    appended by the worker
        checkpoints/<step>/<experiment>/                   complete or absent: renamed into place
        adapters/<experiment>/                             complete or absent: renamed into place
        result.json       one outcome per member           last, by rename

An attempt folder has one writer and is never reused. The worker is alive while the `flock` on the folder is held: the
lock is taken before the fork and inherited, so no pid is needed. Times are the worker's wall clock.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gridsweep.records import codec
from gridsweep.records.bounded import MEBIBYTE, UnfitError, inside, said, whole
from gridsweep.records.disk import append_text, patiently
from gridsweep.records.files import appearing, create_file, digest, remove, replace_file, sync, verify, write_file
from gridsweep.records.process import Process, this_process
from gridsweep.sweep.experiments import Base, Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.losses import ScoreName
from gridsweep.sweep.stints import Checkpoint, Device, Outcome

__all__ = [
    "Assignment",
    "AttemptFolder",
    "EnergyLine",
    "Judging",
    "Outcome",
    "Part",
    "Progress",
    "Result",
    "digest",
    "now",
    "verify",
]

RESULT = 512 * MEBIBYTE
"""The largest result; losses on 100,000 samples of 21 members are about 100 MiB."""


@dataclass(frozen=True, slots=True)
class Part:
    """One member's work: optimizer steps `[from_step, to_step)`, from a checkpoint unless it starts at 0.

    `recipe` is its own where it differs from the assignment's, in what members of a stint may differ in.
    """

    experiment: str
    params: LoraParams
    seed: int
    from_step: int
    to_step: int
    checkpoint: Checkpoint | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Judging:
    """How all experiments of a sweep are judged whose recipes differ: `score` decides at rungs, for every schedule.

    Validation samples are cut to `max_length` tokens, whatever training samples are cut to.
    """

    score: ScoreName
    max_length: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """The work of an attempt, as given to the worker; `recipe` and `total_steps` are of its members.

    `encoding` is the version of how rows become tokens, `constants` are the digests that the worker compares with its
    own, and `submitted` is the date for chat templates that write one. `beside` holds the stated memory (gigabytes;
    None if not stated) of the other devices whose workers share this one's main memory.
    """

    attempt: str
    model: Model
    dataset: Dataset
    recipe: Recipe
    total_steps: int
    device: Device
    members: tuple[Part, ...]
    base: Base = "full"
    encoding: int = 1
    constants: dict[str, str] = field(default_factory=dict)
    submitted: datetime | None = None
    beside: tuple[float | None, ...] = ()
    judging: Judging | None = None
    schema_version: int = 1

    def recipe_of(self, part: Part) -> Recipe:
        """Return the recipe of a member."""
        return part.recipe or self.recipe


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of progress.jsonl; the first `training` line says that the worker is ready.

    A line before it holds the `constants`: digests of what the worker has loaded.
    """

    at: datetime
    phase: Literal["loading", "training", "evaluating"]
    step: int
    losses: dict[str, float | None]
    constants: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class EnergyLine:
    """One line of energy.jsonl: the energy used in `seconds` from `start`; `step` is the step reached at the end."""

    start: datetime
    seconds: float
    kwh: float
    source: str
    step: int


@dataclass(frozen=True, slots=True)
class Result:
    """The content of result.json. `error` is set if the attempt failed.

    It may be retried unless it was `refused`: then what the sweep asks for is at fault. `storage`: the disk is.
    """

    ended_at: datetime
    outcomes: tuple[Outcome, ...]
    error: str = ""
    facts: dict[str, str] | None = None
    refused: bool = False
    storage: bool = False
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
        """Create the folder with its stint.json, atomically. Do nothing if the folder exists."""
        if self.path.exists():
            return
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        patiently(lambda: draft.mkdir(parents=True, exist_ok=True))
        write_file(draft / "stint.json", codec.dumps(assignment, indent=1))
        sync(draft)
        patiently(lambda: draft.rename(self.path))
        sync(self.path.parent)

    def lock(self) -> int | None:
        """Take the lock of a live worker; return its file descriptor, or None if a worker already holds it."""
        handle = patiently(lambda: os.open(self.path, os.O_RDONLY))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    # -- written by the worker

    def assignment(self) -> Assignment:
        return codec.loads(Assignment, patiently((self.path / "stint.json").read_bytes))

    def sign_in(self) -> None:
        """Write worker.json. Call it before any slow work.

        Raise `FileExistsError` if another worker was here: what it still writes would be mixed with what this one does.
        """
        signature = {**this_process().signature(), "started_at": now().isoformat()}
        create_file(self.path / "worker.json", json.dumps(signature))

    def append(self, line: Progress | EnergyLine) -> None:
        """Add one line to progress.jsonl or energy.jsonl."""
        path = self.path / ("progress.jsonl" if isinstance(line, Progress) else "energy.jsonl")
        patiently(lambda: append_text(path, codec.dumps(line) + "\n"))

    def saving(self, experiment: str, step: int) -> AbstractContextManager[Path]:
        """Return a context with a draft folder for a checkpoint, renamed with its digests if the block succeeds."""
        return appearing(self.path / "checkpoints" / str(step) / experiment, step)

    def saving_adapter(self, experiment: str, step: int) -> AbstractContextManager[Path]:
        """Return a context with a draft folder for a finished adapter, as `saving` does."""
        return appearing(self.path / "adapters" / experiment, step)

    def forget_checkpoints(self, keep: int = 2) -> None:
        """Remove all but the newest checkpoints, to save disk space."""
        for step in self._steps()[keep:]:
            remove(self.path / "checkpoints" / str(step))

    def finish(self, result: Result) -> None:
        """Write result.json, the worker's last action."""
        replace_file(self.path / "result.json", codec.dumps(result, indent=1))
        sync(self.path)

    # -- read by the starter

    def process(self) -> Process | None:
        """Return the worker's process, for signals; None before the worker has signed in."""
        try:
            return Process.of(said(self.path / "worker.json"))
        except (OSError, ValueError):
            return None

    def pid(self) -> int | None:
        """Return the id of the worker's process."""
        process = self.process()
        return process.pid if process is not None else None

    def alive(self) -> bool:
        """Return whether a worker (or the starter, before the fork) holds the lock."""
        handle = self.lock()
        if handle is None:
            return True
        os.close(handle)
        return False

    def prepared_at(self) -> datetime:
        """Return the wall time at which the starter wrote the assignment, or of the oldest file where that is gone.

        No program can set the time of a change.
        """
        return datetime.fromtimestamp(min(self._changes("stint.json") or self._changes()), UTC)

    def changed_at(self) -> datetime:
        """Return the wall time at which something in the folder was last changed."""
        return datetime.fromtimestamp(max(self._changes()), UTC)

    def _changes(self, pattern: str = "*") -> list[float]:
        """Return when files of the folder were changed, seconds since 1970; of the folder itself if it holds none."""
        found = []
        for path in self.path.glob(pattern):
            with suppress(FileNotFoundError):
                found.append(path.lstat().st_ctime)
        return found or ([] if pattern != "*" else [self.path.lstat().st_ctime])

    def result(self) -> Result | None:
        """Return what the worker wrote, unjudged; None without a result that can be read."""
        try:
            return self.written_result()
        except (OSError, ValueError):
            return None

    def written_result(self) -> Result:
        """Return the same; raise `FileNotFoundError`, another `OSError` or `ValueError` if it cannot be read."""
        return codec.loads(Result, whole(self.path / "result.json", RESULT))

    def unfit(self, outcome: Outcome) -> str:
        """Return what is wrong with the files that an outcome names, "" if they are whole and lie in the store."""
        named: dict[str, str | None] = {}
        if outcome.checkpoint is not None:
            named[outcome.checkpoint.path] = outcome.checkpoint.digest
        if outcome.adapter is not None:
            named[outcome.adapter] = None
        for name, expected in named.items():
            try:
                if not self._kept(name, expected):
                    return f"{name} is not what was saved"
            except UnfitError as error:
                return str(error)
        return ""

    def damaged(self, saved: Checkpoint) -> bool:
        """Return whether a checkpoint, of this attempt or of another, is not what was saved."""
        try:
            return not self._kept(saved.path, saved.digest)
        except UnfitError:
            return True

    def sibling(self, attempt: str) -> AttemptFolder:
        """Return the folder of another attempt of the same run."""
        return AttemptFolder(self.store / "stints" / attempt)

    def _kept(self, name: str, expected: str | None) -> bool:
        return verify(inside(self.store, name), expected)

    def checkpoint(self, experiment: str, at_most: int | None = None) -> Checkpoint | None:
        """Return the newest checkpoint of an experiment whose files match their digests; None without one."""
        for step in self._steps():
            if at_most is not None and step > at_most:
                continue
            try:
                folder = inside(self.path, f"checkpoints/{step}/{experiment}")
            except UnfitError:
                continue
            if verify(folder):
                return Checkpoint(experiment, step, str(folder.relative_to(self.store)), digest(folder))
        return None

    def _steps(self) -> list[int]:
        folder = self.path / "checkpoints"
        names = (p.name for p in folder.iterdir()) if folder.is_dir() else iter(())
        return sorted((int(name) for name in names if is_step(name)), reverse=True)


def is_step(name: str) -> bool:
    """Return whether a folder's name is a step as this module writes it; `int` takes more, and `isdigit` more still."""
    return name.isascii() and name.isdigit() and len(name) < 19 and str(int(name)) == name


def now() -> datetime:
    """Return the time of the worker's wall clock, UTC."""
    return datetime.now(UTC)
