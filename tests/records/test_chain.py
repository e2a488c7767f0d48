"""The chain over a journal's rows, and what of damage it shows."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS, START, after, make_sweep, rehearsed
from gridsweep.errors import IncompleteWarning, JournalError
from gridsweep.policy.gates import Threshold
from gridsweep.records import chain, codec
from gridsweep.records import journal as journal_module
from gridsweep.records.journal import Journal
from gridsweep.records.opening import gone
from gridsweep.records.snapshot import snapshot_of
from gridsweep.state.events import Event, Stopping

EVENTS = rehearsed(make_sweep(3), DAYS, Threshold())[1]
TEXTS = st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=6)


def rows_of(texts: list[tuple[str, str, str]]) -> list[tuple[int, str, str, str, str]]:
    rows = [(number, *text) for number, text in enumerate(texts, 1)]
    return [(*row, digest) for row, digest in chain.linked(rows)]


@given(TEXTS)
def test_a_chain_fits_to_its_rows(texts: list[tuple[str, str, str]]) -> None:
    assert [row for row, _ in chain.checked(rows_of(texts))] == [row[:4] for row in rows_of(texts)]


@given(TEXTS, st.data())
def test_a_row_that_is_changed_moved_or_gone_is_shown(texts: list[tuple[str, str, str]], data: st.DataObject) -> None:
    rows = rows_of([*texts, ("at", "kind", "the last")])
    at = data.draw(st.integers(0, len(rows) - 2))
    way = data.draw(st.sampled_from(["at", "kind", "body", "chain", "gone", "twice"]))
    if way == "gone":
        del rows[at]
    elif way == "twice":
        rows.insert(at, rows[at])
    else:
        column = ["seq", "at", "kind", "body", "chain"].index(way)
        changed = list(rows[at])
        changed[column] = f"{changed[column]}x"
        rows[at] = tuple(changed)  # type: ignore[assignment]
    with pytest.raises(chain.Broken) as caught:
        list(chain.checked(rows))
    assert caught.value.seq in (at + 1, at + 2)


def test_rows_of_before_the_chain_are_covered_by_the_first_that_has_one() -> None:
    rows: list[tuple[object, ...]] = [
        (*row[:4], None if row[0] < 3 else row[4]) for row in rows_of([("a", "b", "c")] * 4)
    ]
    assert len(list(chain.checked(rows))) == 4
    with pytest.raises(chain.Broken, match="it was changed, or one before it") as caught:
        list(chain.checked([(1, "a", "b", "other", None), *rows[1:]]))
    assert caught.value.seq == 3
    with pytest.raises(chain.Broken):  # a digest that is removed later is no row of before
        list(chain.checked([*rows[:3], (*rows[3][:4], None)]))


# In a journal


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "journal.db"
    path.parent.mkdir()
    journal = Journal(path, epoch=1)
    for event in EVENTS:
        journal.extend([event])
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    return path


def read(path: Path) -> list[Event]:
    with closing(Journal(path)) as journal:
        return journal.events()


def test_the_head_is_kept_at_each_commit(place: Path) -> None:
    count, digest = chain.head(place) or (0, "")
    assert count == len(EVENTS) and len(digest) == 64
    with closing(Journal(place, epoch=2)) as journal:
        journal.extend([Stopping(after(9), "enough")])
        assert chain.head(place) == journal._end and journal._end[0] == count + 1


def test_a_tail_that_is_cut_is_told(place: Path) -> None:
    with sqlite3.connect(place) as db:
        db.execute("DELETE FROM events WHERE seq > ?", (len(EVENTS) - 2,))
    db.close()
    with pytest.raises(JournalError, match=rf"its last 2 of {len(EVENTS)} events are missing; .*`gridsweep repair "):
        read(place)
    with pytest.raises(JournalError, match="events are missing"):
        Journal(place, epoch=2)


def test_a_log_that_is_gone_is_told(tmp_path: Path) -> None:
    """A WAL holds what was committed last; copied without it, a journal is an older one."""
    path = tmp_path / "journal.db"
    writer = Journal(path, epoch=1)
    writer.extend(EVENTS)
    copy = tmp_path / "copy" / "journal.db"
    copy.parent.mkdir()
    for name in ("journal.db", "journal.head"):
        shutil.copyfile(tmp_path / name, copy.parent / name)
    with pytest.raises(JournalError, match=f"its last {len(EVENTS)} of {len(EVENTS)} events are missing"):
        read(copy)
    writer.close()
    assert read(path) == EVENTS


def test_without_a_head_the_rows_still_hold_each_other(place: Path) -> None:
    chain.head_of(place).unlink()
    for _ in range(2):
        with pytest.warns(IncompleteWarning, match="journal.head is missing or damaged: events may be missing"):
            assert read(place) == EVENTS
        with pytest.raises(
            JournalError, match=r"journal.head is missing or damaged; .* make a new one with `gridsweep r"
        ):
            Journal(place, epoch=2)
        chain.head_of(place).write_text("nonsense\n")
    assert chain.head(place) is None


@pytest.mark.parametrize(("rows", "told"), [(-2, "its last 2 of"), (0, ""), (None, "do not fit to snapshot.json")])
def test_without_a_head_a_snapshot_says_how_much_there_was(place: Path, rows: int | None, told: str) -> None:
    """Of another version too: only the number of its rows and the last digest count."""
    count, digest = chain.head(place) or (0, "")
    chain.head_of(place).unlink()
    head = {"format": 0, "count": count, "digest": digest if rows is not None else "x"}
    snapshot_of(place).write_text(json.dumps(head) + "\n{}\n{}")
    with closing(sqlite3.connect(place)) as db, db:
        db.execute("DELETE FROM events WHERE seq > ?", (count + (rows or 0),))
    if told:
        with pytest.raises(JournalError, match=told):
            read(place)
    else:
        with pytest.warns(IncompleteWarning):
            assert read(place) == EVENTS


def test_a_journal_has_a_head_from_its_first_moment_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed anywhere within its making or before its first commit, it goes on."""
    path = tmp_path / "journal.db"
    for call in ("create", "_take_over"):

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        owner = journal_module if call == "create" else Journal
        with monkeypatch.context() as patched:
            patched.setattr(owner, call, killed)
            with pytest.raises(KeyboardInterrupt):
                Journal(path, epoch=1)
        assert chain.head(path) == (0, chain.BEGIN) and gone(path) is None
    with closing(Journal(path, epoch=2)) as journal:
        journal.extend(EVENTS)
    assert read(path) == EVENTS


