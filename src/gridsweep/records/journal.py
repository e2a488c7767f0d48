"""The journal: an append-only file of facts (SQLite), and the lease that lets one run write it.

    state/  journal.db  the events, in order      lease  held by flock while a run drives the folder

Events are committed with WAL and synchronous=FULL: after `extend` returns, they survive a crash and a power cut.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from gridsweep.errors import JournalError, LeaseError
from gridsweep.records import codec
from gridsweep.records.files import sync
from gridsweep.state.events import Event

VERSION = 1
COPIES = 5
"""Tries to copy a journal that is written meanwhile."""
_EVENT = Annotated[Event, Field(discriminator="kind")]
_TABLES = """
CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE lease (epoch INTEGER NOT NULL);
"""


class Journal:
    """The facts of one sweep. Writable if opened with the epoch of a lease, else read-only."""

    def __init__(self, path: Path, *, epoch: int | None = None):
        self.path, self.epoch = path, epoch
        try:
            if epoch is None:
                self._db = _readable(path)
            else:
                if not path.exists():
                    _create(path)
                self._db = sqlite3.connect(path, isolation_level=None)
                self._db.execute("PRAGMA synchronous=FULL")
            self._check()
        except sqlite3.Error as error:
            raise _damaged(path, error) from None

    def _check(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(
                f"{self.path} was written by a newer gridsweep (format {version}, this one reads {VERSION}); upgrade"
            )
        (fine,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if fine != "ok":
            raise JournalError(f"{self.path} is damaged: {fine}; restore the file from a backup")
        if self.epoch is not None:
            self._db.execute("BEGIN IMMEDIATE")
            (last,) = self._db.execute("SELECT max(epoch) FROM lease").fetchone()
            self.epoch = max(self.epoch, (last or 0) + 1)  # the lease file may have been lost
            self._db.execute("DELETE FROM lease")
            self._db.execute("INSERT INTO lease VALUES (?)", (self.epoch,))
            self._db.execute("COMMIT")

    def extend(self, events: Iterable[Event]) -> None:
        """Append facts atomically and durably. Raise `LeaseError` if another run has taken over the folder."""
        rows = [(event.at.isoformat(), event.kind, codec.dumps(event)) for event in events]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            (epoch,) = self._db.execute("SELECT epoch FROM lease").fetchone()
            if epoch != self.epoch:
                self._db.execute("ROLLBACK")
                raise LeaseError(f"another run took over {self.path.parent.parent}; this run stops writing")
            self._db.executemany("INSERT INTO events (at, kind, body) VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _unwritable(self.path, error) from None

    def events(self, after: int = 0) -> list[Event]:
        """Return the facts after a sequence number, in order."""
        try:
            rows = self._db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (after,)).fetchall()
        except sqlite3.Error as error:
            raise _damaged(self.path, error) from None
        events: list[Event] = []
        for seq, body in rows:
            try:
                events.append(codec.loads(_EVENT, body))  # type: ignore[arg-type]  # a union, not a class
            except ValidationError as error:
                what = error.errors()[0]
                raise JournalError(f"{self.path}: event {seq} cannot be read: {what['msg']} at {what['loc']}") from None
        return events

    def close(self) -> None:
        self._db.close()


def _create(path: Path) -> None:
    """Create an empty journal atomically: a reader cannot repair a partial one whose run was killed."""
    for left in path.parent.glob(f".{path.name}*"):
        left.unlink()
    draft = path.with_name(f".{path.name}")
    try:
        db = sqlite3.connect(draft, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(f"{_TABLES} PRAGMA user_version={VERSION};")
        finally:
            db.close()
    except sqlite3.Error as error:
        raise _unwritable(path, error) from None
    draft.rename(path)
    sync(path.parent)


def _readable(path: Path) -> sqlite3.Connection:
    """Open a journal for reading, from a copy in memory if its folder does not allow SQLite's own files beside it."""
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        if os.access(path.parent, os.W_OK, effective_ids=True) or not os.access(path, os.R_OK, effective_ids=True):
            raise
        return _copied(path)
    return db


def _copied(path: Path) -> sqlite3.Connection:
    """Return a journal's content in memory, copied with the changes that are not yet in its main file."""
    for attempt in range(COPIES):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            for suffix in ("", "-wal"):
                if (file := path.with_name(path.name + suffix)).exists():
                    shutil.copyfile(file, copy.with_name(copy.name + suffix))
            db, held = sqlite3.connect(copy), sqlite3.connect(":memory:", isolation_level=None)
            try:
                db.backup(held)
                if held.execute("PRAGMA quick_check(1)").fetchone() == ("ok",) or attempt == COPIES - 1:
                    return held
            finally:
                db.close()
    raise AssertionError("the last copy is returned, whole or not")


def _unwritable(path: Path, error: sqlite3.Error) -> JournalError:
    return JournalError(
        f"cannot write {path}: {error}; free disk space or make the file writable, then run again: nothing is lost"
    )


def _damaged(path: Path, error: sqlite3.Error) -> JournalError:
    return JournalError(f"{path} cannot be read as a journal: {error}; restore the file, or move its folder away")
