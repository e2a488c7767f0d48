"""The status from a snapshot is that of the whole journal; what does not fit is ignored, and damage is told."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gridsweep
from builders import DAYS, START, after, make_sweep, real_sweep, rehearsed
from gridsweep.errors import JournalError, SpecError
from gridsweep.policy.gates import Threshold
from gridsweep.records import snapshot
from gridsweep.records.journal import Journal
from gridsweep.render import documents
from gridsweep.render.answers import status_of
from gridsweep.runs import glances
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.glances import Keeper, glance_at, keep, standing_at
from gridsweep.state.events import Decided, Stopping
from gridsweep.state.glance import glance
from gridsweep.state.state import State
from gridsweep.testing.stand_in import STAND_IN

EVENTS = rehearsed(make_sweep(5, devices=2), DAYS, Threshold())[1]


def made(folder: Path, rows: int = len(EVENTS), cut: int = len(EVENTS)) -> RunFolder:
    """A folder with the first `rows` of the events, and a snapshot of the first `cut`."""
    place = RunFolder(folder / "run")
    shutil.rmtree(place.path, ignore_errors=True)
    place.state.mkdir(parents=True)
    for some in (EVENTS[:cut], EVENTS[cut:rows]):
        with closing(Journal(place.journal, epoch=1)) as journal:
            journal.extend(some)
            end = journal.end
        if some is not EVENTS[cut:rows] and end[0] == cut:
            keep(place.journal, State(EVENTS[:cut]), end)
    return place


def whole(place: RunFolder) -> tuple[object, str]:
    """The status by the whole journal."""
    state = place.read()
    return glance(state), documents.text(status_of(state, place.path, None))


def told(place: RunFolder) -> tuple[object, str]:
    """The status as it is told."""
    return glance_at(place), documents.text(status_of(standing_at(place), place.path, None))


def live(place: RunFolder) -> Journal:
    """A journal that is written: its last rows are in the log beside it."""
    return Journal(place.journal, epoch=2)


def trap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make reading the whole journal an error."""
    monkeypatch.setattr(RunFolder, "read_to", lambda self: pytest.fail("the whole journal was read"))


@pytest.mark.parametrize("cut", [1, 2, 7, len(EVENTS) - 1, len(EVENTS)])
def test_later_rows_are_folded_on_while_a_run_writes(tmp_path, cut, monkeypatch):
    place = RunFolder(tmp_path)
    place.state.mkdir()
    with closing(Journal(place.journal, epoch=1)) as journal:
        journal.extend(EVENTS[:cut])
        keep(place.journal, State(EVENTS[:cut]), journal.end)
        journal.extend(EVENTS[cut:])
        expected = whole(place)
        trap(monkeypatch)
        assert told(place) == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, len(EVENTS)), st.integers(1, len(EVENTS)))
def test_any_cut_gives_the_status_of_the_whole_journal(tmp_path, one, other):
    place = made(tmp_path, max(one, other), min(one, other))
    assert told(place) == whole(place)


def test_at_rest_a_snapshot_is_enough(tmp_path, monkeypatch):
    place = made(tmp_path)
    expected = whole(place)
    trap(monkeypatch)
    assert told(place) == expected


def test_who_reads_a_whole_journal_leaves_a_snapshot(tmp_path, monkeypatch):
    place = made(tmp_path, cut=3)
    snapshot.snapshot_of(place.journal).unlink()
    expected = told(place)
    trap(monkeypatch)
    assert told(place) == expected


def test_with_many_later_rows_a_new_snapshot_is_written(tmp_path, monkeypatch):
    place = made(tmp_path, cut=3, rows=3)
    with closing(live(place)) as journal:
        keep(place.journal, State(EVENTS[:3]), journal.end)
        journal.extend(EVENTS[3:])
        monkeypatch.setattr(glances, "LATER", 5)
        expected = told(place)
        found = snapshot.fitting(place.journal)
        assert found is not None and found.count == len(EVENTS) and not found.later
        trap(monkeypatch)
        assert told(place) == expected


