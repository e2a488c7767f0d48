"""The price of postponing where running stints may pause: whether each device runs or rests until the next tick.

As in `postponing`, on one path, but in units of one tick: a device is on or off in each, and turning on costs
`restart`, the time that a resumed stint runs for nothing. That cost is the hysteresis: a pause that does not win back
more is not made. Deadlines are those of stints that are never paused again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

import numpy as np

from gridsweep.carbon.traces import HOUR, Column, Trace
from gridsweep.policy.backlog import Lane, Queue, Remaining
from gridsweep.policy.planner.placements import Costs, unplaced
from gridsweep.policy.planner.postponing import TICK, TIE, Guess


def pauses(
    path: Trace | None,
    now: datetime,
    stints: Sequence[Remaining],
    lanes: Sequence[Lane],
    running: Mapping[int, Remaining],
    restart: timedelta,
    tick: timedelta = TICK,
) -> dict[int, float]:
    """The running devices that should rest now, with the grams that saves.

    `stints` wait; `running` has what is left of the stint on a device of `lanes`. None pauses whose deadline, or that
    of what waits, would no longer hold.
    """
    found: dict[int, float] = {}
    if path is None or not np.isfinite(path.values).any():
        return found
    waiting, lanes = list(stints), list(lanes)
    for lane in sorted(running, key=lambda i: (running[i].length, i), reverse=True):
        grams = on_or_off(path, now, waiting, lanes, {k: v for k, v in running.items() if k not in found}, lane,
                          restart, tick)  # fmt: skip
        rested = [replace(d, free_at=now) if i == lane else d for i, d in enumerate(lanes)]
        whole = [*waiting, replace(running[lane], length=running[lane].length + restart)]
        must, later = Queue(now, whole, rested).must_start(lane, tick / HOUR)
        if grams < 0 and must is None and later >= tick / HOUR:
            found[lane] = -grams
            waiting, lanes = whole, rested
    return found


def on_or_off(
    path: Trace,
    now: datetime,
    stints: Sequence[Remaining],
    lanes: Sequence[Lane],
    running: Mapping[int, Remaining],
    lane: int,
    restart: timedelta,
    tick: timedelta = TICK,
) -> float:
    """Grams saved by having a device on rather than off until the next tick, all others being free to choose."""
    left = [*stints, *running.values()]
    guess = Guess(path, now, max((s.latest_end - now) / HOUR for s in left))
    hours = tick / HOUR
    gains = []
    for deadline in sorted({s.latest_end for s in left}):
        units = ceil(sum((s.length for s in left if s.latest_end <= deadline), timedelta(0)) / tick - 1e-6)
        slots = max(1, int((deadline - now) / tick + 1e-6))
        price = np.diff(guess.upto(hours * np.arange(float(slots + 1))))
        on, off = rested(price, min(units, slots), restart / tick)
        others = [
            np.diff((on if i in running else off)[:, 0]) * lanes[i].power_kw / lanes[i].speed
            for i in sorted(set(range(len(lanes))) - {lane}, key=lambda i: i not in running)
        ][: sum(s.latest_end <= deadline for s in left) - 1]  # a stint cannot use two devices
        cost = lanes[lane].power_kw / lanes[lane].speed
        begin = price[0] * (1.0 if lane in running else 1.0 + restart / tick)
        kept = np.sort(np.concatenate([*others, np.diff(on[:, 1]) * cost]))[: units - 1].sum() + begin * cost
        held = np.sort(np.concatenate([*others, np.diff(off[:, 1]) * cost]))[:units].sum()
        gains.append(float(held - kept))
    best = max(gains)
    return 0.0 if abs(best) <= TIE * max(guess.scale * lanes[lane].power_kw, TIE) else best


def rested(price: Column, most: int, restart: float) -> tuple[Costs, Costs]:
    """What the k cheapest slots from t on cost a device that is on, and one that is off, which pays to turn on.

    `price` has shape (slots,), `restart` is a share of a slot. Returns two arrays of shape (most + 1, slots + 1),
    indexed by k and t.
    """
    slots, high = len(price), unplaced(price)
    on = np.empty((most + 1, slots + 1))
    off = np.empty_like(on)
    on[:, slots] = off[:, slots] = high * np.arange(most + 1)
    on[0] = off[0] = 0.0
    extra = restart * price
    for k in range(1, most + 1):
        run = price + on[k - 1, 1:]
        begun = np.append(run + extra, on[k, slots])
        off[k] = np.minimum.accumulate(begun[::-1])[::-1]
        on[k, :slots] = np.minimum(run, off[k, :slots])
    return on, off
