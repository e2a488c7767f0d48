"""Forecasts of a grid zone's carbon intensity: one or more paths on a regular time grid."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np

from gridsweep.carbon.traces import DAY, Column, Trace


class Forecast:
    """A forecast issued at one moment: a point forecast, equally likely paths around it, and past errors.

    `paths` has shape (paths, slots), gCO2eq/kWh, and may be a function. `point` has shape (slots,) and is the best
    single estimate; the mean path by default. `past` returns the values that earlier forecasts of this kind expected
    and the observed values, both of shape (issues, slots), NaN where unknown. Functions are called once, on first use.
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
        """Equally likely paths, shape (paths, slots)."""
        return self._paths() if callable(self._paths) else self._paths

    @cached_property
    def mean(self) -> Trace:
        """The point forecast as a trace."""
        return Trace(self.start, self.step, self.paths.mean(axis=0) if self._point is None else self._point)

    @cached_property
    def past(self) -> tuple[Column, Column]:
        """Expected and observed values of earlier issues, shapes (issues, slots); no rows if unknown."""
        empty = np.empty((0, len(self.mean)))
        return self._past() if self._past else (empty, empty)

    @cached_property
    def error(self) -> Column:
        """The mean relative error of earlier issues at each lead, shape (slots,); NaN if too few are known."""
        expected, came = self.past
        known = np.isfinite(expected) & np.isfinite(came) & (came > 0)
        count = known.sum(axis=0)
        wrong = np.divide(np.abs(came - expected), came, out=np.zeros(known.shape), where=known).sum(axis=0)
        error: Column = np.divide(wrong, count, out=np.full(len(count), np.nan), where=count >= FEWEST)
        return error

    @property
    def typical_error(self) -> float:
        """The mean relative error of earlier issues on their first day; NaN if too few are known."""
        day = self.error[1 : 1 + -(-DAY // self.step)]
        known = day[np.isfinite(day)]
        return float(known.mean()) if len(known) else float("nan")

    def band(self, low: float = 0.1, high: float = 0.9) -> tuple[Trace, Trace]:
        """Return bounds at the `low` and `high` quantiles of past errors at the same lead, around the point forecast.

        With fewer than a week of known errors, the spread of the paths is used; with a single path it is zero.
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
"""The smallest number of known errors at a lead to state an error for it."""


def _quantile(rows: Column, share: float) -> Column:
    """Return the quantile of the known values of each column (Weibull plotting position)."""
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
