"""The cost of postponing: whether the next stint should start now or later.

1. The path is a single estimate of the intensities ahead: the forecast's mean.
2. The remaining stints are placed where they emit least on this path: on all devices, never paused, each by its latest
   end.
3. This is done twice: with the next stint started now, and with it held for one slot. `grams` is the saving of starting
   now. At 0 or more the stint starts, so a tie runs now.
4. If start deadlines differ, the stints due by each deadline are placed separately; the largest saving counts.
5. Idle power is drawn until the last end, and the last end is chosen so that the total is lowest.
6. Whatever the grid does, a stint starts if it could not start later: stints are placed backwards from their latest
   ends, last first, and the first stint of a device's chain gives the time when that device must begin.

Everything is computed again at every tick, so that a wrong estimate costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import heapify, heapreplace
from math import ceil, inf

import numpy as np

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import DAY, HOUR, Column, Trace
from gridsweep.policy.backlog import SECOND, Lane, Queue, Remaining
from gridsweep.policy.planner.placements import Costs, cheapest, shared

TICK = timedelta(minutes=30)
TIE = 1e-9
DEADLINES = 8
"""The largest number of distinct deadlines considered; beyond it, earlier ones are merged into later ones."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision for a free device: the stint that starts now, or None and the likely end of the wait in `until`.

    `stint` and `lane` are positions in the arguments of `verdicts`. `grams` is the saving of starting now, infinite if
    the deadlines force the start. `why` is one of the texts below.
    """

    lane: int
    stint: int | None
    grams: float
    until: datetime | None
    why: str


CHEAPEST = "no cleaner window forecast before the deadline"
CLEANER = "cleaner hours are forecast"
DUE = "must start now to meet its deadline"
UNKNOWN = "no forecast for the hours ahead"


def verdicts(
    path: Trace | None,
    now: datetime,
    stints: Sequence[Remaining],
    lanes: Sequence[Lane],
    *,
    tick: timedelta = TICK,
    ahead: Sequence[Remaining] = (),
) -> list[Verdict]:
    """Return a verdict for each free device while work waits; of work due together, the first in order starts.

    `path` holds the current slot and the forecast after it, gCO2eq/kWh; its last day repeats beyond its end. Without
    a path, or if all of it is unknown, everything runs at once. Stints `ahead` are placed and counted with the rest,
    but cannot start yet.
    """
    queue = Queue(now, [*stints, *ahead], lanes)
    free = [i for i in queue.by_energy() if queue.free[i] <= SECOND]
    guess = Guess(path, now, queue.horizon) if path is not None and np.isfinite(path.values).any() else None
    found: list[Verdict] = []
    held: tuple[tuple[float, float, float], Verdict] | None = None
    trial: _Trial | None = None
    for lane in free:
        if not any(i < len(stints) for i in queue.left):
            break
        queue.bring_forward(len(stints))
        must, later = queue.must_start(lane, tick / HOUR)
        if must is not None and must >= len(stints):
            must = queue.left[0]
        if must is not None or guess is None:
            found.append(Verdict(lane, queue.start(lane, must), inf, None, UNKNOWN if guess is None else DUE))
            trial = None
            continue
        alike = (lanes[lane].speed, lanes[lane].power_kw, lanes[lane].idle_kw)
        if held is not None and held[0] == alike:  # an identical device gets the same verdict
            found.append(replace(held[1], lane=lane))
            continue
        if trial is None or trial.length != queue.length[queue.left[0]]:
            trial = _Trial(guess, queue, tick / HOUR)
        grams, fits = trial.gain(lane), queue.fits_after(lane)
        pays = grams >= -TIE * max(guess.scale * lanes[lane].power_kw, TIE)
        if fits and pays:
            trial.start(lane)
            found.append(Verdict(lane, queue.start(lane), grams, None, CHEAPEST))
        else:
            wait = min(later, trial.next_start(lane))
            verdict = Verdict(lane, None, grams, now + timedelta(hours=wait) if wait < inf else None, CLEANER)
            held = alike, verdict
            found.append(verdict)
    return found


def savings(
    forecast: Forecast, now: datetime, stints: Sequence[Remaining], lanes: Sequence[Lane], *, tick: timedelta = TICK
) -> Column:
    """Return the share of emissions that the best placement saves against running at once, for each path.

    Shape (paths,). Each path is taken as known in advance, so these are upper bounds and slightly optimistic.
    """
    queue = Queue(now, stints, lanes)
    found = np.zeros(len(forecast.paths))
    for i, values in enumerate(forecast.paths):
        if queue.left and np.isfinite(values).any():
            guess = Guess(Trace(forecast.start, forecast.step, values), now, queue.horizon)
            found[i] = _Trial(guess, queue, tick / HOUR, ends=16).saving()
    return found


def extended(path: Trace, now: datetime, until: datetime) -> Trace:
    """Return a path without holes up to at least `until`; its last day repeats beyond its end."""
    values = path.values
    known = np.isfinite(values)
    if not known.all():
        values = np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])
    wanted = -((path.start - until) // path.step)
    if wanted > len(values):
        day = values[-max(1, min(len(values), DAY // path.step)) :]
        values = np.concatenate([values, np.resize(day, wanted - len(values))])
    return Trace(path.start, path.step, values)


class Guess:
    """A path as a running sum from now on, without holes."""

    def __init__(self, path: Trace, now: datetime, horizon: float):
        path = extended(path, now, now + (2 * max(horizon, 0.0) + 48) * HOUR)
        step, begin = path.step / HOUR, (path.start - now) / HOUR
        self.scale = float(np.abs(path.values).max())
        self.edges = begin + step * np.arange(len(path) + 1)
        self.sums = np.concatenate(([0.0], np.cumsum(path.values) * step))
        self.sums -= np.interp(0.0, self.edges, self.sums)

    def upto(self, hours: Column) -> Column:
        """Return the integral of the intensity from now to each time, gCO2eq/kWh x h."""
        return np.interp(hours, self.edges, self.sums)


def _at_once(queue: Queue, guess: Guess) -> float:
    """Return the emissions of the remaining stints if nothing waits, g."""
    free = [(begin, i) for i, begin in enumerate(queue.free)]
    heapify(free)
    runs = []
    for i in queue.left:
        begin, lane = free[0]
        device = queue.lanes[lane]
        end = begin + queue.length[i] / device.speed
        runs.append((begin, end, device.power_kw - device.idle_kw))
        heapreplace(free, (end, lane))
    begins, ends, power = np.array(runs).T
    last = np.array([max(end for end, _ in free)])
    idle = sum(d.idle_kw for d in queue.lanes) * float(guess.upto(last)[0])
    return float((guess.upto(ends) - guess.upto(begins)) @ power) + idle


class _Trial:
    """The remaining work in units of the next stint's length, and the devices, counted by kind."""

    def __init__(self, guess: Guess, queue: Queue, tick: float, ends: int | None = None):
        self.guess, self.queue = guess, queue
        length = max(queue.length[queue.left[0]], SECOND)
        length *= ceil(tick / 2 / length)  # very short stints are placed several at a time
        self.length = length
        by, self.deadlines, work = queue.by, [], 0.0
        self.counts: list[int] = []
        every = max(1, len({by[i] for i in queue.left}) // DEADLINES)
        seen = 0
        for position, i in enumerate(queue.left):
            work += queue.length[i]
            last = position + 1 == len(queue.left)
            if last or by[queue.left[position + 1]] > by[i]:
                seen += 1
                if last or seen % every == 0:
                    self.deadlines.append(by[i])
                    self.counts.append(ceil(work / length - 1e-6))
        self.idle = sum(d.idle_kw for d in queue.lanes)
        self.parts = {s: max(1, round(length / s / tick)) for s in {d.speed for d in queue.lanes}}
        self._ends(tick, ends)
        self.tables: dict[float, tuple[Column, Costs]] = {}
        alike = len({(d.speed, d.power_kw) for d in queue.lanes}) == 1
        for speed, span in self.parts.items():
            slot = length / speed / span
            begins: Column = slot * np.arange(float(max(span, int(self.until[-1] / slot + 1e-6))))
            windows = guess.upto(begins + length / speed) - guess.upto(begins)
            most = min(self.counts[-1], len(begins) // span + 1)
            if alike:
                most = min(most, self.counts[-1] // len(queue.lanes) + 2)
            self.tables[speed] = windows, cheapest(windows, span, most, (self.until / slot + 1e-6).astype(np.int64))
        self.known: dict[tuple[float, float, int], Costs] = {}
        self.kinds: dict[tuple[float, float, int], int] = {}
        for i, free in enumerate(queue.free):
            kind = self._kind(i, free)
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def _ends(self, tick: float, most: int | None) -> None:
        """Set the ends to try for each deadline: the deadline itself, and with idle power also earlier ends."""
        self.first = [0]
        until: list[Column] = []
        for deadline in self.deadlines:
            ends: Column = np.array([deadline])
            if self.idle:
                slot = self.length / max(self.parts) / self.parts[max(self.parts)]
                ends = slot * np.arange(1.0, int(deadline / slot + 1e-6) + 1)
                ends = ends[:: -max(1, len(ends) // most)][::-1] if most else ends
                ends = ends if len(ends) else np.array([deadline])
            until.append(ends)
            self.first.append(self.first[-1] + len(ends))
        self.until = np.concatenate(until)
        self.wanted = np.repeat(self.counts, np.diff(self.first))

    def _kind(self, lane: int, free: float) -> tuple[float, float, int]:
        device = self.queue.lanes[lane]
        slot = self.length / device.speed / self.parts[device.speed]
        return device.speed, device.power_kw - device.idle_kw, ceil(free / slot - 1e-6)

    def least(self, fewer: int = 0, busy: float = 0.0, swap: tuple[int, float] | None = None) -> Column:
        """Return the lowest emissions of the stints due by each deadline; `swap` frees one device at another time."""
        kinds = self.kinds
        if swap is not None:
            lane, free = swap
            here, other = self._kind(lane, self.queue.free[lane]), self._kind(lane, free)
            kinds = {**kinds, here: kinds[here] - 1}
            kinds[other] = kinds.get(other, 0) + 1
        kinds = {kind: count for kind, count in kinds.items() if count}
        total = shared(
            [self._marginals(kind) for kind in kinds], list(kinds.values()), np.maximum(self.wanted - fewer, 0)
        )
        if not self.idle:
            return total
        total = total + self.idle * self.guess.upto(self.until)
        total[self.until < max(busy, *self.queue.free) - SECOND] = inf
        return np.minimum.reduceat(total, self.first[:-1])

    def _marginals(self, kind: tuple[float, float, int]) -> Costs:
        """Return the emissions that each further stint adds on a device, shape (k, ends)."""
        if kind not in self.known:
            speed, power, begin = kind
            costs = self.tables[speed][1]
            costs = costs[:, :, max(0, costs.shape[2] - 1 - begin)]
            self.known[kind] = (costs[1:] - costs[:-1]) * power
        return self.known[kind]

    def saving(self) -> float:
        """Return the share of the emissions of running at once that the best placement saves, at least 0."""
        plain = _at_once(self.queue, self.guess)
        return max(0.0, 1 - float(self.least()[-1]) / plain) if plain > 0 else 0.0

    def gain(self, lane: int) -> float:
        """Return the grams saved by starting the next stint now instead of in the next slot or later."""
        device = self.queue.lanes[lane]
        span = self.length / device.speed
        held = self.least(swap=(lane, span / self.parts[device.speed]))
        started = self.least(fewer=1, busy=span, swap=(lane, span))
        now = float(self.tables[device.speed][0][0]) * (device.power_kw - device.idle_kw)
        due = self.wanted[self.first[:-1]] > 0
        return float((held - started)[due].max()) - now

    def start(self, lane: int) -> None:
        """Count the next stint as started on this device."""
        here = self._kind(lane, 0.0)
        there = self._kind(lane, self.length / self.queue.lanes[lane].speed)
        self.kinds[here] -= 1
        self.kinds[there] = self.kinds.get(there, 0) + 1
        self.wanted = np.maximum(self.wanted - 1, 0)

    def next_start(self, lane: int) -> float:
        """Return when the next best window begins on a held device, in hours from now."""
        device = self.queue.lanes[lane]
        windows, costs = self.tables[device.speed]
        span = self.parts[device.speed]
        k = min(len(costs) - 1, max(1, int(self.wanted[-1]) // len(self.queue.lanes)))
        later = windows[1 : len(windows) - span + 1] + costs[k - 1, -1, -2 - span :: -1]
        best = costs[k, -1, -2]
        begins = np.flatnonzero(later <= best + TIE * abs(best))
        return float(begins[0] + 1) * self.length / device.speed / span if len(begins) else inf
