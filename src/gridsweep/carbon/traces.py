"""Carbon intensity over time, in gCO2eq/kWh: traces of observed values, their integrals, means and percentiles.

A column of values has a regular time grid: slot `i` is the half-open `[start + i*step, start + (i+1)*step)`.
An unknown value is NaN and stays unknown; it is never filled in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import isfinite

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.spans import DAY as DAY
from gridsweep.carbon.spans import HOUR as HOUR

Column = npt.NDArray[np.float64]

POUNDS_PER_MWH = 0.45359237
"""One lb/MWh in gCO2eq/kWh: a pound is 453.59237 g, a MWh 1,000 kWh."""


MICROSECOND = timedelta(microseconds=1)
HOUR_US = HOUR / MICROSECOND


def or_none(level: float) -> float | None:
    """Return a level for storage or display, None if it is unknown. `or_nan` reads such levels back."""
    return level if isfinite(level) else None


def or_nones(levels: Column) -> tuple[float | None, ...]:
    """Return `or_none` of every level."""
    values = levels.tolist()
    return tuple(values) if np.isfinite(levels).all() else tuple(map(or_none, values))


def or_nan(levels: Sequence[float | None]) -> Column:
    """Return the column of such levels, NaN for None."""
    return np.array(levels, dtype=np.float64)


def utc(moment: datetime) -> datetime:
    """Return the same instant as aware UTC. Raises `ValueError` for a naive time, whose instant is unknown."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write {moment.isoformat()}Z for UTC")
    return moment.astimezone(UTC)


def ceil_to(moment: datetime, step: timedelta) -> datetime:
    """Return the first multiple of `step` since 1970 that is strictly after `moment`."""
    return moment + step - (moment - _EPOCH) % step


def floor_to(moment: datetime, step: timedelta) -> datetime:
    """Return the last multiple of `step` since 1970 that is not after `moment`."""
    return moment - (moment - _EPOCH) % step


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Exposure:
    """The intensity over a window: `level_hours` is the integral of its known part, gCO2eq/kWh x h."""

    level_hours: float
    known: timedelta
    unknown: timedelta


class Trace:
    """Observed carbon intensity, one value per slot.

    `values` has shape (slots,), gCO2eq/kWh, NaN where unknown; parts of a trace share its values without a copy.
    """

    def __init__(self, start: datetime, step: timedelta, values: Sequence[float] | Column):
        if step <= timedelta(0):
            raise ValueError(f"a slot cannot last {step}; give a positive step")
        self.start = utc(start)
        self.step = step
        self.values: Column = np.asarray(values, dtype=np.float64)
        self._ranked: tuple[object, Column] | None = None

    @property
    def end(self) -> datetime:
        """The end of the last slot."""
        return self.start + len(self.values) * self.step

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.start.isoformat()}, {self.step}, {len(self)} slots)"

    def index(self, moment: datetime) -> int:
        """Return the number of the slot that holds `moment`, which may lie outside the trace."""
        return (moment - self.start) // self.step

    def at(self, moment: datetime) -> float:
        """Return the intensity at an instant, NaN if unknown."""
        i = (moment - self.start) // self.step
        return float(self.values[i]) if 0 <= i < len(self.values) else float("nan")

    def between(self, start: datetime, end: datetime) -> Trace:
        """Return the slots that overlap `[start, end)`, as a view."""
        first = max(0, self.index(start))
        last = min(len(self.values), -((self.start - end) // self.step))
        return Trace(self.start + first * self.step, self.step, self.values[first : max(first, last)])

    def percentile(self, percent: float, end: datetime, span: timedelta) -> float:
        """Return the given percentile of the known slots in `span` before `end`; NaN if none is known.

        Interpolated between slots, as numpy does.
        """
        key = (self.index(end - timedelta(microseconds=1)), span)
        if self._ranked is None or self._ranked[0] != key:
            window = self.between(end - span, end).values
            self._ranked = (key, np.sort(window[np.isfinite(window)]))
        known = self._ranked[1]
        if not len(known):
            return float("nan")
        place = (len(known) - 1) * percent / 100
        low = int(place)
        high = min(low + 1, len(known) - 1)
        return float(known[low] + (known[high] - known[low]) * (place - low))

    def known(self, start: datetime, end: datetime) -> timedelta:
        """Return how much of `[start, end)` is known."""
        return self.exposure(start, end).known

    @cached_property
    def _sums(self) -> tuple[list[float], list[float]]:  # lists: a hundred thousand segments look up single values
        known = np.isfinite(self.values)
        hours = self.step / HOUR
        level = np.concatenate(([0.0], np.cumsum(np.where(known, self.values, 0.0)) * hours))
        return level.tolist(), np.concatenate(([0.0], np.cumsum(known) * hours)).tolist()

    def _upto(self, moment: datetime) -> tuple[float, float]:
        level, known = self._sums
        position = (moment - self.start) / self.step
        if position <= 0:
            return 0.0, 0.0
        i = int(position)
        if i >= len(self.values):
            return level[-1], known[-1]
        part = position - i
        return level[i] + part * (level[i + 1] - level[i]), known[i] + part * (known[i + 1] - known[i])

    def exposure(self, start: datetime, end: datetime) -> Exposure:
        """Return the exact integral over `[start, end)`, with the value constant within each slot."""
        (level_a, known_a), (level_b, known_b) = self._upto(start), self._upto(end)
        known = min(end - start, timedelta(hours=known_b - known_a))
        return Exposure(level_b - level_a, known, (end - start) - known)

    def exposures(self, windows: Sequence[tuple[datetime, datetime]]) -> list[Exposure]:
        """Return the `exposure` of many windows, to the last digit the same, in a fraction of the time."""
        if not len(self.values) or not windows:
            return [self.exposure(start, end) for start, end in windows]
        at = np.array([((a - self.start) / self.step, (b - self.start) / self.step) for a, b in windows])
        sums = np.array(self._sums)  # level and known, up to the begin of each slot
        slot = np.clip(at.astype(np.int64), 0, len(self.values) - 1)
        upto = sums[:, slot] + (at - slot) * (sums[:, slot + 1] - sums[:, slot])
        upto = np.where(at >= len(self.values), sums[:, -1:, None], np.where(at <= 0, 0.0, upto))
        level, known = (upto[:, :, 1] - upto[:, :, 0]).tolist()
        found = []
        for (start, end), met, hours in zip(windows, level, known, strict=True):
            span = end - start
            seen = span if abs(hours * HOUR_US - span / MICROSECOND) < 0.4 else min(span, timedelta(hours=hours))
            found.append(Exposure(met, seen, span - seen))
        return found

    def mean(self, start: datetime, end: datetime) -> float:
        """Return the mean over the known part of `[start, end)`; the value at `start` for an empty window."""
        if end <= start:
            return self.at(start)
        seen = self.exposure(start, end)
        return seen.level_hours / (seen.known / HOUR) if seen.known else float("nan")
