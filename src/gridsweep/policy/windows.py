"""The windows in which a stint could run: the intensity over each, and whether a device is free.

Moments are whole microseconds from now, so that a window ends exactly where the next begins. Windows start on ticks
and at the moments given; intensities are in gCO2eq/kWh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import DAY, HOUR, Column, Trace, ceil_to

Moments = npt.NDArray[np.int64]
MOMENT = timedelta(microseconds=1)
AN_HOUR = HOUR // MOMENT
TIE = 1e-9
"""Each later window costs more by this share of the highest level, so that the first of equal windows is chosen."""


class Course:
    """The history followed by a forecast, as a running sum without holes.

    The last day of the forecast repeats beyond its end. `known` is false if nothing is forecast. `level` is the
    highest intensity.
    """

    def __init__(self, history: Trace, path: Trace, now: datetime, since: datetime, until: datetime):
        ahead = path.between(since, until) if path.end >= until else path
        before = history.between(min(since, ahead.start), ahead.start)
        values = np.concatenate([before.values, ahead.values])
        seen = np.isfinite(values)
        self.known = bool(seen[len(before) :].any())
        if self.known and not seen.all():
            values = np.interp(np.arange(len(values)), np.flatnonzero(seen), values[seen])
        wanted = -((ahead.start - until) // ahead.step)
        if 0 < len(ahead) < wanted:
            day = values[-max(1, min(len(ahead), DAY // ahead.step)) :]
            values = np.concatenate([values, np.resize(day, wanted - len(ahead))])
        # The last slot of the history lasts until the forecast begins.
        pieces = (before.start, before.step, len(before)), (ahead.start, ahead.step, len(values) - len(before) + 1)
        edges = [(first - now) / HOUR + step / HOUR * np.arange(n) for first, step, n in pieces]
        self.level = float(np.abs(values).max()) if self.known else 0.0
        self.edges: Column = np.concatenate(edges)
        self.sums: Column = np.concatenate(([0.0], np.cumsum(values * np.diff(self.edges))))

    @property
    def first(self) -> int:
        """The first known moment."""
        return round(float(self.edges[0]) * AN_HOUR)

    def met(self, begins: Moments, ends: Moments) -> Column:
        """Return the integral of the intensity over each window, gCO2eq/kWh x h."""
        upto: Column = np.interp(np.concatenate([ends, begins]) / AN_HOUR, self.edges, self.sums)
        return upto[: len(ends)] - upto[len(ends) :]

    def tilt(self, count: int) -> Column:
        """Return the surcharge for each of `count` windows that makes the earliest of equal windows the cheapest."""
        tilt: Column = TIE * self.level * np.arange(float(count))
        return tilt


def ticks(now: datetime, tick: timedelta, since: datetime, until: datetime, also: Iterable[int] = ()) -> Moments:
    """Return all ticks from `since` to `until`, now, and the moments in `also`, in order."""
    first = ceil_to(since - MOMENT, tick)
    count = max(0, (until - first) // tick + 1)
    regular = (first - now) // MOMENT + tick // MOMENT * np.arange(count, dtype=np.int64)
    return np.unique(np.concatenate([regular, np.array([0, *also], dtype=np.int64)]))


class Calendar:
    """How many of several identical devices are taken, over time."""

    def __init__(self, devices: int, starts: Moments, lengths: Sequence[int], taken: Sequence[int]):
        """`taken` lists, for each device in use, the moment until which it is taken."""
        self.devices = devices
        self.starts = starts
        ends = [starts + length for length in lengths]
        self.edges: Moments = np.unique(np.concatenate([starts, *ends, np.array([0, *taken], dtype=np.int64)]))
        self.count = np.zeros(len(self.edges), dtype=np.int64)
        first = np.searchsorted(self.edges, starts)
        self.cells = {a: (first, np.searchsorted(self.edges, b)) for a, b in zip(lengths, ends, strict=True)}
        for end in taken:
            self.count[: np.searchsorted(self.edges, end)] += 1

    def fill(self, length: int, start: int) -> bool:
        """Take a device from one of the starts on; return whether this leaves no device free for some of that time."""
        first, last = self.cells[length]
        window = self.count[first[start] : last[start]]
        window += 1
        return bool(window.max() >= self.devices)

    def free(self, length: int, among: slice) -> npt.NDArray[np.bool_]:
        """Return a mask over the starts in `among`: true where a device is free for `length` from that start on."""
        full = np.concatenate(([0], np.cumsum(self.count >= self.devices)))
        first, last = self.cells[length]
        return np.asarray(full[first[among]] == full[last[among]])
