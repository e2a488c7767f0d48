"""`gridsweep verify` and `gridsweep repair`."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from builders import DAYS, make_sweep, real_sweep, rehearsed
from gridsweep.errors import STATE_DAMAGED, JournalError, SpecError
from gridsweep.policy.gates import Threshold
from gridsweep.records import chain
from gridsweep.records.journal import Journal, create
from gridsweep.records.lease import lease
from gridsweep.runs import mending
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import run
from gridsweep.state.events import Event
from gridsweep.testing.stand_in import STAND_IN

EVENTS = rehearsed(make_sweep(3), DAYS, Threshold())[1]


@pytest.fixture
def place(tmp_path: Path) -> RunFolder:
    place = RunFolder(tmp_path / "run")
    with lease(place.state) as epoch, closing(Journal(place.journal, epoch=epoch)) as journal:
        journal.extend(EVENTS)
    return place


def execute(place: RunFolder, sql: str) -> None:
    with closing(sqlite3.connect(place.journal)) as db, db:
        db.execute(sql)


def read(place: RunFolder) -> list[Event]:
    with closing(Journal(place.journal)) as journal:
        return journal.events()


def test_a_whole_folder_is_whole(place: RunFolder) -> None:
    found = mending.verify(place.path)
    assert (found.rows, found.stored, found.chained, found.faults) == (len(EVENTS), len(EVENTS), len(EVENTS), ())
    made = mending.repair(place.path)
    assert (made.lost, made.aside, made.faults) == (0, None, ())


@pytest.mark.parametrize(
    ("damage", "kept", "told"),
    [
        ("UPDATE events SET body = replace(body, '2024', '2025') WHERE seq = 7", 6, "event 7 .* it was changed"),
        ("DELETE FROM events WHERE seq = 4", 3, "event 4 .* a row is missing"),
        ("DELETE FROM events WHERE seq > 5", 5, r"the last \d+ of \d+ events of the journal are missing"),
        ("UPDATE events SET chain = 'x' WHERE seq = 2", 1, "event 2 .* it was changed"),
    ],
)
def test_the_whole_beginning_is_kept_and_the_old_file_stays(
    place: RunFolder, damage: str, kept: int, told: str
) -> None:
    execute(place, damage)
    with pytest.raises(JournalError, match="gridsweep repair"):
        place.read()
    found = mending.verify(place.path)
    (fault,) = found.faults
    assert found.rows == kept
    assert re.search(told, fault)

    before = {path.name: path.read_bytes() for path in place.state.iterdir() if path.name != "lease"}
    tried = mending.repair(place.path, dry_run=True)
    assert tried.aside is None and tried.lost == len(EVENTS) - kept
    assert {path.name: path.read_bytes() for path in place.state.iterdir() if path.name != "lease"} == before

    made = mending.repair(place.path)
    assert made.lost == len(EVENTS) - kept and made.aside is not None
    assert Path(made.aside).read_bytes() == before["journal.db"]
    assert read(place) == EVENTS[:kept]
    assert mending.verify(place.path).faults == ()


def test_a_fact_that_does_not_fit_is_exit_seven_with_its_row(place: RunFolder) -> None:
    """As an older gridsweep could write it: the chain is whole, the fold is not."""
    with closing(sqlite3.connect(place.journal)) as db:
        rows = [row[:4] for row in db.execute("SELECT seq, at, kind, body FROM events ORDER BY seq")]
    at = next(n for n, row in enumerate(rows) if row[2] == "Ended")
    rows[at] = (*rows[at][:3], rows[at][3].replace('"attempt":"s-', '"attempt":"t-'))
    with closing(sqlite3.connect(place.journal)) as db, db:
        for row, digest in chain.linked(rows):
            db.execute("UPDATE events SET body = ?, chain = ? WHERE seq = ?", (row[3], digest, row[0]))
    chain.write_head(place.journal, len(rows), digest)
    with pytest.raises(JournalError, match=rf"event {at + 1}: Ended does not fit to those before it"):
        place.read()
    assert mending.repair(place.path).kept == at
    assert len(read(place)) == at


def test_nothing_whole_is_no_journal(place: RunFolder) -> None:
    execute(place, "UPDATE events SET kind = 'x' WHERE seq = 1")
    with pytest.raises(JournalError, match=r"no fact in .* is whole"):
        mending.repair(place.path)
    assert place.journal.exists()


def test_a_repair_that_was_killed_is_finished(place: RunFolder) -> None:
    """After it had removed the old journal's log, before the new journal was in its place."""
    execute(place, "UPDATE events SET kind = 'x' WHERE seq = 7")
    with closing(sqlite3.connect(place.journal)) as db:
        rows = [row[:4] for row in db.execute("SELECT seq, at, kind, body FROM events ORDER BY seq") if row[0] < 7]
    create(place.state / "journal.db.mended", rows)
    execute(place, "DELETE FROM events WHERE seq > 3")
    assert mending.repair(place.path, dry_run=True).kept == 3
    assert mending.repair(place.path).faults == ()
    assert read(place) == EVENTS[:6] and not (place.state / "journal.db.mended").exists()


