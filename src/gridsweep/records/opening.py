"""Opening a journal: the kinds of the files in its folder, whether it is gone, its header and its tables.

SQLite opens whatever bears the name: it would wait for a pipe's writer, and read a device without end. A view in place
of a table, or a header that SQLite does not write, shows only when a run writes; here it shows at once.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

from gridsweep.errors import JournalError, word
from gridsweep.records import chain, snapshot
from gridsweep.records.bounded import regular
from gridsweep.records.disk import patiently

VERSION = 2
"""Version 1 had no chain. A journal that is written to gets one; its old rows are covered by the first new row."""
BESIDE = ("-wal", "-shm", "-journal")
"""Ends of the names of files that SQLite keeps beside a journal."""
COPIES = 5
"""Tries to copy a journal that is written meanwhile."""
LARGEST_EPOCH = 2**62
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
COLUMNS = ("seq", "at", "kind", "body")
MAGIC = b"SQLite format 3\0"


def check_files(journal: Path) -> None:
    """Raise `JournalError` if a journal, or a file that belongs to it, is there and no regular file (or a link to one).

    What cannot be looked at is left to what opens it.
    """
    for name in (journal.name, *(journal.name + end for end in BESIDE), "lease", chain.head_of(journal).name):
        path = journal.with_name(name)
        try:
            mode = patiently(path.stat, lambda error: not isinstance(error, PermissionError)).st_mode
            what = KINDS.get(stat.S_IFMT(mode), "" if stat.S_ISREG(mode) else "a special file")
        except OSError as error:
            what = "a link that leads nowhere" if error.errno == errno.ELOOP else ""
        if not what:
            continue
        if path == journal:
            remedy = "move it away, and restore the file from a backup"
        else:
            remedy = f"move it away, then run `gridsweep verify {word(journal.parent.parent)}`"
        raise JournalError(f"{path} is {what}, no regular file", remedy=remedy)


def gone(journal: Path) -> JournalError | None:
    """Return the error for a journal that is gone, by what lies beside it; None if it is there, or never held a fact.

    A head of no rows is written before the journal is: it says that no run has begun.
    """
    if journal.exists():
        return None
    head, seen = chain.head(journal), snapshot.told(journal)
    rows = max(head[0] if head else 0, seen[0] if seen else 0)
    if not rows and (head is not None or not os.path.lexists(chain.head_of(journal))):
        return None
    held = f"it held {rows} events" if rows else "journal.head beside it cannot be read"
    return JournalError(
        f"{journal} is missing: {held}",
        remedy="restore it from a backup, or begin anew in another folder with --folder; finished adapters are in "
        f"{journal.parent.parent / 'store' / 'experiments'}",
    )


def mending(path: Path) -> str:
    """Return what to do about a damaged journal."""
    return f"restore the file from a backup, or keep what is whole with `gridsweep repair {word(path.parent.parent)}`"


def chained(db: sqlite3.Connection) -> bool:
    """Return whether the rows of a journal have a column for their digest."""
    return "chain" in _columns(db, "events")


def flaw(path: Path, db: sqlite3.Connection) -> str:
    """Return what is wrong with a journal's pages, header or tables, "" if nothing is; its rows are not looked at."""
    (fine,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if fine != "ok":
        return str(fine)
    with regular(path, follow=True) as file:
        header = patiently(lambda: os.pread(file.fileno(), 20, 0))
    if header and (header[:16] != MAGIC or not {*header[18:20]} <= {1, 2}):
        return "its header is not one that SQLite writes"
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not 1 <= version <= VERSION:
        return f"it says that it has format {version}; there are 1 and {VERSION}"
    there = db.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'").fetchall()
    if sorted(there) != [("table", "events"), ("table", "lease")]:
        return f"it holds {', '.join(sorted(f'the {kind} {name}' for kind, name in there)) or 'no table'}"
    columns = (*COLUMNS, "chain")[: len(COLUMNS) + version - 1]
    if _columns(db, "events") != columns or _columns(db, "lease") != ("epoch",):
        return "its tables are not those of its format"
    return ""


def unfit_lease(db: sqlite3.Connection) -> str:
    """Return what is wrong with the table of the lease, "" if nothing is; a run writes a number that is none anew."""
    epochs = [epoch for (epoch,) in db.execute("SELECT epoch FROM lease LIMIT 2")]
    if len(epochs) > 1 or not all(isinstance(epoch, int) and 0 <= epoch < LARGEST_EPOCH for epoch in epochs):
        return "the number of its lease is damaged"
    return ""


def _columns(db: sqlite3.Connection, table: str) -> tuple[str, ...]:
    return tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})"))


def readable(path: Path) -> sqlite3.Connection:
    """Open a journal for reading, from a copy in memory if its folder does not allow SQLite's own files beside it.

    Raise `JournalError` if it is no regular file.
    """
    check_files(path)
    try:
        return _read_only(path)
    except sqlite3.OperationalError:
        if os.access(path.parent, os.W_OK, effective_ids=True):
            # A run that was killed while it switched the WAL on has left a change to be undone, which takes a writer.
            with closing(sqlite3.connect(path)) as db:
                db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return _read_only(path)
        if not os.access(path, os.R_OK, effective_ids=True):
            raise
        return _copied(path)


def _read_only(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        db.close()
        raise
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
