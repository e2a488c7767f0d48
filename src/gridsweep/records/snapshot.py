"""A snapshot of a fold, kept beside the journal: what `status` shows, without folding the whole journal again.

    state/  snapshot.json    a line each: of which rows, in which format; a glance; the frozen state

The journal is the truth, and a snapshot only spares work. It is used if it is whole, of this version and format, and
fits to the journal that is there:

- the journal's head and the snapshot's last row are in the journal, each with its digest;
- at rest, the journal's file is the one that was folded, byte by byte: damage to any row is still found;
- while a run writes it, or after one that was killed, all rows are there and later rows are chained to the snapshot's.

Anything else, a journal of before 0.2.0 included, is as if there were no snapshot, and never an error: the whole
journal is then read, and tells its own damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON

from gridsweep import __version__
from gridsweep.records import chain
from gridsweep.records.bounded import MEBIBYTE, regular
from gridsweep.records.files import file_digest

FORMAT = 2
"""To be raised whenever the same events give another glance or another frozen state."""
LIMIT = 256 * MEBIBYTE
"""The longest line of a snapshot that is read."""
UNFIT = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, sqlite3.Error)
"""What a snapshot or a journal that is not as it should be raises."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that fits to the journal: its glance, the rows after it, and where its frozen state begins.

    `end` is the number of the journal's rows with the last digest, `rest` the digest of the frozen state.
    """

    path: Path
    count: int
    glance: Mapping[str, Any]
    later: tuple[chain.Row, ...]
    end: tuple[int, str]
    rest: str
    offset: int

    def frozen(self) -> bytes | None:
        """Return the frozen state as JSON; None if it is not as it was written."""
        try:
            with regular(self.path) as file:
                file.seek(self.offset)
                text = file.read(LIMIT)
        except (OSError, ValueError):
            return None
        return text if _digest(text) == self.rest else None


def snapshot_of(journal: Path) -> Path:
    return journal.with_name("snapshot.json")


def keep(journal: Path, count: int, digest: str, glance: Mapping[str, Any], frozen: str) -> None:
    """Write the snapshot of the first `count` rows, the last with this digest. Raise `OSError` if it cannot be written.

    It is not synced: a snapshot that a power cut damages is ignored.
    """
    seen, rest = json.dumps(glance).encode(), frozen.encode()
    head = {
        "format": FORMAT,
        "gridsweep": __version__,
        "count": count,
        "digest": digest,
        "file": file_digest(journal) if _at_rest(journal) else "",
        "glance": _digest(seen),
        "frozen": _digest(rest),
    }
    path = snapshot_of(journal)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(b"\n".join((json.dumps(head).encode(), seen, rest)))
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def told(journal: Path) -> tuple[int, str] | None:
    """Return of how many rows the snapshot beside a journal is, of whatever version, and the last one's digest.

    None without one that can be read: it says how much there was where the journal's head is lost.
    """
    with suppress(*UNFIT):
        with regular(snapshot_of(journal)) as file:
            said = json.loads(file.readline(4096))
        count, digest = said["count"], said["digest"]
        if isinstance(count, int) and count > 0 and isinstance(digest, str):
            return count, digest
    return None


def fitting(journal: Path) -> Snapshot | None:
    """Return the snapshot beside a journal if it is whole and fits to it, else None."""
    path = snapshot_of(journal)
    with suppress(*UNFIT):
        with regular(path) as file:
            first, second = file.readline(4096), file.readline(LIMIT)
            offset = file.tell()
        said = json.loads(first)
        seen = second.removesuffix(b"\n")
        if said["format"] != FORMAT or said["gridsweep"] != __version__ or _digest(seen) != said["glance"]:
            return None
        count, digest, whole = said["count"], said["digest"], said["file"]
        if (rest := _at_rest(journal)) and file_digest(journal) != whole:
            return None  # other bytes than those that were folded: perhaps more rows, perhaps damage
        found = _later(journal, count, digest, whole=rest)
        if found is not None:
            return Snapshot(path, count, json.loads(seen), *found, said["frozen"], offset)
    return None


def _later(
    journal: Path, count: int, digest: str, *, whole: bool
) -> tuple[tuple[chain.Row, ...], tuple[int, str]] | None:
    """Return the rows after the first `count`, and the journal's end; None unless `count` rows end with this digest.

    The rows are counted, unless the journal is known to be `whole`.
    """
    head = chain.head(journal)  # before the rows, as everywhere: a run that writes meanwhile has the newer head
    if head is None or not isinstance(count, int) or count < 1 or not journal.is_file():
        return None
    with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("BEGIN")  # one view of the journal, whatever a run adds meanwhile
        (rows,) = db.execute(f"SELECT {'max(seq)' if whole else 'count(*)'} FROM events").fetchone()
        found = db.execute(
            "SELECT seq, at, kind, body, chain FROM events WHERE seq >= ? ORDER BY seq", (max(1, count - 1),)
        ).fetchall()
        (kept,) = db.execute("SELECT chain FROM events WHERE seq = ?", (head[0],)).fetchone() or ("",)
    if rows < max(count, head[0]) or kept != head[1] or not found or found[-1][0] != rows:
        return None
    before = found.pop(0)[4] if count > 1 else chain.BEGIN
    for number, (*row, link) in enumerate(found, count):
        if row[0] != number or not all(isinstance(part, str) for part in row[1:]):
            return None
        before = chain.link(before, (row[0], row[1], row[2], row[3]))
        if link != before or (number == count and before != digest):
            return None
    return tuple((row[0], row[1], row[2], row[3]) for row in found[1:]), (rows, before)


def _at_rest(journal: Path) -> bool:
    """Return whether all of a journal is in its main file: no log beside it holds any of it."""
    try:
        return journal.with_name(f"{journal.name}-wal").stat().st_size == 0
    except FileNotFoundError:
        return True


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
