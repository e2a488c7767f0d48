"""The journal: an append-only file of facts (SQLite), and the lease that lets one run write it.

    state/  journal.db    the events, in order, chained         journal.head  how many they are, and the last digest
            lease         held by flock while a run drives the folder

Events are committed with WAL and synchronous=FULL: after `extend` returns, they survive a crash and a power cut.
"""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from gridsweep.errors import (
    GridsweepError,
    IncompleteWarning,
    JournalError,
    LeaseError,
    MovedError,
    StorageError,
    word,
)
from gridsweep.records import chain, snapshot
from gridsweep.records.disk import PAUSES
from gridsweep.records.facts import event_of, text_of
from gridsweep.records.files import sync
from gridsweep.records.opening import LARGEST_EPOCH, VERSION, check_files, flaw, gone, mending, readable
from gridsweep.state.events import Event

DAMAGED = (sqlite3.Error, UnicodeError)
"""What SQLite raises on a damaged file; the second if its own words hold the damage."""
OF_DISK = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
)
SURE = 3
"""Readings after which damage is believed."""
SHORT_READ = sqlite3.SQLITE_IOERR_SHORT_READ
"""The file ends within a page."""
_TABLES = """
CREATE TABLE events
    (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, chain TEXT);
CREATE TABLE lease (epoch INTEGER NOT NULL);
"""


