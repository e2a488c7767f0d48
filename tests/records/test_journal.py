import os
import resource
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from builders import DAYS, FORK, START, after, make_sweep, rehearsed, until
from gridsweep.errors import STATE_DAMAGED, JournalError, LeaseError, SpecError, StorageError
from gridsweep.policy.gates import Threshold
from gridsweep.records import chain, codec
from gridsweep.records.journal import Journal, create
from gridsweep.records.lease import holder, lease
from gridsweep.runs.folder import RunFolder
from gridsweep.state.events import Decided, Halted, Stopping, Submitted

EVENTS = rehearsed(make_sweep(3), DAYS, Threshold())[1]


@pytest.fixture
def place(tmp_path) -> Path:
    """A file with all events of a rehearsal."""
    path = tmp_path / "state" / "journal.db"
    path.parent.mkdir()
    journal = Journal(path, epoch=1)
    journal.extend(EVENTS)
    journal.close()
    return path


def read(path: Path):
    journal = Journal(path)
    try:
        return journal.events()
    finally:
        journal.close()


# Facts


def test_facts_come_back_in_order(place):
    assert read(place) == EVENTS


def test_facts_are_appended_and_read_from_a_number_on(place):
    journal = Journal(place, epoch=2)
    journal.extend([Stopping(after(9), "enough")])
    assert journal.events(after=len(EVENTS)) == [Stopping(after(9), "enough")]
    journal.close()
    assert read(place) == [*EVENTS, Stopping(after(9), "enough")]


def test_an_older_moment_stays_behind_a_newer_one(place):
    journal = Journal(place, epoch=2)
    journal.extend([Stopping(after(9), "a"), Stopping(after(1), "b")])
    assert [e.why for e in journal.events()[-2:]] == ["a", "b"]
    journal.close()


def killed_while_writing(path: Path) -> None:
    journal = Journal(path, epoch=2)
    journal.extend([Stopping(after(9), "kept")])
    journal._db.execute("BEGIN IMMEDIATE")
    journal._db.execute("INSERT INTO events (at, kind, body) VALUES ('', '', 'half a batch')")
    os._exit(9)


def test_a_killed_writer_leaves_whole_batches(place):
    process = FORK.Process(target=killed_while_writing, args=(place,))
    process.start()
    process.join()
    assert read(place) == [*EVENTS, Stopping(after(9), "kept")]


def test_it_is_read_while_it_is_written(place):
    writer = Journal(place, epoch=2)
    reader = Journal(place)
    writer.extend([Stopping(after(9), "new")])
    assert len(reader.events()) == len(EVENTS) + 1
    writer.extend([Halted(after(9), "newer")])
    assert reader.events(after=len(EVENTS) + 1) == [Halted(after(9), "newer")]
    reader.close()
    writer.close()


def test_without_a_lease_nothing_is_written(place):
    reader = Journal(place)
    with pytest.raises(LeaseError, match="stops writing"):
        reader.extend([Stopping(START, "x")])
    reader.close()
    assert read(place) == EVENTS


def make_and_die(path: Path, lines: int) -> None:
    """Make a journal and be killed so many traced lines later."""

    def die(frame, event, argument):
        nonlocal lines
        lines -= 1
        if lines < 0:
            os._exit(9)
        return die

    sys.settrace(die)
    Journal(path, epoch=1)


def test_a_journal_whose_maker_was_killed_is_whole_or_not_there(tmp_path):
    for lines in range(40):
        path = tmp_path / f"{lines}" / "journal.db"
        path.parent.mkdir()
        process = FORK.Process(target=make_and_die, args=(path, lines))
        process.start()
        process.join()
        assert not path.exists() or read(path) == []
        Journal(path, epoch=2).close()
        assert read(path) == [] and not list(path.parent.glob(".*"))


# The lease


def driver_of(state: Path) -> int | None:
    driver = holder(state)
    return driver and driver.pid


def hold(state: Path, seconds: float) -> None:
    with lease(state):
        time.sleep(seconds)


@pytest.fixture
def held(tmp_path):
    """A process that holds the lease of tmp_path/state."""
    process = FORK.Process(target=hold, args=(tmp_path / "state", 30))
    process.start()
    until(lambda: driver_of(tmp_path / "state") == process.pid)
    yield process
    process.kill()
    process.join()