def test_a_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    place = made(tmp_path, cut=3)
    expected = whole(place)
    monkeypatch.setattr(snapshot, "keep", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    assert told(place) == expected


@pytest.mark.parametrize("change", ["gridsweep", "format", "glance", "frozen", "digest", "count"])
def test_a_snapshot_of_something_else_is_ignored(tmp_path, change):
    place = made(tmp_path)
    expected, path = whole(place), snapshot.snapshot_of(place.journal)
    head, *rest = path.read_bytes().split(b"\n")
    said = json.loads(head)
    other = {"gridsweep": gridsweep.__version__ + "x", "format": 0, "count": said["count"] - 1}.get(change, "0" * 64)
    path.write_bytes(b"\n".join((json.dumps({**said, change: other}).encode(), *rest)))
    assert told(place) == expected


@pytest.mark.parametrize("text", [b"", b"\n\n", b"{}\n{}\n{}", b"null\nnull\nnull", b"\xff\xfe", b"[" * 9000])
def test_a_snapshot_that_is_none_is_ignored(tmp_path, text):
    place = made(tmp_path)
    expected = whole(place)
    snapshot.snapshot_of(place.journal).write_bytes(text)
    assert told(place) == expected
    snapshot.snapshot_of(place.journal).unlink()
    snapshot.snapshot_of(place.journal).symlink_to("/dev/zero")
    assert told(place) == expected


def test_flipped_bits_of_a_snapshot_never_change_the_status(tmp_path):
    place, dice = made(tmp_path), random.Random(5)
    expected, path = whole(place), snapshot.snapshot_of(place.journal)
    text = path.read_bytes()
    for _ in range(150):
        changed = bytearray(text)
        changed[dice.randrange(len(text))] ^= 1 << dice.randrange(8)
        path.write_bytes(changed)
        assert told(place) == expected


def test_flipped_bits_of_a_journal_are_told_or_change_nothing(tmp_path):
    place, dice = made(tmp_path), random.Random(6)
    expected = whole(place)
    kept, text = snapshot.snapshot_of(place.journal).read_bytes(), place.journal.read_bytes()
    silent = 0
    for _ in range(150):
        changed = bytearray(text)
        changed[dice.randrange(len(text))] ^= 1 << dice.randrange(8)
        place.journal.write_bytes(changed)
        snapshot.snapshot_of(place.journal).write_bytes(kept)
        try:
            found = told(place)
        except (JournalError, SpecError):
            continue
        assert found == expected
        silent += 1
        assert whole(place) == expected, "the whole journal would have told it"
    assert silent < 150


def test_rows_that_are_cut_or_changed_while_a_run_writes_are_told(tmp_path):
    for what in ("DELETE FROM events WHERE seq > 8", "DELETE FROM events WHERE seq = 2", "DELETE FROM events"):
        place = made(tmp_path)
        with closing(live(place)):
            with sqlite3.connect(place.journal) as db:
                db.execute(what)
            db.close()
            with pytest.raises(JournalError):
                glance_at(place)
    place = made(tmp_path)
    with closing(live(place)) as journal:
        journal.extend([Decided(after(1), "e00", None, "x"), Stopping(after(1), "y")])
        with sqlite3.connect(place.journal) as db:
            db.execute("UPDATE events SET body = replace(body, 'y', 'z') WHERE seq = ?", (len(EVENTS) + 2,))
        db.close()
        with pytest.raises(JournalError, match="is damaged"):
            glance_at(place)


def test_a_journal_that_is_put_in_the_place_of_another_is_read(tmp_path):
    place = made(tmp_path / "a")
    other = made(tmp_path / "b", rows=9, cut=9)
    shutil.copyfile(other.journal, place.journal)
    shutil.copyfile(other.journal.with_name("journal.head"), place.journal.with_name("journal.head"))
    assert glance_at(place) == glance(State(EVENTS[:9]))


def test_a_run_keeps_snapshots_while_it_waits_and_at_its_end(tmp_path, monkeypatch):
    place = RunFolder(tmp_path)
    place.state.mkdir()
    state, keeper = State(), Keeper(place.journal)
    with closing(Journal(place.journal, epoch=1)) as journal:
        for n, event in enumerate(EVENTS, 1):
            state.apply(event)
            journal.extend([event])
            keeper.rested(state, journal.end)
            found = snapshot.fitting(place.journal)
            assert found is not None and found.count == 1 and len(found.later) == n - 1
        state.apply(Stopping(START, "not journaled"))
        keeper.rested(state, journal.end, last=True)
        found = snapshot.fitting(place.journal)
        assert found is not None and found.count == 1, "a state ahead of the journal is not kept"


def test_a_finished_run_is_told_from_its_snapshot(tmp_path, monkeypatch):
    from builders import real_sweep
    from gridsweep.runs import run as runs

    runs.run(real_sweep(2), tmp_path / "run", command=STAND_IN)
    place = RunFolder(tmp_path / "run")
    expected = whole(place)
    trap(monkeypatch)
    assert told(place) == expected
    assert glance_at(place).ended == 2


def test_status_of_the_newest_run_reads_no_journal_where_a_snapshot_fits(tmp_path, monkeypatch):
    runs.run(real_sweep(1), tmp_path / "runs/x", command=STAND_IN)
    monkeypatch.chdir(tmp_path)
    words = (
        "import sys; from gridsweep.cli import cli; cli(['status'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('numpy', 'pydantic', 'gridsweep.state.state')))"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "1 done" in done.stdout
