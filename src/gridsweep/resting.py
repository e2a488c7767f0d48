"""Long stints that pause: each device is on or off until the next look, by what that saves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from gridsweep.carbon.traces import Trace
from gridsweep.policy.backlog import Lane, Queue, Remaining, lanes, remaining, running
from gridsweep.policy.planner.pausing import on_or_off, pauses
from gridsweep.policy.planner.postponing import CHEAPEST, CLEANER
from gridsweep.policy.situation import NO_DEVICE, Decision, Pause, Situation, Start, Wait
from gridsweep.sweep.stints import RESTART

LONG = timedelta(hours=4)
"""Shorter stints are better placed whole: pausing is worth 0.2 points for 90 minutes, 20 for 16 hours."""


def is_long(situation: Situation) -> bool:
    """Whether what is left is in long stints, which pausing is for."""
    lengths = [work.duration for work in situation.waiting]
    lengths += [busy.expected_end - situation.now for busy in situation.running]
    return max(lengths, default=timedelta(0)) >= LONG


def _fitting(situation: Situation, stints: list[Remaining], devices: list[Lane], lane: int) -> int | None:
    """The longest stint that may start on a device without making another late; pieces differ in length."""
    for i in sorted(range(len(stints)), key=lambda i: -stints[i].length):
        length = stints[i].length / devices[lane].speed
        others = [stint for j, stint in enumerate(stints) if j != i]
        taken = [replace(d, free_at=situation.now + length) if k == lane else d for k, d in enumerate(devices)]
        if situation.now + length <= stints[i].latest_end and Queue(situation.now, others, taken).fits():
            return i
    return None


def around(situation: Situation, path: Trace, most: int) -> list[Decision]:
    """Pauses what had better rest until the next look, and starts on free devices what had better run.

    Nothing pauses that has done so `most` times.
    """
    now, stints, devices, on = situation.now, remaining(situation), lanes(situation), running(situation, most)
    attempts = {busy.device: busy.attempt for busy in situation.running}
    resting = pauses(path, now, stints, devices, on, RESTART, situation.tick)
    decisions: list[Decision] = [
        Pause(attempts[situation.devices[lane].name], f"resting saves about {grams:.0f} g")
        for lane, grams in resting.items()
    ]
    waiting = list(situation.waiting)
    free = {device.name for device in situation.free}
    for lane, device in enumerate(situation.devices):
        if not waiting or device.name not in free:
            continue
        if on_or_off(path, now, stints, devices, on, lane, RESTART, situation.tick) < 0:
            break  # devices are asked in order; what one rests for, the next does
        chosen = _fitting(situation, stints, devices, lane)
        if chosen is None:
            continue
        work, on[lane] = waiting.pop(chosen), stints.pop(chosen)
        devices[lane] = replace(devices[lane], free_at=now + on[lane].length / device.speed)
        decisions.append(Start((work.experiment,), work.to_step, device.name, CHEAPEST))
    started = {d.device for d in decisions if isinstance(d, Start)}
    why = CLEANER if free - started else NO_DEVICE
    return decisions + [Wait(work.experiment, work.latest_start, why) for work in waiting]