def test_a_second_lease_is_refused_soon_and_names_the_holder(tmp_path, held):
    begun = time.monotonic()
    with (
        pytest.raises(LeaseError, match=f"process {held.pid} is already running") as caught,
        lease(tmp_path / "state"),
    ):
        pass
    assert time.monotonic() - begun < 2
    assert caught.value.exit_code == 6


def test_a_killed_holder_holds_nothing(tmp_path, held):
    held.kill()
    held.join()
    assert holder(tmp_path / "state") is None
    with lease(tmp_path / "state") as epoch:
        assert epoch == 2 and driver_of(tmp_path / "state") == os.getpid()


def test_the_epoch_rises(tmp_path):
    epochs = []
    for _ in range(3):
        with lease(tmp_path / "state") as epoch:
            epochs.append(epoch)
    assert epochs == [1, 2, 3] and holder(tmp_path / "state") is None


def test_state_and_lease_are_for_their_user_alone(tmp_path):
    with lease(tmp_path / "state"):
        assert ((tmp_path / "state").stat().st_mode & 0o777, (tmp_path / "state/lease").stat().st_mode & 0o777) == (
            0o700,
            0o600,
        )


def take_and_write(path: Path, times: int) -> None:
    """Take the lease again and again; write a fact with each epoch, last of all with the first one."""
    journals = []
    while len(journals) < times:
        try:
            with lease(path.parent) as epoch:
                journals.append(Journal(path, epoch=epoch))
                journals[-1].extend([Stopping(after(9), f"{epoch}")])
        except LeaseError:
            time.sleep(0.001)
    for journal in journals[:-1]:
        with pytest.raises(LeaseError):
            journal.extend([Stopping(after(9), "stale")])


def test_two_that_race_for_the_lease_write_one_after_the_other(place):
    racers = [FORK.Process(target=take_and_write, args=(place, 50)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    told = [event.why for event in read(place)[len(EVENTS) :]]
    assert sorted(map(int, told)) == [int(why) for why in told] and len(set(told)) == 100


def test_who_only_asks_does_not_keep_a_run_from_starting(tmp_path):
    """Asking locks for a moment; a run that comes just then must not believe another one."""
    state = tmp_path / "state"
    with lease(state):
        pass
    asking = [FORK.Process(target=ask_forever, args=(state,)) for _ in range(2)]
    for process in asking:
        process.start()
    try:
        for _ in range(50):
            with lease(state):
                pass
    finally:
        for process in asking:
            process.kill()
            process.join()


def ask_forever(state: Path) -> None:
    while True:
        holder(state)
        time.sleep(0.001)


def test_a_stale_epoch_writes_nothing(place):
    stale, fresh = Journal(place, epoch=2), Journal(place, epoch=3)
    with pytest.raises(LeaseError, match="another run took"):
        stale.extend([Stopping(after(9), "stale")])
    fresh.extend([Stopping(after(9), "fresh")])
    stale.close()
    fresh.close()
    assert read(place)[-1] == Stopping(after(9), "fresh")


def test_also_without_its_file_the_epoch_rises(place):
    stale, fresh = Journal(place, epoch=1), Journal(place, epoch=1)
    assert fresh.epoch > stale.epoch
    with pytest.raises(LeaseError):
        stale.extend([Stopping(after(9), "stale")])
    stale.close()
    fresh.close()


@pytest.mark.parametrize("text", [b"", b"12", b"x y", b"\xff\xfe 3\n"])
def test_a_damaged_lease_is_taken_all_the_same(tmp_path, text):
    state = tmp_path / "state"
    state.mkdir()
    (state / "lease").write_bytes(text)
    assert holder(state) is None
    with lease(state) as epoch:
        assert epoch >= 1 and driver_of(state) == os.getpid()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(SpecError, match=r"cannot write in .* Not a directory"),
        lease(tmp_path / "file" / "state"),
    ):
        pass


# Damage


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + 64] = bytes(255 - byte for byte in data[at : at + 64])
    path.write_bytes(data)


