"""The folder of a run, which holds its journal and its work."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from gridsweep.errors import (
    GridsweepError,
    SpecError,
    word,
)
from gridsweep.executors.registry import STORE
from gridsweep.records.journal import Journal
from gridsweep.records.lease import holder
from gridsweep.state.state import State


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder that holds a sweep's journal and its work."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def store(self) -> Path:
        """The folder of stints and experiments: beside the state, or on the mounted volume inside a cluster."""
        mounted = os.environ.get(STORE)
        return Path(mounted) if mounted else self.path / "store"

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    def driver(self) -> int | None:
        """Return the process that drives the sweep in the folder; None if there is none."""
        return holder(self.state)

    def submitted(self) -> bool:
        """Return whether the journal holds a sweep."""
        try:
            return bool(self.read().standings)
        except GridsweepError:
            return False

    def read(self) -> State:
        """Return the state as journaled so far.

        Raise `SpecError` if the folder holds no submitted sweep, or may not be read.
        """
        try:
            there = self.journal.exists()
            with self.journal.open("rb") if there else nullcontext():
                pass
        except PermissionError:
            raise SpecError(
                f"{self.path} may not be read by this user",
                remedy=f"its owner can run: chmod -R a+rX {word(self.path)}",
            ) from None
        if not there:
            raise SpecError(f"{self.path} holds no sweep; start one with `gridsweep run SPEC --folder {self.path}`")
        journal = Journal(self.journal)
        try:
            events = journal.events()
        finally:
            journal.close()
        if not events:
            raise SpecError(f"{self.path} holds a sweep that was never submitted; run it again")
        return State(events)
