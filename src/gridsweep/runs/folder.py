"""The folder of a run: where its journal and its work are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gridsweep.errors import (
    GridsweepError,
    SpecError,
)
from gridsweep.executors.registry import STORE
from gridsweep.records.journal import Journal
from gridsweep.records.lease import holder
from gridsweep.state.state import State


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a sweep's journal and its work are kept."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def store(self) -> Path:
        """Beside the state; on the volume's mount for a loop that runs inside a cluster."""
        mounted = os.environ.get(STORE)
        return Path(mounted) if mounted else self.path / "store"

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    def driver(self) -> int | None:
        """The process whose run drives the folder; None when none does."""
        return holder(self.state)

    def submitted(self) -> bool:
        """Whether the journal holds a sweep by now."""
        try:
            return bool(self.read().standings)
        except GridsweepError:
            return False

    def read(self) -> State:
        """The state as journaled so far. Raises `SpecError` where no sweep was run."""
        if not self.journal.exists():
            raise SpecError(f"{self.path} holds no sweep; start one with `gridsweep run SPEC --folder {self.path}`")
        journal = Journal(self.journal)
        try:
            events = journal.events()
        finally:
            journal.close()
        if not events:
            raise SpecError(f"{self.path} holds a sweep that was never submitted; run it again")
        return State(events)