def test_a_journal_of_before_that_is_killed_while_it_gets_its_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    of_before(path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for rows in (0, 1):  # of which call to write the head it dies in
        calls = iter([chain.write_head] * rows + [killed])
        with monkeypatch.context() as patched:
            patched.setattr(chain, "write_head", lambda *given, calls=calls: next(calls)(*given))
            with pytest.raises(KeyboardInterrupt):
                Journal(path, epoch=3)
        assert read(path) == EVENTS
    with closing(Journal(path, epoch=4)) as journal:
        journal.extend([Stopping(START, "chained")])
    assert read(path) == [*EVENTS, Stopping(START, "chained")]


def of_before(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT, kind TEXT, body TEXT NOT NULL)")
        db.execute("CREATE TABLE lease (epoch INTEGER NOT NULL)")
        db.execute("PRAGMA user_version=1")
        bodies = [(event.at.isoformat(), event.kind, codec.dumps(event)) for event in EVENTS]
        db.executemany("INSERT INTO events (at, kind, body) VALUES (?, ?, ?)", bodies)


def test_a_journal_of_before_goes_on_with_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    of_before(path)
    assert read(path) == EVENTS
    with closing(Journal(path, epoch=3)) as journal:
        journal.extend([Stopping(START, "chained")])
    assert read(path) == [*EVENTS, Stopping(START, "chained")]
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        db.execute("UPDATE events SET body = replace(body, 'e00', 'e01') WHERE seq = 3 OR seq = 9")
    db.close()
    with pytest.raises(JournalError, match=rf"event {len(EVENTS) + 1} is damaged: it was changed, or one before it"):
        read(path)


def outcome(path: Path) -> list[Event] | None:
    """What is read; None where damage is told. Anything else that is raised is a fault."""
    try:
        return read(path)
    except JournalError:
        return None


def test_a_thousand_flipped_bits_are_never_silent(place: Path, tmp_path: Path) -> None:
    data, chance, told = place.read_bytes(), random.Random(7), 0
    copy = tmp_path / "flipped" / "journal.db"
    copy.parent.mkdir()
    shutil.copyfile(chain.head_of(place), chain.head_of(copy))
    for _ in range(1000):
        at = chance.randrange(len(data))
        copy.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        found = outcome(copy)
        assert found is None or found == EVENTS, at
        told += found is None
    assert told > 300  # the rest of the file is free


def test_rows_that_are_changed_by_hand_are_told(place: Path, tmp_path: Path) -> None:
    chance = random.Random(11)
    values = [None, 0, -1, 1.5, "", "x", "{}", b"\xff\xfe", "2024-06-10T00:00:00+00:00", "Lost", "\x00", "9" * 5000]
    copy = tmp_path / "changed" / "journal.db"
    copy.parent.mkdir()
    for n in range(300):
        shutil.copyfile(place, copy)
        shutil.copyfile(chain.head_of(place), chain.head_of(copy))
        with closing(sqlite3.connect(copy)) as db, db:
            column = chance.choice(["seq", "at", "kind", "body", "chain"])
            try:
                db.execute(
                    f"UPDATE OR IGNORE events SET {column} = ?1 WHERE seq = ?2 AND {column} IS NOT ?1",
                    (chance.choice(values), chance.randint(1, len(EVENTS))),
                )
            except sqlite3.Error:
                continue
            if not db.execute("SELECT changes()").fetchone()[0]:
                continue
        assert outcome(copy) in (None, EVENTS), n  # the first may lose its digest: it is in the next one's
