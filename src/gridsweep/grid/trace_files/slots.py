"""Rows on a regular time grid: rows off the grid, duplicate or out of order are problems of the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import DAY, HOUR, Trace
from gridsweep.grid.trace_files.problems import VALUE, Problems, iso

SHORTEST, LONGEST = timedelta(minutes=1), DAY


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace and the quality of its slots.

    Each entry of `qualities` holds from its moment on; the first moment is the start of the trace. `qualities` is empty
    if the file does not state any.
    """

    trace: Trace
    qualities: tuple[tuple[datetime, Quality], ...] = ()


class Slots:
    """Collector of the rows of a file, added one by one in file order."""

    def __init__(self, problems: Problems):
        self.problems = problems
        self._rows: dict[datetime, int] = {}
        self._values: list[float] = []
        self._qualities: list[Quality | None] = []
        self._unsure: set[int] = set()
        self._lost = False
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._span: timedelta | None = None

    def add(self, row: int, moment: datetime | None, value: float, quality: Quality | None = None) -> None:
        """Add a row; `value` is NaN if unknown. A known value without a quality counts as measured.

        For a row without a moment, only its presence is kept: a gap before the next row is not reported as missing.
        """
        if moment is None:
            self._lost = True
            return
        if moment in self._rows:
            place = f"{self.problems.place} {self._rows[moment]}"
            self.problems.add(row, f"{iso(moment)} is there already, in {place}; keep one")
            return
        if moment < self._latest:
            self.problems.add(row, f"{iso(moment)} comes after {iso(self._latest)}; order the rows by time")
        else:
            self._latest = moment
        self._rows[moment] = row
        self._values.append(value)
        self._qualities.append(quality)
        if self._lost:
            self._unsure.add(row)
            self._lost = False

    def lasts(self, row: int, span: timedelta) -> None:
        """Record the slot length that the row states."""
        if self._span is None:
            self._span = span
        elif span != self._span:
            self.problems.add(row, f"its slot lasts {span}, and those before it {self._span}; use one step")

    def recording(self) -> Recording:
        """Return the rows as a trace. Raises `TraceError` with the problems of the file."""
        step = self._step()
        if not self.problems.count and not any(value == value for value in self._values):
            self.problems.add(min(self._rows.values()), f"no row has a `{VALUE}`; fill the column")
        self.problems.check()
        column = np.array(self._values)
        column.setflags(write=False)
        return Recording(Trace(next(iter(self._rows)), step, column), self._stretches())

    def _stretches(self) -> tuple[tuple[datetime, Quality], ...]:
        """Return the start and quality of each run; an unknown value without a quality belongs to the run before it."""
        if not any(self._qualities):
            return ()
        found: list[tuple[datetime, Quality]] = []
        start = next(iter(self._rows))
        for moment, value, given in zip(self._rows, self._values, self._qualities, strict=True):
            if given is None and value != value:
                continue
            quality = given or "measured"
            if not found or found[-1][1] != quality:
                found.append((moment if found else start, quality))
        return tuple(found)

    def _step(self) -> timedelta:
        """Return the length of a slot: the one that the rows state, or else the most common distance between them."""
        rows, problems = self._rows, self.problems
        if len(rows) < 2 and not (rows and self._span):
            if not problems.count:
                what = "has no rows" if not rows else "has a single row, which does not say how long a slot is"
                problems.add(max(rows.values(), default=1 if problems.place == "line" else 0), f"{what}; add rows")
            return HOUR
        moments = sorted(rows)
        steps = Counter(b - a for a, b in pairwise(moments))
        step = self._span or max(steps, key=lambda span: (steps[span], -span))
        if not SHORTEST <= step <= LONGEST:
            problems.add(
                rows[moments[0]], f"its slot would last {step}; give slots of a minute to a day, each with its mean"
            )
        elif steps.keys() - {step}:
            self._check_steps(moments, step)
        return step

    def _check_steps(self, moments: list[datetime], step: timedelta) -> None:
        """Report every distance other than `step` as a problem, unless an unreadable row lies in between."""
        for a, b in pairwise(moments):
            row = self._rows[b]
            missing, rest = divmod(b - a, step)
            if b - a == step or row in self._unsure:
                continue
            if rest:
                how = "slots last" if self._span else "most are"
                apart = step if self._span else f"{step} apart"
                self.problems.add(row, f"{iso(b)} is {b - a} after the row before, and {how} {apart}; use one step")
                continue
            first, last = iso(a + step), iso(b - step)
            span = first if missing == 2 else f"{first} to {last}"
            self.problems.add(
                row,
                f"{missing - 1} {'row is' if missing == 2 else 'rows are'} missing before it: {span}; "
                "add them, with an empty value where it is unknown",
            )
