"""Carbon intensity over time, in gCO2eq/kWh: traces (what was), forecasts (what is expected), means.

A column of values stands on a regular grid: slot `i` is the half-open `[start + i*step, start + (i+1)*step)`.
An unknown value is NaN and stays unknown; nothing here invents one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import isfinite

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
POUNDS_PER_MWH = 0.45359237
"""In gCO2eq/kWh: a pound is 453.59237 g, a MWh 1,000 kWh."""


def or_none(level: float) -> float | None:
    """A level as values that are kept or shown say it: None where it is unknown. `or_nan` reads them back."""
    return level if isfinite(level) else None


def or_nan(levels: Sequence[float | None]) -> Column:
    """The column of such levels: NaN for None."""
    return np.array(levels, dtype=np.float64)


def utc(moment: datetime) -> datetime:
    """The same instant as aware UTC. Raises `ValueError` for a naive one, whose instant nobody knows."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; write it as {moment.isoformat()}Z")
    return moment.astimezone(UTC)


def ceil_to(moment: datetime, step: timedelta) -> datetime:
    """The first multiple of `step` since 1970 that is strictly after `moment`."""
    return moment + step - (moment - _EPOCH) % step


def floor_to(moment: datetime, step: timedelta) -> datetime:
    """The last multiple of `step` since 1970 that is not after `moment`."""
    return moment - (moment - _EPOCH) % step


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a window met: `level_hours` is the integral of the known intensity (gCO2eq/kWh x h)."""

    level_hours: float
    known: timedelta
    unknown: timedelta


class Trace:
    """Carbon intensity that was observed, one value a slot.

    `values` has shape (slots,), gCO2eq/kWh, NaN where unknown; cutting a trace shares it and never copies.
    """

    def __init__(self, start: datetime, step: timedelta, values: Sequence[float] | Column):
        if step <= timedelta(0):
            raise ValueError(f"a slot must last longer than {step}")
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
        """The number of the slot that holds `moment`; may lie outside the trace."""
        return (moment - self.start) // self.step

    def at(self, moment: datetime) -> float:
        """The intensity at an instant, NaN where unknown."""
        i = (moment - self.start) // self.step
        return float(self.values[i]) if 0 <= i < len(self.values) else float("nan")

    def between(self, start: datetime, end: datetime) -> Trace:
        """The slots that lie in or touch `[start, end)`, as a view."""
        first = max(0, self.index(start))
        last = min(len(self.values), -((self.start - end) // self.step))
        return Trace(self.start + first * self.step, self.step, self.values[first : max(first, last)])

    def percentile(self, percent: float, end: datetime, span: timedelta) -> float:
        """The intensity that so many percent of the known slots in `span` before `end` do not exceed; NaN without any.

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
        """How much of `[start, end)` is known."""
        return self.exposure(start, end).known

    @cached_property
    def _sums(self) -> tuple[Column, Column]:
        known = np.isfinite(self.values)
        hours = self.step / HOUR
        level = np.concatenate(([0.0], np.cumsum(np.where(known, self.values, 0.0)) * hours))
        return level, np.concatenate(([0.0], np.cumsum(known) * hours))

    def _upto(self, moment: datetime) -> tuple[float, float]:
        level, known = self._sums
        position = (moment - self.start) / self.step
        if position <= 0:
            return 0.0, 0.0
        i = int(position)
        if i >= len(self.values):
            return float(level[-1]), float(known[-1])
        part = position - i
        return (
            float(level[i] + part * (level[i + 1] - level[i])),
            float(known[i] + part * (known[i + 1] - known[i])),
        )

    def exposure(self, start: datetime, end: datetime) -> Exposure:
        """The exact integral over `[start, end)` of the value held constant within each slot."""
        (level_a, known_a), (level_b, known_b) = self._upto(start), self._upto(end)
        known = min(end - start, timedelta(hours=known_b - known_a))
        return Exposure(level_b - level_a, known, (end - start) - known)

    def mean(self, start: datetime, end: datetime) -> float:
        """The mean over the known part of `[start, end)`; the value at `start` for an empty window."""
        if end <= start:
            return self.at(start)
        seen = self.exposure(start, end)
        return seen.level_hours / (seen.known / HOUR) if seen.known else float("nan")


