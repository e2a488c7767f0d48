"""Problems of a file, and how they are reported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime

from gridsweep.errors import FileFault, TraceError

SHOWN = 10
LONGEST = 60
TIME, VALUE, QUALITY, UNIT = "timestamp", "carbon_intensity", "quality", "unit"


class Problems:
    """The problems of a file: all are counted, the first ten kept; `place` is the unit of rows, such as `line`."""

    def __init__(self, path: str, place: str = "line"):
        self.path = path
        self.place = place
        self.shown: list[tuple[int, str]] = []
        self.count = 0

    def add(self, row: int, what: str) -> None:
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((row, what))

    def check(self) -> None:
        """Raise `TraceError` with the problems, in the order of the file, if there are any."""
        if self.count:
            ordered = sorted(self.shown, key=lambda problem: problem[0])
            texts = [self.at(row, what) for row, what in ordered]
            more = self.count - len(texts)
            problem = "problem" if more == 1 else "problems"
            text = "\n".join(texts + ([f"and {more} more {problem}"] if more else []))
            raise TraceError(text, faults=[self._fault(row, what) for row, what in ordered])

    def at(self, row: int, what: str) -> str:
        """Return the text of a problem: `grid.csv:3: ...` or `grid.parquet: row 3: ...`; row 0 means the whole file."""
        if not row:
            return f"{self.path}: {what}"
        return f"{self.path}:{row}: {what}" if self.place == "line" else f"{self.path}: {self.place} {row}: {what}"

    def error(self, what: str, row: int = 0) -> TraceError:
        """Return the error for a problem that prevents further reading."""
        return TraceError(self.at(row, what), faults=[self._fault(row, what)])

    def _fault(self, row: int, what: str) -> FileFault:
        """Return one problem with its place; for a file without lines, the key names the row."""
        if self.place == "line":
            return FileFault(self.path, row or None, "", what)
        return FileFault(self.path, None, f"{self.place} {row}" if row else "", what)


def shown(cell: object) -> str:
    """Return a cell as short, printable text, so that a file cannot flood or control the terminal."""
    match cell:
        case list() | dict():
            text = "[…]" if isinstance(cell, list) else "{…}"
        case bool():
            text = str(cell).lower()
        case _:
            text = str(cell)
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode("ascii")


def iso(moment: datetime) -> str:
    """Format a UTC time as short as possible without loss."""
    if moment.microsecond:
        return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z" if moment.second else f"{moment:%Y-%m-%dT%H:%M}Z"


def column_faults(names: Sequence[str], wanted: Iterable[str] = (TIME, VALUE)) -> list[str]:
    """Return the faults of the column names: missing or duplicate columns."""
    faults = []
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            fix = f"rename `{shown(near[0])}`" if near else f"name the columns `{TIME}` and `{VALUE}`"
            faults.append(f"no column is named `{name}`; {fix}")
    for name in (TIME, VALUE, QUALITY, UNIT):
        if names.count(name) > 1:
            faults.append(f"the column `{name}` is there {names.count(name)} times; keep one")
    return faults
