"""`gridsweep verify` and `gridsweep repair`."""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from builders import DAYS, make_sweep, real_sweep, rehearsed
from gridsweep.errors import STATE_DAMAGED, IncompleteWarning, JournalError, SpecError, StorageError
from gridsweep.policy.gates import Threshold
from gridsweep.records import chain
from gridsweep.records.journal import Journal, create
from gridsweep.records.lease import lease
from gridsweep.runs import mending
from gridsweep.runs.asking import stop
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.glances import glance_at, standing_at
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


# Of another kind than rows: tables, header, files


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DROP TABLE lease", "it holds the table events"),
        ("PRAGMA user_version=99", "it says that it has format 99"),
        ("PRAGMA user_version=1", "its tables are not those of its format"),
        ("PRAGMA user_version=0", "it says that it has format 0"),
        ("ALTER TABLE events RENAME TO e; CREATE VIEW events AS SELECT * FROM e", "it holds the table e, "),
        ("CREATE TRIGGER t BEFORE INSERT ON events BEGIN SELECT RAISE(IGNORE); END", "the trigger t"),
        ("ALTER TABLE lease ADD COLUMN more", "its tables are not those of its format"),
    ],
)
def test_tables_and_a_header_that_are_not_a_journals_are_told_and_mended(
    place: RunFolder, damage: str, told: str
) -> None:
    with closing(sqlite3.connect(place.journal)) as db:
        db.executescript(damage)
    with pytest.raises(JournalError, match="gridsweep repair"):
        place.read()
    with pytest.raises(JournalError, match="gridsweep repair"):
        Journal(place.journal, epoch=9)
    assert told in mending.verify(place.path).faults[0]
    assert mending.repair(place.path).lost == 0
    assert mending.verify(place.path).faults == () and read(place) == EVENTS
    Journal(place.journal, epoch=9).close()


@pytest.mark.parametrize("epoch", ["9223372036854775807", "-1", "'x'", "1.5", "NULL), (2"])
def test_a_number_of_the_lease_that_cannot_be_is_told_and_a_run_goes_on(place: RunFolder, epoch: str) -> None:
    execute(place, "DROP TABLE lease")
    execute(place, "CREATE TABLE lease (epoch INTEGER)")
    execute(place, f"INSERT INTO lease VALUES ({epoch})")
    assert mending.verify(place.path).faults == ("the journal is damaged: the number of its lease is damaged",)
    assert mending.repair(place.path, dry_run=True).lost == 0
    with closing(Journal(place.journal, epoch=7)) as journal:
        assert journal.epoch == 7
    assert mending.verify(place.path).faults == ()
    (place.state / "lease").write_text("1 " + "9" * 5000)
    with lease(place.state) as number:
        assert number == 1


def test_flipped_bits_outside_the_rows_are_told_by_all_or_by_none(place: RunFolder, tmp_path: Path) -> None:
    """Where a reader, or a run, refuses a journal, `verify` finds it, and after `repair` both go on."""
    with closing(sqlite3.connect(place.journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'lease'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data, copy = place.journal.read_bytes(), RunFolder(tmp_path / "copy")
    copy.state.mkdir(parents=True)
    for at in [18, 19, 63, *range((page - 1) * size, (page - 1) * size + 12), *range(page * size - 4, page * size)]:
        for name in copy.state.iterdir():
            name.unlink()
        copy.journal.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        chain.head_of(copy.journal).write_bytes(chain.head_of(place.journal).read_bytes())
        refused = False
        try:
            assert read(copy) == EVENTS
            Journal(copy.journal, epoch=9).close()
        except JournalError:
            refused = True
        if refused:
            assert mending.verify(copy.path).faults, at
            try:
                assert mending.repair(copy.path).lost == 0
            except JournalError as error:
                assert "restore the file from a backup" in str(error) and at < 100, at
                continue
            Journal(copy.journal, epoch=9).close()
        assert mending.verify(copy.path).faults == (), at
        assert read(copy) == EVENTS


def verbs(place: RunFolder) -> list[Callable[[], object]]:
    return [
        place.read,
        lambda: glance_at(place),
        lambda: standing_at(place),
        lambda: mending.verify(place.path),
        lambda: mending.repair(place.path),
        lambda: mending.repair(place.path, dry_run=True),
        lambda: run(make_sweep(3), place.path, command=STAND_IN),
        lambda: run(None, place.path, command=STAND_IN),
        lambda: stop(place.path),
    ]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "journal.db-journal", "lease", "journal.head"])