class Forecast:
    """What is expected, issued at one moment: a point forecast, equally likely paths around it, and past errors.

    `paths` has shape (paths, slots), gCO2eq/kWh, and may be given as a function. `point` has shape (slots,) and is
    the best single guess; without it that is the mean path. `past` makes what earlier forecasts of this kind
    expected, and what came: both of shape (issues, slots), NaN where unknown. Functions are called once, when asked.
    """

    def __init__(
        self,
        issued_at: datetime,
        start: datetime,
        step: timedelta,
        paths: Column | Callable[[], Column],
        source: str = "forecast",
        point: Column | None = None,
        past: Callable[[], tuple[Column, Column]] | None = None,
    ):
        self.issued_at = issued_at
        self.start = start
        self.step = step
        self.source = source
        self._paths = paths
        self._point = point
        self._past = past

    def __repr__(self) -> str:
        return f"Forecast({self.start.isoformat()}, {self.step}, {len(self.mean)} slots, {self.source!r})"

    @property
    def end(self) -> datetime:
        return self.mean.end

    @cached_property
    def paths(self) -> Column:
        """Equally likely courses, shape (paths, slots)."""
        return self._paths() if callable(self._paths) else self._paths

    @cached_property
    def mean(self) -> Trace:
        """The point forecast, to be read like a trace that came true."""
        return Trace(self.start, self.step, self.paths.mean(axis=0) if self._point is None else self._point)

    @cached_property
    def past(self) -> tuple[Column, Column]:
        """What earlier issues expected, and what came: shapes (issues, slots); without rows where nobody knows."""
        nobody = np.empty((0, len(self.mean)))
        return self._past() if self._past else (nobody, nobody)

    @cached_property
    def error(self) -> Column:
        """The mean share by which earlier issues were wrong at each lead, shape (slots,); NaN with too few known."""
        expected, came = self.past
        known = np.isfinite(expected) & np.isfinite(came) & (came > 0)
        count = known.sum(axis=0)
        wrong = np.divide(np.abs(came - expected), came, out=np.zeros(known.shape), where=known).sum(axis=0)
        error: Column = np.divide(wrong, count, out=np.full(len(count), np.nan), where=count >= FEWEST)
        return error

    @property
    def typical_error(self) -> float:
        """The mean share by which earlier issues were wrong on their first day; NaN where too few are known."""
        day = self.error[1 : 1 + -(-DAY // self.step)]
        known = day[np.isfinite(day)]
        return float(known.mean()) if len(known) else float("nan")

    def band(self, low: float = 0.1, high: float = 0.9) -> tuple[Trace, Trace]:
        """Bounds that such a share of past errors at the same lead stayed below; the point forecast lies within.

        Where fewer than a week of errors is known, the paths' own spread: with a single path, none.
        """
        expected, came = self.past
        wrong, spread, point = came - expected, self.paths - self.mean.values, self.mean.values
        enough = np.isfinite(wrong).sum(axis=0) >= FEWEST
        sides = []
        for share in (low, high):
            off = np.where(enough, _quantile(wrong, share), _quantile(spread, share))
            sides.append(np.maximum(0.0, point + off))
        below, above = np.fmin(sides[0], point), np.fmax(sides[1], point)
        return Trace(self.start, self.step, below), Trace(self.start, self.step, above)


FEWEST = 7
"""So many errors must be known at a lead before anything is said of it."""


def _quantile(rows: Column, share: float) -> Column:
    """By column, over what is known: the level that the next value stays below with this probability (Weibull)."""
    count = np.isfinite(rows).sum(axis=0)
    if not len(rows):
        return np.full(rows.shape[1], np.nan)
    place = np.clip(share * (count + 1) - 1, 0, np.maximum(count - 1, 0))
    ranked = np.sort(rows, axis=0)  # unknown values last
    lower = place.astype(int)
    upper = np.minimum(lower + 1, np.maximum(count - 1, 0))
    at = np.arange(rows.shape[1])
    below, above = ranked[lower, at], ranked[upper, at]
    return np.asarray(below + (above - below) * (place - lower))
