"""The folder of a run, which holds its journal and its work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.errors import (
    GridsweepError,
    JournalError,
    SpecError,
    StorageError,
    word,
)
from gridsweep.records.chain import head_of
from gridsweep.records.disk import AGAIN, patiently
from gridsweep.records.lease import holder
from gridsweep.records.opening import BESIDE, check_files, gone, readable
from gridsweep.records.snapshot import fitting, snapshot_of

if TYPE_CHECKING:  # imported where a journal is read: `status` may do without, and starts faster then
    from gridsweep.records.journal import Journal
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
        from gridsweep.executors.registry import STORE

        mounted = os.environ.get(STORE)
        return Path(mounted) if mounted else self.path / "store"

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    def driver(self) -> int | None:
        """Return the id of the process that drives the sweep in the folder; None if there is none."""
        driver = holder(self.state)
        return driver.pid if driver is not None else None

    def submitted(self) -> bool:
        """Return whether the journal holds a sweep."""
        try:
            return bool(self.read().standings)
        except GridsweepError:
            return False

    def empty(self) -> bool:
        """Return whether no sweep was ever submitted in the folder; False for a journal that is gone or unreadable."""
        try:
            check_files(self.journal)
        except JournalError:
            return False
        if not self.journal.exists():
            return gone(self.journal) is None
        if fitting(self.journal) is not None:  # known without what reads a journal, which takes long to import
            return False
        from gridsweep.records.journal import DAMAGED

        try:
            with closing(readable(self.journal)) as db:
                return db.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None
        except DAMAGED:
            return False

    def discard_empty(self) -> None:
        """Remove a journal without events, which a run leaves that fails before its submission."""
        if self.empty():
            beside = (self.journal.with_name(self.journal.name + end) for end in BESIDE)
            for path in (snapshot_of(self.journal), *beside, self.journal, head_of(self.journal)):  # the head at last
                with suppress(OSError):  # an empty journal does no harm
                    path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `SpecError` if the folder holds no sweep, or may not be read, `JournalError` if its journal is gone."""
        if self.path.is_file():
            raise SpecError(f"{self.path} is a file, not the folder of a run; name the folder, such as runs/NAME")
        check_files(self.journal)

        def found() -> bool:
            there = self.journal.exists()
            with self.journal.open("rb") if there else nullcontext():
                return there

        try:
            there = patiently(found, lambda error: not isinstance(error, PermissionError))
        except PermissionError:
            raise SpecError(
                f"{self.path} may not be read by this user",
                remedy=f"its owner can run: chmod -R a+rX {word(self.path)}",
            ) from None
        except OSError as error:
            raise StorageError(f"{self.journal}: {error.strerror}", remedy=AGAIN) from None
        if not there and (lost := gone(self.journal)):
            raise lost
        if not there:
            raise SpecError(f"{self.path} holds no sweep; start one with `gridsweep run SPEC --folder {self.path}`")

    def check_begun(self) -> None:
        """Raise `SpecError` as `read` does, without reading the events."""
        self.check()
        if self.empty():
            raise SpecError(f"{self.path} holds a sweep that was never submitted; run it again")

    def read(self) -> State:
        """Return the state as journaled so far.

        Raise `SpecError` if the folder holds no submitted sweep, or may not be read.
        """
        return self.read_to()[0]

    def read_to(self) -> tuple[State, tuple[int, str]]:
        """Return the state as journaled so far, and the number of rows with the last digest. Raise as `read` does."""
        from gridsweep.state.state import State

        self.check()
        with self._opened() as journal:
            state = State(journal.each())
            end = journal.end
        if not state.folded:
            raise SpecError(f"{self.path} holds a sweep that was never submitted; run it again")
        return state, end

    @contextmanager
    def _opened(self) -> Iterator[Journal]:
        from gridsweep.records.journal import Journal

        journal = Journal(self.journal)
        try:
            yield journal
        finally:
            journal.close()