def test_a_file_of_another_kind_is_seven_at_once_for_every_verb(place: RunFolder, name: str, kind: str) -> None:
    path = place.state / name
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
    for verb in verbs(place):
        begun = time.monotonic()
        with pytest.raises(JournalError, match=rf"{path} is .*, no regular file; move it away") as caught:
            verb()
        assert caught.value.exit_code == STATE_DAMAGED and time.monotonic() - begun < 1


def test_a_journal_that_is_gone_is_told_by_every_verb(place: RunFolder) -> None:
    glance_at(place)
    place.journal.unlink()
    for verb in verbs(place):
        with pytest.raises(
            JournalError, match=rf"journal.db is missing: it held {len(EVENTS)} events; restore it from"
        ):
            verb()
        assert not place.journal.exists() and chain.head(place.journal) and not place.empty()
    chain.head_of(place.journal).unlink()  # the snapshot still tells
    with pytest.raises(JournalError, match=rf"is missing: it held {len(EVENTS)} events"):
        place.read()
    chain.write_head(place.journal, 0, chain.BEGIN)
    (place.state / "snapshot.json").unlink()
    assert place.empty()  # a run that was killed before it had made its journal


def test_a_run_refuses_a_journal_without_a_head_until_it_is_mended(place: RunFolder) -> None:
    chain.head_of(place.journal).unlink()
    for sweep in (None, make_sweep(3)):
        with pytest.raises(JournalError, match=r"journal.head is missing or damaged; .*gridsweep repair"):
            run(sweep, place.path, command=STAND_IN)
    assert chain.head(place.journal) is None
    with pytest.warns(IncompleteWarning):
        glance_at(place)
    execute(place, f"DELETE FROM events WHERE seq > {len(EVENTS) - 2}")
    with pytest.raises(JournalError, match="its last 2 of"):  # by the snapshot
        glance_at(place)
    assert "the last 2 of" in mending.verify(place.path).faults[0]
    assert mending.repair(place.path).lost == 2
    assert read(place) == EVENTS[:-2] and glance_at(place)


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("verb", ["status", "explain"])
def test_a_lost_head_is_a_line_on_stderr(place: RunFolder, verb: str, options: tuple[str, ...]) -> None:
    chain.head_of(place.journal).unlink()
    asked = ["e00", str(place.path)] if verb == "explain" else [str(place.path)]
    command = [sys.executable, "-W", "error", "-P", "-m", "gridsweep", verb, *asked, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"warning: .*journal\.head is missing or damaged: .*`gridsweep repair .*` makes it anew", line)
    assert not options or json.loads(done.stdout)


def test_a_folder_in_which_no_run_has_begun_is_not_damaged(tmp_path: Path) -> None:
    """As a disk that is full at the first write leaves it."""
    place = RunFolder(tmp_path / "run")
    with lease(place.state) as epoch:
        Journal(place.journal, epoch=epoch).close()
    for verb in (mending.verify, lambda path: place.read()):
        with pytest.raises(SpecError, match="never submitted; run it again"):
            verb(place.path)
    chain.head_of(place.journal).unlink()
    assert mending.verify(place.path).faults == (mending.HEADLESS,)
    assert mending.repair(place.path).kept == 0
    Journal(place.journal, epoch=2).close()
    place.journal.unlink()
    with pytest.raises(SpecError, match="holds no sweep"):
        mending.verify(place.path)


def test_a_disk_that_fails_is_no_damage(place: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(mending, "readable", full)
    with pytest.raises(StorageError, match="database or disk is full"):
        mending.verify(place.path)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ENOSPC])
def test_a_read_only_file_system_is_of_the_disk_and_a_dry_run_needs_no_lease(
    place: RunFolder, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.open

    def opened(path: str, flags: int, *more: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), path)
        return real(path, flags, *more)

    execute(place, "DELETE FROM events WHERE seq > 5")
    monkeypatch.setattr(os, "open", opened)
    assert mending.repair(place.path, dry_run=True).kept == 5
    with pytest.raises(StorageError) as caught, lease(place.state):
        pass
    assert caught.value.exit_code == 5 and "another folder" not in str(caught.value)


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