class Journal:
    """The facts of one sweep. Writable if opened with the epoch of a lease, else read-only.

    A journal that is opened for writing is read once, to check it; `fold` then gets its facts.
    """

    def __init__(self, path: Path, *, epoch: int | None = None, fold: Callable[[Event], None] | None = None):
        self.path, self.epoch = path, epoch
        self._end = 0, chain.BEGIN
        self._inode = 0
        self._whole, self._folded = True, 0
        refused, damaged = None, 0
        for pause in PAUSES:
            try:
                self._open(path, fold, writable=epoch is not None)
                return
            except (*DAMAGED, OSError, JournalError) as error:
                if hasattr(self, "_db"):
                    self._db.close()
                # A read that the disk refuses may look like damage, which is believed only where the disk refused none.
                if _of_disk(error):
                    refused = error
                else:
                    damaged += 1
                if not pause or (damaged == SURE and refused is None):
                    why = refused or error
                    raise why if isinstance(why, JournalError) else fault_of(path, why) from None
            time.sleep(pause)

    def _open(self, path: Path, fold: Callable[[Event], None] | None, *, writable: bool) -> None:
        check_files(path)
        if writable and not path.exists():
            if lost := gone(path):
                raise lost
            chain.write_head(path, 0, chain.BEGIN)  # before the journal: from its first row on, it has a head
            create(path)
        # Before the rows are read: a run that writes them meanwhile has the newer head.
        self._kept = chain.head(path)
        self._seen = snapshot.told(path) if self._kept is None else None
        if not writable:
            self._db = readable(path)
            self._check()
            return
        self._db = sqlite3.connect(path, isolation_level=None)
        self._check()
        if self._chained and self._kept is None:
            raise JournalError(
                f"{path.with_name('journal.head')} is missing or damaged; whether events are missing at the end of the "
                "journal cannot be told",
                remedy=f"restore the file from a backup, or make a new one with `gridsweep repair "
                f"{word(path.parent.parent)}`",
            )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._take_over(fold)

    def _check(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(
                f"{self.path} was written by a newer gridsweep (format {version}, this one reads {VERSION}); "
                f"upgrade, or if none did, run `gridsweep repair {word(self.path.parent.parent)}`"
            )
        self._chained = version >= 2
        if what := flaw(self.path, self._db):
            raise JournalError(f"{self.path} is damaged: {what}", remedy=mending(self.path))

    def _take_over(self, fold: Callable[[Event], None] | None) -> None:
        """Make this run the one that writes, and the format the newest; find the end of the chain."""
        if not self._chained:
            links = [digest for _, digest in self._checked()]
            self._kept = len(links), links[-1] if links else chain.BEGIN
            chain.write_head(self.path, *self._kept)  # before there is a chain
        self._db.execute("BEGIN IMMEDIATE")
        (last,) = self._db.execute("SELECT max(epoch) FROM lease").fetchone()
        # The lease file may have been lost, or this number damaged; it is written anew at once.
        known = isinstance(last, int) and 0 <= last < LARGEST_EPOCH
        self.epoch = max(self.epoch or 0, last + 1 if known else 1)
        self._db.execute("DELETE FROM lease")
        self._db.execute("INSERT INTO lease VALUES (?)", (self.epoch,))
        if not self._chained:
            self._db.execute("ALTER TABLE events ADD COLUMN chain TEXT")
            self._db.execute(f"PRAGMA user_version={VERSION}")
            self._chained = True
        self._db.execute("COMMIT")
        self._inode = self.path.stat().st_ino
        for row in self._rows():
            if fold is not None and row[0] > self._folded:  # a try that the disk broke off may have folded some
                fold(event_of(self.path, row))
                self._folded = row[0]
        chain.write_head(self.path, *self._end)

    def extend(self, events: Iterable[Event]) -> None:
        """Append facts atomically and durably.

        Raise `LeaseError` if another run has taken over the folder, `JournalError` if a fact would be read back as
        another one, `MovedError` if the journal's folder was moved or replaced, and write nothing then.
        """
        self._check_place()
        texts = [(event.at.isoformat(), event.kind, text_of(event)) for event in events]
        count, before = self._end
        rows = list(chain.linked(((count + n, *text) for n, text in enumerate(texts, 1)), before))
        if not rows:
            return
        for pause in PAUSES:
            try:
                if not self._whole:
                    self._db = sqlite3.connect(self.path, isolation_level=None)
                self._insert(rows)
                self._whole = True
                break
            except sqlite3.Error as error:
                self._whole = False
                self._db.close()  # one that met a fault may be read-only from then on, or hold half a change
                if not pause:
                    raise (_unwritable if _of_disk(error) else fault_of)(self.path, error) from None
            time.sleep(pause)
        self._end = rows[-1][0][0], rows[-1][1]
        try:
            chain.write_head(self.path, *self._end)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def _insert(self, rows: Sequence[tuple[chain.Row, str]]) -> None:
        """Commit rows with their digests; nothing if a try that met a fault has committed them all the same."""
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("BEGIN IMMEDIATE")
        last = self._db.execute("SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        if last == (rows[-1][0][0], rows[-1][1]):
            self._db.execute("ROLLBACK")
            return
        (epoch,) = self._db.execute("SELECT epoch FROM lease").fetchone()
        if epoch != self.epoch:
            self._db.execute("ROLLBACK")
            raise LeaseError(f"another run took over {self.path.parent.parent}; this run stops writing")
        self._db.executemany(
            "INSERT INTO events (seq, at, kind, body, chain) VALUES (?, ?, ?, ?, ?)",
            [(*row, digest) for row, digest in rows],
        )
        self._db.execute("COMMIT")

    def _check_place(self) -> None:
        """Raise `JournalError` if another file, or none, is where the journal was opened."""
        try:
            same = not self._inode or self.path.stat().st_ino == self._inode
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except OSError as error:
            raise _unwritable(self.path, error) from None
        if not same:
            raise MovedError(
                f"{self.path.parent.parent} was moved, deleted or replaced while this run drove it",
                remedy="run it where it is now; work since the last checkpoints is done again",
            )

    def events(self, after: int = 0) -> list[Event]:
        """Return the facts after a sequence number, in order. Raise `JournalError` if the chain shows damage."""
        return list(self.each(after))

    def each(self, after: int = 0) -> Iterator[Event]:
        """Yield the facts after a sequence number, in order, so that they are never all in memory.

        Raise `JournalError` if the chain shows damage, which may be after the last fact: what was made of the facts is
        then of no use.
        """
        try:
            for row in self._rows():
                if row[0] > after:
                    yield event_of(self.path, row)
        except DAMAGED as error:
            raise fault_of(self.path, error) from None

    @property
    def end(self) -> tuple[int, str]:
        """The number of rows and the last digest, as last read or written."""
        return self._end

    def _rows(self) -> Iterator[chain.Row]:
        """Yield all rows, checked; then know the end. Raise `JournalError` if they do not fit, or fit to no head."""
        links: list[str] = []
        for row, digest in self._checked():
            links.append(digest)
            yield row
        missing = chain.missing(self._kept or self._seen, links) if self._chained else 0
        if missing:
            raise JournalError(
                f"{self.path}: its last {missing} of {len(links) + missing} events are missing",
                remedy=mending(self.path),
            )
        if missing is None:
            other = "journal.head" if self._kept else "snapshot.json"
            raise JournalError(f"{self.path}: the rows do not fit to {other}", remedy=mending(self.path))
        if self._chained and self._kept is None:
            warnings.warn(
                f"{self.path.with_name('journal.head')} is missing or damaged: events may be missing at the end of the "
                f"journal; `gridsweep repair {word(self.path.parent.parent)}` makes it anew",
                IncompleteWarning,
                stacklevel=2,
            )
        self._end = len(links), links[-1] if links else chain.BEGIN

    def _checked(self) -> Iterator[tuple[chain.Row, str]]:
        try:
            yield from chain.checked(stored(self._db, chained=self._chained))
        except chain.Broken as error:
            raise JournalError(
                f"{self.path}: event {error.seq} is damaged: {error}", remedy=mending(self.path)
            ) from None

    def close(self) -> None:
        self._db.close()


def stored(db: sqlite3.Connection, *, chained: bool) -> sqlite3.Cursor:
    """Return a cursor over all rows as they are stored, in order, each with its digest."""
    return db.execute(f"SELECT seq, at, kind, body, {'chain' if chained else 'NULL'} FROM events ORDER BY seq")


def create(path: Path, rows: Iterable[chain.Row] = ()) -> None:
    """Create a journal atomically: a reader cannot repair a partial one whose run was killed.

    It is written without WAL, so that all of it is in one file, synced, opened again and checked, then renamed. Raise
    `JournalError` if it cannot be written, or is not read back as it was written.
    """
    draft = path.with_name(f".{path.name}")
    written = [(*row, digest) for row, digest in chain.linked(rows)]
    try:
        for left in path.parent.glob(f".{path.name}*"):
            left.unlink()
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")
            db.execute("BEGIN")
            db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", written)
            db.execute("COMMIT")
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            fine = db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            if not fine or stored(db, chained=True).fetchall() != written:
                raise JournalError(f"{path} was not written as it should be; is the disk damaged?")
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.rename(path)
        sync(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: sqlite3.Error | OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error}; free disk space or make the file writable, then run again: nothing is lost"
    )


def fault_of(path: Path, error: Exception) -> GridsweepError:
    """Return the error for a journal that cannot be opened or read: a disk that fails is no damaged file."""
    if _of_disk(error):
        return StorageError(
            f"cannot open {path}: {error}",
            remedy="free disk space, or see why the disk or its permissions forbid it, then run again: nothing is lost",
        )
    return JournalError(f"{path} cannot be read as a journal: {error}", remedy=mending(path))


def _of_disk(error: Exception) -> bool:
    """Return whether an error comes from the disk and not from what is in the file."""
    if isinstance(error, OSError):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in OF_DISK and code != SHORT_READ  # a read that the disk refuses is called CORRUPTFS
