"""A copy of the run folder of a loop that runs in a cluster: its journal, checked by its chain, and its store."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from gridsweep.errors import ExecutorError, JournalError, SpecError
from gridsweep.executors.kubernetes.shelves import Shelf
from gridsweep.records import chain
from gridsweep.records.disk import storing
from gridsweep.records.facts import event_of
from gridsweep.records.journal import DAMAGED, create, stored
from gridsweep.records.lease import lease
from gridsweep.records.opening import readable
from gridsweep.records.origins import Origin, mark
from gridsweep.runs import glances
from gridsweep.runs.collecting import Collection, check_kind, told
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import keep_spec
from gridsweep.state.state import State
from gridsweep.sweep.sweep import Sweep

RUN = "run"
"""The run's folder on the journal's volume."""
TRIES, PAUSE_SECONDS = 5, 1.0
"""The loop writes while its files are read: a copy that does not hold together is read again, so many times."""


def copy(sweep: Sweep, place: RunFolder, journal: Shelf, store: Shelf, origin: Origin) -> Collection:
    """Make or bring up to date the copy of a loop's run folder.

    Raise `SpecError` if there is no journal, or it is of another sweep or another run than the copy that is here;
    `JournalError` if it is damaged where it lies.
    """
    check_kind(place, "copy")
    with storing(place.path), lease(place.state):
        draft = place.state / ".copy"
        try:
            rows, state = _read(journal, draft, origin)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if state.sweep.name != sweep.name:
            raise SpecError(f"the journal in {origin.source} is of the sweep {state.sweep.name}, not of {sweep.name}")
        before = _before(place, rows)
        links = [digest for _, digest in chain.linked(rows)]
        mark(place.state, origin)  # before the journal: an unmarked folder is one that may be driven
        if len(rows) > before:
            create(place.journal, rows)
            chain.write_head(place.journal, len(rows), links[-1])
            keep_spec(place, state.sweep)
            with suppress(OSError):  # it only saves time
                glances.keep(place.journal, state, (len(rows), links[-1]))
        warnings = _stored(state, store)
    return told(place, state, "copy", origin.source, len(rows) - before, warnings)


def _read(journal: Shelf, draft: Path, origin: Origin) -> tuple[list[chain.Row], State]:
    """Return the rows of the loop's journal, checked against each other and against its head, and their state."""
    fault = ""
    for n in range(TRIES):
        if n:
            time.sleep(PAUSE_SECONDS)
        if not journal.holds(f"{RUN}/state/journal.db"):
            raise SpecError(
                f"there is no journal in {origin.source}",
                remedy="see that the loop has begun: kubectl get pods -l app.kubernetes.io/component=controller",
            )
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        for name in ("journal.head", "journal.db", "journal.db-wal"):  # the head first: it may be behind the rows
            if journal.holds(f"{RUN}/state/{name}"):
                journal.fetch(f"{RUN}/state/{name}", draft / name)
        try:
            return _whole(draft / "journal.db")
        except (chain.Broken, JournalError, FileNotFoundError, *DAMAGED) as error:
            fault = str(error)
    raise JournalError(
        f"the journal in {origin.source} does not hold together: {fault}",
        remedy="run `gridsweep verify /state/run` in the loop's pod",
    )


def _whole(path: Path) -> tuple[list[chain.Row], State]:
    """Return a journal's rows and state. Raise `chain.Broken`, `JournalError` or what SQLite raises on damage."""
    head = chain.head(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise JournalError("the file is damaged")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        checked = list(chain.checked(stored(db, chained=version >= 2)))
    rows, links = [row for row, _ in checked], [digest for _, digest in checked]
    missing = chain.missing(head, links)
    if missing or missing is None:
        raise JournalError("its rows do not fit to journal.head" if missing is None else f"{missing} rows are missing")
    state = State(event_of(path, row) for row in rows)
    if not state.folded:
        raise JournalError("it holds no event yet")
    return rows, state


def _before(place: RunFolder, rows: Sequence[chain.Row]) -> int:
    """Return how many rows the copy here has. Raise `SpecError` if they are not the first of `rows`."""
    if place.empty():
        return 0
    with closing(readable(place.journal)) as db:
        here = [row for row, _ in chain.checked(stored(db, chained=True))]
    if here != list(rows[: len(here)]):
        raise SpecError(f"{place.path} holds a copy of another run of the sweep; name another folder")
    return len(here)


def _stored(state: State, store: Shelf) -> list[str]:
    """Mirror the attempts' files, and the finished adapters; return which could not be had."""
    warnings = []
    for attempt in state.attempts:
        store.refresh(attempt)
    for id, standing in state.standings.items():
        if standing.status != "done" or standing.outcome is None or standing.outcome.adapter is None:
            continue
        published = f"experiments/{id}/adapter"
        try:
            # A loop that ended before it published an adapter has it where its worker left it.
            store.bring(published if store.holds(published) else standing.outcome.adapter)
        except ExecutorError as error:
            warnings.append(f"the adapter of {id}: {error}")
    return warnings