@pytest.mark.parametrize("damage", [None, "", "nonsense", "9" * 5000 + " " + "a" * 64])
def test_a_head_that_is_lost_or_damaged_is_told_and_made_again(place: RunFolder, damage: str | None) -> None:
    head = chain.head_of(place.journal)
    head.unlink() if damage is None else head.write_text(damage)
    (fault,) = mending.verify(place.path).faults
    assert "journal.head is missing or damaged" in fault
    assert mending.repair(place.path).lost == 0
    assert mending.verify(place.path).faults == () and read(place) == EVENTS


def test_a_number_of_the_lease_that_is_none_is_written_anew(place: RunFolder) -> None:
    execute(place, "UPDATE lease SET epoch = 'x'")
    with closing(Journal(place.journal, epoch=7)) as journal:
        assert journal.epoch == 7 and journal.events() == EVENTS


def test_garbage_is_told(place: RunFolder) -> None:
    place.journal.write_bytes(b"this is no database" * 1000)
    assert mending.verify(place.path).faults and mending.verify(place.path).rows == 0


@pytest.mark.parametrize("torn", ["journal.db", "journal.db-wal"])
def test_a_file_that_is_torn_anywhere_is_whole_or_told(tmp_path: Path, torn: str) -> None:
    """As a power loss leaves it; whatever is told, a dry run of the repair says what would be kept."""
    place, copy = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "copy")
    with lease(place.state) as epoch, closing(Journal(place.journal, epoch=epoch)) as journal:
        for event in EVENTS:
            journal.extend([event])
        if torn == "journal.db":
            journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        files = {path.name: path.read_bytes() for path in place.state.iterdir() if not path.name.endswith("-shm")}
    copy.state.mkdir(parents=True)
    for cut in range(0, len(files[torn]), 512):
        for name, data in files.items():
            (copy.state / name).write_bytes(data[:cut] if name == torn else data)
        try:
            assert read(copy) == EVENTS
        except JournalError as error:
            assert error.exit_code == STATE_DAMAGED
            with suppress(JournalError):  # of which not even one fact is whole
                assert mending.repair(copy.path, dry_run=True).kept < len(EVENTS)
        (copy.state / "journal.db-shm").unlink(missing_ok=True)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for verb in (mending.verify, mending.repair):
        with pytest.raises(SpecError, match="holds no sweep; name the folder of a run"):
            verb(tmp_path)


@pytest.mark.slow
def test_a_run_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    """Work whose facts are lost is found in the store again."""
    sweep, folder = real_sweep(2), tmp_path / "run"
    assert run(sweep, folder, command=STAND_IN).exit_code == 0
    place = RunFolder(folder)
    wanted = place.read()
    ended = next(n for n, event in enumerate(read(place), 1) if event.kind == "Ended")
    execute(place, f"UPDATE events SET body = '' WHERE seq = {ended}")
    adapter = next(folder.glob("store/experiments/*/adapter/adapter_config.json"))
    assert mending.repair(folder).kept == ended - 1
    assert run(None, folder, command=STAND_IN).exit_code == 0
    again = place.read()
    assert {id: s.outcome.validation_loss for id, s in again.standings.items() if s.outcome} == {
        id: s.outcome.validation_loss for id, s in wanted.standings.items() if s.outcome
    }
    adapter.write_text("{}")
    (fault,) = mending.verify(folder).faults
    assert f"the adapter of {adapter.parent.parent.name} differs from what was saved" in fault
