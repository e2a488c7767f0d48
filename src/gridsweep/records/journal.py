"""The journal: an append-only file of facts (SQLite), and the lease that lets one run write it.

    state/  journal.db  the events, in order      lease  held by flock while a run drives the folder

Events are committed with WAL and synchronous=FULL: what `extend` returned from survives a crash and a power cut.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from gridsweep.errors import JournalError, LeaseError, SpecError
from gridsweep.records import codec
from gridsweep.records.attempts import sync
from gridsweep.state.events import Event

VERSION = 1
LOOKS = 10
"""Who asks for the holder locks the lease for a moment: a run that finds it locked looks again so often."""
_EVENT = Annotated[Event, Field(discriminator="kind")]
_TABLES = """
CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE lease (epoch INTEGER NOT NULL);
"""


class Journal:
    """One sweep's facts. Opened with a lease's epoch it can be extended, without one it can only be read."""

    def __init__(self, path: Path, *, epoch: int | None = None):
        self.path, self.epoch = path, epoch
        try:
            if epoch is None:
                self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
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
            self.epoch = max(self.epoch, (last or 0) + 1)  # also where the lease's file was lost
            self._db.execute("DELETE FROM lease")
            self._db.execute("INSERT INTO lease VALUES (?)", (self.epoch,))
            self._db.execute("COMMIT")

    def extend(self, events: Iterable[Event]) -> None:
        """Append facts, all or none, durably. Raises `LeaseError` when another run has taken the folder."""
        rows = [(event.at.isoformat(), event.kind, codec.dumps(event)) for event in events]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            (epoch,) = self._db.execute("SELECT epoch FROM lease").fetchone()
            if epoch != self.epoch:
                self._db.execute("ROLLBACK")
                raise LeaseError(f"another run took {self.path.parent.parent} over; this one writes nothing more")
            self._db.executemany("INSERT INTO events (at, kind, body) VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _unwritable(self.path, error) from None

    def events(self, after: int = 0) -> list[Event]:
        """The facts after a sequence number, in order."""
        try:
            rows = self._db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (after,)).fetchall()
        except sqlite3.Error as error:
            raise _damaged(self.path, error) from None
        events: list[Event] = []
        for seq, body in rows:
            try:
                events.append(codec.loads(_EVENT, body))  # type: ignore[arg-type]
            except ValidationError as error:
                what = error.errors()[0]
                raise JournalError(f"{self.path}: event {seq} cannot be read: {what['msg']} at {what['loc']}") from None
        return events

    def close(self) -> None:
        self._db.close()


def _create(path: Path) -> None:
    """An empty journal, there whole or not at all: who only reads cannot mend one whose run was killed meanwhile."""
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


def _unwritable(path: Path, error: sqlite3.Error) -> JournalError:
    return JournalError(
        f"cannot write {path}: {error}; free some space or make it writable, then run again: nothing is lost"
    )


def _damaged(path: Path, error: sqlite3.Error) -> JournalError:
    return JournalError(f"{path} cannot be read as a journal: {error}; restore the file, or move its folder away")


@contextmanager
def lease(state: Path) -> Iterator[int]:
    """Hold the folder for one run; the value is the epoch, one higher at each acquisition.

    Raises `LeaseError` while another process holds it, and `SpecError` when the folder cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, epoch = _take(state)
    except OSError as error:
        raise SpecError(
            f"cannot write in {state}: {error.strerror}; put that right, or choose another folder with --folder"
        ) from None
    try:
        yield epoch
    finally:
        os.close(handle)


def _take(state: Path) -> tuple[int, int]:
    """The locked file and its new epoch."""
    handle = os.open(state / "lease", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(handle):
            pid = holder(state)
            who = f"process {pid}" if pid else "another process"
            raise LeaseError(
                f"{who} is already running the sweep in {state.parent}; watch it with `gridsweep status --watch "
                f"{state.parent}`, or end it with `gridsweep stop {state.parent}`"
            )
        text = os.pread(handle, 64, 0).split()
        epoch = int(text[1]) + 1 if len(text) == 2 and text[1].isdigit() else 1
        os.ftruncate(handle, os.pwrite(handle, f"{os.getpid()} {epoch}\n".encode(), 0))
    except BaseException:
        os.close(handle)
        raise
    return handle, epoch


def _lock(handle: int) -> bool:
    for _ in range(LOOKS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def holder(state: Path) -> int | None:
    """The process that holds the lease; None when nobody does."""
    try:
        handle = os.open(state / "lease", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 64, 0).split()
        return int(text[0]) if text and text[0].isdigit() else None
    else:
        return None
    finally:
        os.close(handle)
