"""What of a run's folder is whole, and a new journal of that: `gridsweep verify` and `gridsweep repair`."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from gridsweep.errors import JournalError, LeaseError, SpecError, StorageError
from gridsweep.records import chain, snapshot
from gridsweep.records.bounded import UnfitError, inside
from gridsweep.records.facts import event_of
from gridsweep.records.files import verify as is_whole
from gridsweep.records.journal import DAMAGED, create, fault_of, stored
from gridsweep.records.lease import holder, lease
from gridsweep.records.opening import BESIDE, VERSION, chained, check_files, flaw, gone, readable, unfit_lease
from gridsweep.records.origins import check_driven_here, origin_of
from gridsweep.runs.folder import RunFolder
from gridsweep.state.standings import Standing
from gridsweep.state.state import State

ASIDE = "damaged"
HEADLESS = "journal.head is missing or damaged; whether events are missing at the end cannot be told"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in a folder. `rows` of the journal are whole, of `stored` ones; `chained` of them hold a digest.

    `last_at` is the time of the last whole fact. `faults` lists what is wrong with the journal, and finished adapters
    that are missing or changed, of `adapters` in all.
    """

    folder: str
    rows: int
    stored: int
    chained: int
    last_at: datetime | None
    adapters: int
    faults: tuple[str, ...]
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair kept and lost of a journal's rows; `aside` is where the old journal is, None if nothing changed."""

    folder: str
    kept: int
    lost: int
    last_at: datetime | None
    faults: tuple[str, ...]
    aside: str | None
    schema_version: int = 1


def verify(folder: str | Path) -> Verified:
    """Check a folder's journal, row by row, with its header and tables, and its finished adapters, file by file.

    Change nothing. Raise `SpecError` if the folder holds no journal, or one without a fact, `JournalError` if the
    journal is gone or no file, `StorageError` if the disk fails.
    """
    place = _place(folder)
    found, state, _, _ = _looked_at(place)
    if not found.stored and not found.faults:
        raise SpecError(f"{place.path} holds a sweep that was never submitted; run it again")
    faults = list(found.faults)
    done = [s for s in state.standings.values() if s.status == "done" and s.outcome and s.outcome.adapter]
    for standing in done:
        home = place.store / "experiments" / standing.experiment.id / "adapter"
        if not home.exists() and _kept(place, standing):
            continue  # the run ended before it published it; the next one does
        if not home.exists():
            faults.append(f"the adapter of {standing.experiment.id} is missing: {home}")
        elif (home / "manifest.json").exists() and not is_whole(home):
            faults.append(f"the adapter of {standing.experiment.id} differs from what was saved: {home}")
    return replace(found, adapters=len(done), faults=tuple(faults))


def _kept(place: RunFolder, standing: Standing) -> bool:
    """Return whether the adapter of an experiment is whole where its worker left it."""
    assert standing.outcome and standing.outcome.adapter, "done"
    try:
        return is_whole(inside(place.store, standing.outcome.adapter))
    except UnfitError:
        return False


def repair(folder: str | Path, *, dry_run: bool = False) -> Repaired:
    """Make a new journal of the rows that are whole; the old one stays beside it. With `dry_run` change nothing.

    Raise `SpecError` if the folder holds no journal, `LeaseError` while a run drives it, `JournalError` if nothing of
    the journal is whole, or a newer gridsweep seems to have written it.
    """
    place = _place(folder)
    if (origin := origin_of(place.state)) is not None and origin.kind == "copy":
        check_driven_here(place.state)
    if dry_run:  # without a lease, which a read-only folder does not give
        if driver := holder(place.state):
            raise LeaseError(f"{driver.where} is running the sweep in {place.path}; stop it first")
        return _to_mend(place)[0]
    with lease(place.state):
        fresh = place.journal.with_name("journal.db.mended")
        if fresh.exists():  # whole, as `create` makes it: a repair was killed before its end
            _put(place, fresh)
        told, rows = _to_mend(place)
        if not told.faults:
            return told
        if not rows and told.faults != (HEADLESS,):
            raise JournalError(f"no fact in {place.journal} is whole; restore the file from a backup")
        number = next(n for n in range(1, 1000) if not place.journal.with_name(f"journal.db.{ASIDE}-{n}").exists())
        aside = place.journal.with_name(f"journal.db.{ASIDE}-{number}")
        for end in ("", *BESIDE):
            if (old := place.journal.with_name(f"journal.db{end}")).exists():
                shutil.copyfile(old, aside.with_name(f"{aside.name}{end}"))
        create(fresh, rows)
        _put(place, fresh)
        return replace(told, aside=str(aside))


