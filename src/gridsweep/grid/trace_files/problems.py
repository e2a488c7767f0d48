"""What is wrong with a file, and how it is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime

from gridsweep.errors import FileFault, TraceError

SHOWN = 10
LONGEST = 60
TIME, VALUE, QUALITY, UNIT = "timestamp", "carbon_intensity", "quality", "unit"


class Problems:
    """The first ten problems of a file are kept, all are counted; `place` is what its rows are found by."""

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
        """Raises `TraceError` if there are any, in the order of the file."""
        if self.count:
            ordered = sorted(self.shown, key=lambda problem: problem[0])
            texts = [self.at(row, what) for row, what in ordered]
            more = self.count - len(texts)
            problem = "problem" if more == 1 else "problems"
            text = "\n".join(texts + ([f"and {more} more {problem}"] if more else []))
            raise TraceError(text, faults=[self._fault(row, what) for row, what in ordered])

    def at(self, row: int, what: str) -> str:
        """The text of one problem: `grid.csv:3: ...`, `grid.parquet: row 3: ...`; row 0 is the file as a whole."""
        if not row:
            return f"{self.path}: {what}"
        return f"{self.path}:{row}: {what}" if self.place == "line" else f"{self.path}: {self.place} {row}: {what}"

    def error(self, what: str, row: int = 0) -> TraceError:
        """For a problem that leaves nothing more to read."""
        return TraceError(self.at(row, what), faults=[self._fault(row, what)])

    def _fault(self, row: int, what: str) -> FileFault:
        """One problem by its place; of a file without lines the row is its key."""
        if self.place == "line":
            return FileFault(self.path, row or None, "", what)
        return FileFault(self.path, None, f"{self.place} {row}" if row else "", what)


def shown(cell: object) -> str:
    """What a cell holds, cut and printable, so that no file can fill or steer a screen."""
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
    """A time in UTC, as short as it can be written without loss."""
    if moment.microsecond:
        return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z" if moment.second else f"{moment:%Y-%m-%dT%H:%M}Z"


def column_faults(names: Sequence[str], wanted: Iterable[str] = (TIME, VALUE)) -> list[str]:
    """What is wrong with the names of the columns: one missing, or there twice."""
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
