"""A disk that fails for a moment, for longer, or for good."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from builders import (
    DAYS,
    PATIENT,
    START,
    after,
    attempts,
    driven,
    lines,
    losses,
    make_sweep,
    real_sweep,
    rehearsed,
)
from gridsweep.errors import EXECUTOR, MovedError, StorageError
from gridsweep.executors.handover import news
from gridsweep.executors.publisher import Publisher
from gridsweep.policy.gates import Threshold
from gridsweep.records import disk
from gridsweep.records.attempts import AttemptFolder, Progress, Result, now
from gridsweep.records.files import create_file, remove, replace_file
from gridsweep.records.journal import Journal
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.mending import verify
from gridsweep.schedule.step import step
from gridsweep.state.events import Ended, Halted, Lost, Requested, Resumed, Stopping, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint
from gridsweep.testing.stand_in import STAND_IN

STINT = Stint((Member("e00", 0, 6),))
ATTEMPT = f"{STINT.id}/1"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def failing(monkeypatch, name: str, times: int, error: int = errno.EIO) -> list[int]:
    """Let the first calls of a function of `os` fail; return the list that grows by one for each call."""
    real, calls = getattr(os, name), []

    def call(*arguments, **options):
        calls.append(1)
        if len(calls) <= times:
            raise OSError(error, os.strerror(error), str(arguments[0]))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)
    return calls


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.ESTALE])
def test_a_call_that_fails_for_a_moment_is_made_again(tmp_path, monkeypatch, error):
    failing(monkeypatch, "rename", disk.TRIES - 1, error)
    replace_file(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text" and names(tmp_path) == ["a"]


def test_a_call_that_goes_on_failing_raises_what_the_disk_said(tmp_path, monkeypatch):
    calls = failing(monkeypatch, "rename", 99, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "a", "text")
    assert len(calls) == disk.TRIES and not names(tmp_path)


def test_an_error_that_is_not_the_disks_is_raised_at_once(tmp_path, monkeypatch):
    calls = failing(monkeypatch, "rename", 99, errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "a", "text")
    assert len(calls) == 1


def test_a_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    """A disk with room for half a line takes half of it before it says that it is full."""
    folder, real = AttemptFolder(tmp_path), os.write
    line = Progress(START, "training", 1, {"e00": 1.0})
    folder.append(line)
    begun = (tmp_path / "progress.jsonl").read_text()
    monkeypatch.setattr(disk.os, "write", lambda handle, data: _half(real, handle, data))
    with pytest.raises(OSError, match="No space left"):
        folder.append(line)
    assert (tmp_path / "progress.jsonl").read_text() == begun
    monkeypatch.undo()
    folder.append(line)
    assert (tmp_path / "progress.jsonl").read_text() == begun * 2


def _half(write, handle: int, data: memoryview) -> int:
    if len(data) < 40:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(handle, data[: len(data) // 2])


def test_a_second_worker_of_an_attempt_is_refused(tmp_path):
    first = AttemptFolder(tmp_path)
    first.sign_in()
    said = (tmp_path / "worker.json").read_bytes()
    with pytest.raises(FileExistsError):
        AttemptFolder(tmp_path).sign_in()
    assert (tmp_path / "worker.json").read_bytes() == said and names(tmp_path) == ["worker.json"]


def test_a_file_is_created_once_without_hard_links_too(tmp_path, monkeypatch):
    failing(monkeypatch, "link", 99, errno.EOPNOTSUPP)
    create_file(tmp_path / "a", "one")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one" and names(tmp_path) == ["a"]


def test_what_is_left_of_a_removed_folder_does_not_bear_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "2" / "e00"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / name).write_text(name)
    with monkeypatch.context() as patch:
        patch.setattr("gridsweep.records.files.shutil.rmtree", lambda path, ignore_errors: None)  # killed before it
        remove(folder)
    assert [path.name for path in folder.parent.iterdir()] == [".e00.gone"]
    remove(folder)
    assert not names(folder.parent)


# The journal


def events() -> list:
    return rehearsed(make_sweep(2), DAYS, Threshold())[1]


class Flaky(sqlite3.Connection):
    """A connection whose commits fail: before they are made, or after."""

    fails: ClassVar[list[str]] = []

    def execute(self, sql: str, *rest):  # type: ignore[override]  # the same, with another default
        if sql == "COMMIT" and self.fails:
            if self.fails.pop(0) == "after":
                super().execute(sql)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return super().execute(sql, *rest)


@pytest.fixture
def flaky(monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Flaky, **options))
    yield Flaky.fails
    Flaky.fails.clear()


@pytest.mark.parametrize("way", ["before", "after"])
def test_a_commit_that_fails_is_made_once(tmp_path, flaky, way):
    """Also where it was made in spite of its error."""
    path, facts = tmp_path / "journal.db", events()
    with closing(Journal(path, epoch=1)) as journal:
        journal.extend(facts)
        flaky.extend([way] * (disk.TRIES - 1) if way == "before" else [way])
        journal.extend([Stopping(after(99), "enough")])
        journal.extend([Stopping(after(100), "really")])
    with closing(Journal(path)) as journal:
        assert journal.events() == [*facts, Stopping(after(99), "enough"), Stopping(after(100), "really")]


def test_a_disk_that_fails_is_no_damaged_journal(tmp_path, flaky):
    path, facts = tmp_path / "journal.db", events()
    with closing(Journal(path, epoch=1)) as journal:
        journal.extend(facts)
        flaky.extend(["before"] * 99)
        with pytest.raises(StorageError, match="nothing is lost") as caught:
            journal.extend([Stopping(after(99), "enough")])
        assert caught.value.exit_code == EXECUTOR
        with pytest.raises(StorageError):
            Journal(path, epoch=2)
        flaky.clear()
    with closing(Journal(path, epoch=3)) as journal:
        assert journal.events() == facts


def test_a_place_that_cannot_be_looked_at_is_not_moved(tmp_path, monkeypatch):
    """A run whose folder was moved kills its workers; one whose server does not answer lets them work."""
    with closing(Journal(tmp_path / "journal.db", epoch=1)) as journal:

        def stat(path: Path, **_: object) -> os.stat_result:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", stat)
            with pytest.raises(StorageError) as caught:
                journal.extend([])
        assert not isinstance(caught.value, MovedError)
        journal.extend([])


# A worker whose disk fails


def begun() -> list:
    return [Submitted(START, make_sweep(1)), Requested(START, ATTEMPT, STINT, "d0", "")]


def test_a_worker_without_a_disk_is_no_failure_of_its_experiment():
    state = State([*begun(), *(Lost(after(0.1), ATTEMPT, "the disk cannot be used (full)", storage=True),)])
    assert state.standings["e00"].fruitless == 0 and state.standings["e00"].status == "waiting"
    (halted,) = step(state, _nothing, _reading(), after(0.2))
    assert isinstance(halted, Halted) and "the disk cannot be used" in halted.why and not halted.refused
    state.apply(halted)
    state.apply(Resumed(after(0.3), 2, state.sweep))
    assert not state.halted and not state.storage


def test_a_loss_from_before_a_run_says_nothing_of_its_disk():
    state = State([*begun(), Resumed(after(0.1), 2, make_sweep(1))])
    state.apply(Lost(after(0.2), ATTEMPT, "the disk cannot be used (full)", storage=True))
    assert not state.storage and state.standings["e00"].fruitless == 0


class _Nothing:
    def decide(self, situation: object) -> list:
        return []


_nothing = _Nothing()


def _reading():
    from builders import grid

    return grid(*DAYS).read(after(0.2))


@pytest.mark.parametrize("way", ["result", "words"])
def test_a_worker_says_that_its_disk_is_at_fault(tmp_path, way):
    """In its result or, where there is no room for one, as its last words."""
    folder = AttemptFolder(tmp_path / "store" / "stints" / ATTEMPT)
    folder.path.mkdir(parents=True)
    (folder.path / "stint.json").write_text("{}")
    why = disk.unusable(OSError(errno.ENOSPC, "No space left on device"))
    (folder.path / "log.txt").write_text(f"Traceback ...\n{why}\n" if way == "words" else "")
    if way == "result":
        folder.finish(Result(now(), (), why, storage=True))
    state = State(begun())
    (*_, lost) = news(state, state.attempts[ATTEMPT], folder, after(0.5), ended=True)
    assert isinstance(lost, Lost) and lost.storage and "No space left" in lost.why


def test_an_adapter_that_is_not_published_yet_is_not_missing(tmp_path, monkeypatch):
    """A run that ends between an end and its publication leaves the adapter where its worker put it."""
    sweep = real_sweep(1, tiers=PATIENT[:1])
    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", lambda self, state: os._exit(0) if state.count("done") else None)
        driven(sweep, tmp_path).join(30)
    assert any(isinstance(event, Ended) for event in _facts(tmp_path))
    assert verify(tmp_path).faults == () and verify(tmp_path).adapters == 1
    (adapter,) = tmp_path.glob("store/stints/*/*/adapters/e00/adapter_config.json")
    whole = adapter.read_text()
    adapter.write_text("{}")
    assert "is missing" in verify(tmp_path).faults[0]
    adapter.write_text(whole)
    assert runs.run(sweep, tmp_path, command=STAND_IN).exit_code == 0
    assert losses(RunFolder(tmp_path).read())["e00"][0] == "done" and lines(attempts(tmp_path)[0])


def _facts(folder: Path) -> list:
    with closing(Journal(RunFolder(folder).journal)) as journal:
        return list(journal.events())