def _to_mend(place: RunFolder) -> tuple[Repaired, list[chain.Row]]:
    """Return what a repair would keep and lose, and the rows that it keeps."""
    found, _, rows, newer = _looked_at(place)
    known = chain.head(place.journal) or snapshot.told(place.journal)
    lost = max(found.stored, known[0] if known else 0) - found.rows
    if lost and newer:
        raise JournalError(
            f"{place.journal} says that a newer gridsweep wrote it, and not all of its events can be read",
            remedy="upgrade, or restore the file from a backup",
        )
    return Repaired(found.folder, found.rows, lost, found.last_at, found.faults, None), rows


def _place(folder: str | Path) -> RunFolder:
    """Return a folder that holds a journal. Raise `SpecError` for another, `JournalError` if the journal is gone."""
    place = RunFolder(Path(folder))
    check_files(place.journal)
    if lost := gone(place.journal):
        raise lost
    if not place.journal.is_file():
        raise SpecError(f"{folder} holds no sweep; name the folder of a run, such as runs/NAME")
    return place


def _put(place: RunFolder, fresh: Path) -> None:
    """Put a new journal in the place of the old one: the old one's log must not be taken for its own."""
    with closing(readable(fresh)) as db:
        links = [digest for _, digest in chain.checked(stored(db, chained=True))]
    snapshot.snapshot_of(place.journal).unlink(missing_ok=True)  # of rows that may be lost
    for end in BESIDE:
        place.journal.with_name(f"journal.db{end}").unlink(missing_ok=True)
    fresh.rename(place.journal)
    chain.write_head(place.journal, len(links), links[-1] if links else chain.BEGIN)


def _looked_at(place: RunFolder) -> tuple[Verified, State, list[chain.Row], bool]:
    """Return what is whole of a journal, the state that it folds to, its rows, and whether it says that it is newer.

    Raise `StorageError` if the disk fails.
    """
    state, rows, faults, newer = State(), [], list[str](), False
    last, with_digest, total, linked = None, 0, 0, True
    head, links = chain.head(place.journal), list[str]()
    known = head or snapshot.told(place.journal)
    try:
        with closing(readable(place.journal)) as db:
            faults, newer = _flaws(place.journal, db)
            linked = chained(db)
            total, with_digest = _counted(db, linked)
            for row, digest in chain.checked(stored(db, chained=linked)):
                event = event_of(place.journal, row)
                state.apply(event)
                rows.append(row)
                links.append(digest)
                last = event.at
    except (chain.Broken, JournalError, *DAMAGED) as error:
        _raise_if_of_disk(place.journal, error)
        faults.append(f"event {len(rows) + 1} of the journal is damaged: {error}")
        state = _folded(place, rows)
    else:
        missing = chain.missing(known, links) if linked else 0
        if missing:
            faults.append(f"the last {missing} of {len(rows) + missing} events of the journal are missing")
        elif missing is None:
            other = "journal.head" if head else "snapshot.json"
            faults.append(f"the rows of the journal do not fit to {other}; which of them were changed cannot be told")
        elif head is None and linked:
            faults.append(HEADLESS)
    found = Verified(str(place.path), len(rows), max(total, len(rows)), with_digest, last, 0, tuple(faults))
    return found, state, rows, newer


def _flaws(journal: Path, db: sqlite3.Connection) -> tuple[list[str], bool]:
    """Return what is wrong with a journal besides its rows, and whether it says that a newer gridsweep wrote it."""
    try:
        what = flaw(journal, db) or unfit_lease(db)
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except DAMAGED as error:
        _raise_if_of_disk(journal, error)
        return [f"the journal is damaged: {error}"], False
    return [f"the journal is damaged: {what}"] if what else [], version > VERSION


def _raise_if_of_disk(journal: Path, error: Exception) -> None:
    """Raise `StorageError` if it is the disk that cannot be read: it says nothing of the journal."""
    if isinstance(error, sqlite3.Error) and isinstance(told := fault_of(journal, error), StorageError):
        raise told from None


def _folded(place: RunFolder, rows: list[chain.Row]) -> State:
    """Return the state of whole rows: one that met a fact it could not take is of no more use."""
    return State(event_of(place.journal, row) for row in rows)


def _counted(db: sqlite3.Connection, chained: bool) -> tuple[int, int]:
    """Return how many rows there are, and how many hold a digest, as far as that can be read."""
    try:
        (total,) = db.execute("SELECT count(*) FROM events").fetchone()
        (with_digest,) = db.execute("SELECT count(chain) FROM events").fetchone() if chained else (0,)
        return total, with_digest
    except DAMAGED:
        return 0, 0
