"""The cost of postponing if running stints may pause: whether each device runs or pauses until the next tick.

As in `postponing`, on one path, but in units of one tick: a device is on or off in each tick. Turning on costs
`restart`, the time a resumed stint needs before it makes progress. This cost gives hysteresis: a pause happens only if
it saves more. Deadlines are computed as if stints never paused again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

import numpy as np

from gridsweep.carbon.traces import HOUR, Column, Trace
from gridsweep.policy.backlog import Lane, Queue, Remaining, lanes, running, work_waiting
from gridsweep.policy.planner.placements import Costs, unplaced
from gridsweep.policy.planner.postponing import CHEAPEST, CLEANER, TICK, TIE, Guess
from gridsweep.policy.situation import NO_DEVICE, Decision, Pause, Situation, Start, Wait
from gridsweep.sweep.stints import RESTART


def pauses(
    path: Trace | None,
    now: datetime,
    stints: Sequence[Remaining],
    lanes: Sequence[Lane],
    running: Mapping[int, Remaining],
    restart: timedelta,
    tick: timedelta = TICK,
) -> dict[int, float]:
    """Return the running devices that should pause now, with the grams saved by each pause.

    `stints` are waiting; `running` holds the remaining part of the stint on a device of `lanes`. A device does not
    pause if its own deadline or that of waiting work would no longer hold.
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
    """Return the grams saved by keeping a device on instead of off until the next tick; all other devices are free."""
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
    """Return the cost of the k cheapest slots from t on, for a device that is on and for one that is off.

    A device that is off pays to turn on. `price` has shape (slots,), `restart` is a share of a slot. Both arrays have
    shape (most + 1, slots + 1), indexed by k and t.
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


LONG = timedelta(hours=4)
"""Shorter stints are placed whole: pausing gains 0.2 points for 90-minute stints, 20 for 16-hour stints."""


def is_long(situation: Situation) -> bool:
    """Whether the remaining work has stints long enough for pausing."""
    lengths = [work.duration for work in situation.waiting]
    lengths += [busy.expected_end - situation.now for busy in situation.running]
    return max(lengths, default=timedelta(0)) >= LONG


def _fitting(situation: Situation, stints: list[Remaining], devices: list[Lane], lane: int) -> int | None:
    """Return the longest stint that may start on a device without making another late, or None; lengths may differ."""
    for i in sorted(range(len(stints)), key=lambda i: -stints[i].length):
        length = stints[i].length / devices[lane].speed
        others = [stint for j, stint in enumerate(stints) if j != i]
        taken = [replace(d, free_at=situation.now + length) if k == lane else d for k, d in enumerate(devices)]
        if situation.now + length <= stints[i].latest_end and Queue(situation.now, others, taken).fits():
            return i
    return None


def around(situation: Situation, path: Trace, most: int) -> list[Decision]:
    """Pause attempts that should wait until the next tick, and start work on free devices that should run.

    Work that has paused `most` times does not pause again.
    """
    now, stints, devices, on = situation.now, work_waiting(situation), lanes(situation), running(situation, most)
    attempts = {busy.device: busy.attempt for busy in situation.running}
    resting = pauses(path, now, stints, devices, on, RESTART, situation.tick)
    decisions: list[Decision] = [
        Pause(attempts[situation.devices[lane].name], f"pausing now saves about {grams:.0f} g")
        for lane, grams in resting.items()
    ]
    waiting = list(situation.waiting)
    free = {device.name for device in situation.free}
    for lane, device in enumerate(situation.devices):
        if not waiting or device.name not in free:
            continue
        if on_or_off(path, now, stints, devices, on, lane, RESTART, situation.tick) < 0:
            break  # if this device pauses, the devices after it pause too
        chosen = _fitting(situation, stints, devices, lane)
        if chosen is None:
            continue
        work, on[lane] = waiting.pop(chosen), stints.pop(chosen)
        devices[lane] = replace(devices[lane], free_at=now + on[lane].length / device.speed)
        decisions.append(Start((work.experiment,), work.to_step, device.name, CHEAPEST))
    started = {d.device for d in decisions if isinstance(d, Start)}
    why = CLEANER if free - started else NO_DEVICE
    return decisions + [Wait(work.experiment, work.latest_start, why) for work in waiting]
