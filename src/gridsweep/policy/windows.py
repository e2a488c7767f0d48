"""The windows a stint could run in: what each would meet of the grid, and whether a device is left for it.

Moments are whole microseconds from now, so that a window ends exactly where the next begins. Starts lie on the ticks,
and on the moments given; intensities are gCO2eq/kWh.
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
"""Each later window counts dearer by this share of the highest level: of equal ones, whatever the noise, the first."""


class Course:
    """Intensities known and expected, as a running sum without holes: the history, then a forecast.

    Past the forecast's end its last day goes on. `known` is false where nothing is forecast. `level` is
    the highest one.
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
        """Before this moment nothing is known."""
        return round(float(self.edges[0]) * AN_HOUR)

    def met(self, begins: Moments, ends: Moments) -> Column:
        """The integral over each window, gCO2eq/kWh x h."""
        upto: Column = np.interp(np.concatenate([ends, begins]) / AN_HOUR, self.edges, self.sums)
        return upto[: len(ends)] - upto[len(ends) :]

    def tilt(self, count: int) -> Column:
        """What is added so that the earliest of equal windows is the cheapest."""
        tilt: Column = TIE * self.level * np.arange(float(count))
        return tilt


def ticks(now: datetime, tick: timedelta, since: datetime, until: datetime, also: Iterable[int] = ()) -> Moments:
    """All ticks from `since` to `until`, now, and other moments, in order."""
    first = ceil_to(since - MOMENT, tick)
    count = max(0, (until - first) // tick + 1)
    regular = (first - now) // MOMENT + tick // MOMENT * np.arange(count, dtype=np.int64)
    return np.unique(np.concatenate([regular, np.array([0, *also], dtype=np.int64)]))


class Calendar:
    """How many of the devices, all alike, are taken from when to when."""

    def __init__(self, devices: int, starts: Moments, lengths: Sequence[int], taken: Sequence[int]):
        """`taken` are the moments until which devices are taken from now on."""
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
        """A device is taken from one of the starts on; whether no other is then left for some of that time."""
        first, last = self.cells[length]
        window = self.count[first[start] : last[start]]
        window += 1
        return bool(window.max() >= self.devices)

    def free(self, length: int, among: slice) -> npt.NDArray[np.bool_]:
        """Of some of the starts, those from which a device is free for so long."""
        full = np.concatenate(([0], np.cumsum(self.count >= self.devices)))
        first, last = self.cells[length]
        return np.asarray(full[first[among]] == full[last[among]])
