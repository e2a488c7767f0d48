"""The chain over a journal's rows: each row holds a digest over itself and the digest of the row before it.

A changed, removed or moved row no longer fits to what follows. The chain shows damage, not forgery: who can write the
file can make a new chain. That rows are missing at the end shows only in the head, which is kept beside the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gridsweep.records.bounded import whole
from gridsweep.records.disk import DISK, patiently
from gridsweep.records.files import replace_file

BEGIN = hashlib.sha256(b"the journal of a gridsweep run").hexdigest()
"""The digest before the first row."""

Row = tuple[int, str, str, str]
"""A row of the journal: its number, and the time, the kind and the body of its fact."""


class Broken(ValueError):
    """A row does not fit to the rows before it; `seq` is its number."""

    def __init__(self, seq: object, why: str):
        super().__init__(why)
        self.seq = seq


def link(before: str, row: Row) -> str:
    """Return the digest of a row after the digest `before`."""
    seq, at, kind, body = row
    return hashlib.sha256(f"{before}\n{seq}\n{at}\n{kind}\n{body}".encode()).hexdigest()


def linked(rows: Iterable[Row], before: str = BEGIN) -> Iterator[tuple[Row, str]]:
    """Yield each row with its digest."""
    for row in rows:
        before = link(before, row)
        yield row, before


def checked(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[Row, str]]:
    """Yield each row with its digest, of rows that hold their digest last; None there in rows written before 0.2.0.

    All rows of a journal are wanted, from the first on. Raise `Broken` at the first that does not fit.
    """
    before, chained = BEGIN, False
    for number, (seq, at, kind, body, digest) in enumerate(rows, 1):
        if not (seq == number and isinstance(at, str) and isinstance(kind, str) and isinstance(body, str)):
            raise Broken(number, "a row is missing, or holds no fact")
        row = (number, at, kind, body)
        before = link(before, row)
        if digest != before and (digest is not None or chained):
            raise Broken(number, "it was changed, or one before it" if not chained else "it was changed")
        chained = chained or digest is not None
        yield row, before


def write_head(journal: Path, count: int, digest: str) -> None:
    """Keep the number of rows and the last digest beside the journal."""
    replace_file(head_of(journal), f"{count} {digest}\n")


def head(journal: Path) -> tuple[int, str] | None:
    """Return the number of rows and the last digest as kept beside the journal; None if nothing readable is there.

    Raise `OSError` if the disk fails, which says nothing of the file.
    """
    try:
        count, digest = patiently(lambda: whole(head_of(journal), 200)).decode().split()
        return (int(count), digest) if int(count) >= 0 else None
    except PermissionError:
        return None
    except OSError as error:
        if error.errno in DISK:
            raise
        return None
    except ValueError:
        return None


def missing(head: tuple[int, str] | None, links: Sequence[str]) -> int | None:
    """Return how many rows are missing at the end, by the head; `links` are the digests of the rows that are there.

    None if the rows are others than those that the head was written for. A head may be behind, after a crash.
    """
    if head is None:
        return 0
    count, digest = head
    if count > len(links):
        return count - len(links)
    return 0 if [BEGIN, *links][count] == digest else None


def head_of(journal: Path) -> Path:
    return journal.with_name("journal.head")