def execute(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


DAMAGE = {
    "garbage": lambda path: path.write_bytes(b"this is no database, whatever its name says" * 100),
    "header": lambda path: flip(path, 0),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a flipped page": lambda path: flip(path, 4096),
    "a row that is no JSON": lambda path: execute(path, "UPDATE events SET body = '{' WHERE seq = 3"),
    "a row of no event": lambda path: execute(path, """UPDATE events SET body = '{"kind": "Odd"}' WHERE seq = 3"""),
    "a newer format": lambda path: execute(path, "PRAGMA user_version = 99"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_journal_is_refused_with_its_path(place, damage):
    damage(place)
    with pytest.raises(JournalError) as caught:
        RunFolder(place.parent.parent).read()
    assert str(place) in str(caught.value) and caught.value.exit_code == STATE_DAMAGED
    with pytest.raises(JournalError):
        Journal(place, epoch=9).events()


def test_a_newer_format_says_to_upgrade(place):
    execute(place, "PRAGMA user_version = 99")
    with pytest.raises(JournalError, match=r"newer gridsweep \(format 99, this one reads 2\); upgrade"):
        Journal(place)


# A full disk


def write_until_full(path: Path, limit: int) -> None:
    """Exits with the number of batches that were kept."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    journal = Journal(path, epoch=2)
    for count in range(200):
        try:
            journal.extend([Decided(START, "e00", None, "x" * 2000), Decided(START, "e01", None, "y" * 2000)])
        except StorageError as error:
            assert "cannot write" in str(error) and "nothing is lost" in str(error)
            os._exit(count)
    os._exit(250)


def test_on_a_full_disk_it_says_so_and_keeps_whole_batches(place):
    process = FORK.Process(target=write_until_full, args=(place, 300_000))
    process.start()
    process.join()
    assert 0 < process.exitcode < 200
    assert len(read(place)) == len(EVENTS) + 2 * process.exitcode
    again = Journal(place, epoch=3)
    again.extend([Stopping(after(9), "space again")])
    again.close()
    assert read(place)[-1] == Stopping(after(9), "space again")


def test_on_a_full_disk_no_lease_is_taken(tmp_path):
    def attempt() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            hold(tmp_path / "state", 0)
        except SpecError as error:
            os._exit(7 if "File too large" in str(error) else 8)

    process = FORK.Process(target=attempt)
    process.start()
    process.join()
    assert process.exitcode == 7


def test_a_sweep_survives_the_journal_whole(tmp_path):
    sweep = make_sweep(2, finish_by=timedelta(hours=9))
    journal = Journal(tmp_path / "journal.db", epoch=1)
    journal.extend([Submitted(START, sweep, timedelta(minutes=10))])
    assert journal.events() == [Submitted(START, sweep, timedelta(minutes=10))]
    journal.close()


# A folder that is moved while it is written


@pytest.mark.parametrize("way", ["moved", "deleted", "replaced"])
def test_a_journal_that_is_no_longer_there_stops_its_run(place, way):
    with closing(Journal(place, epoch=2)) as journal:
        if way == "moved":
            place.parent.rename(place.parent.with_name("elsewhere"))
        elif way == "deleted":
            shutil.rmtree(place.parent)
        else:
            shutil.copytree(place.parent, place.parent.with_name("copy"))
            shutil.rmtree(place.parent)
            place.parent.with_name("copy").rename(place.parent)
        for events in ([], [Stopping(after(9), "too late")]):  # also where there is nothing to say
            with pytest.raises(JournalError, match=r"was moved, deleted or replaced while this run drove it; run it"):
                journal.extend(events)


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda handle, how: None)
    with (
        pytest.raises(SpecError, match=r"keeps no locks, so a second run would not be kept out; put the folder on"),
        lease(tmp_path / "state"),
    ):
        pass


def watch(state: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        holder(state)


def test_watchers_that_poll_never_refuse_a_run(tmp_path):
    state = tmp_path / "state"
    with lease(state):
        pass
    watchers = [FORK.Process(target=watch, args=(state,)) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(10):
            with lease(state):
                pass
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.join()


def change_and_die(path: Path) -> None:
    """Change the file without a WAL, and be killed before it is committed, with half of it on disk."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size=1")
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE events SET body = body || 'xxxxxxxxxxxxxxxxxxxxxxxx'")
    os._exit(9)


def test_a_run_that_was_killed_before_the_log_was_switched_on_leaves_a_journal_that_is_read(tmp_path):
    """As it is on its way from creation to its first commit."""
    path = tmp_path / "journal.db"
    texts = [(event.at.isoformat(), event.kind, codec.dumps(event)) for event in EVENTS * 20]
    rows = [(number, *text) for number, text in enumerate(texts, 1)]
    chain.write_head(path, len(rows), list(chain.linked(rows))[-1][1])
    create(path, rows)
    process = FORK.Process(target=change_and_die, args=(path,))
    process.start()
    process.join()
    assert path.with_name("journal.db-journal").exists()
    assert read(path) == EVENTS * 20
