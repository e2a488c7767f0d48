"""The default policy: everything that is left is placed on what is expected, anew at every look.

It starts a stint where starting now is not dearer than the cheapest it could wait for, counting all devices and all
deadlines; the rule itself is in `postponing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsweep.carbon import HOUR
from gridsweep.latest_starts import Lane, Remaining
from gridsweep.policy import NO_DEVICE, Decision, Situation, Start, Wait, Work
from gridsweep.postponing import verdicts

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Planned:
    """Places all waiting work where it is expected to emit least, and starts what belongs to now.

    Below `min_saving`, a share of what is left to emit, nothing is worth waiting for.
    """

    min_saving: float = 0.05

    def decide(self, situation: Situation) -> Sequence[Decision]:
        waiting = situation.waiting
        if not waiting:
            return []
        if not situation.free:
            return [Wait(work.experiment, work.latest_start, NO_DEVICE) for work in waiting]
        forecast = situation.forecast
        found = verdicts(
            forecast.mean if forecast else None,
            situation.now,
            remaining(situation),
            lanes(situation),
            min_saving=self.min_saving,
        )
        decisions: list[Decision] = []
        started: set[str] = set()
        until: datetime | None = None
        for verdict in found:
            if verdict.stint is None:
                until = min(verdict.until, until) if verdict.until and until else verdict.until or until
                continue
            work = waiting[verdict.stint]
            device = situation.devices[verdict.lane]
            started.add(work.experiment)
            decisions.append(Start((work.experiment,), work.to_step, device.name, verdict.why))
        held = any(verdict.stint is None for verdict in found)
        for work in waiting:
            if work.experiment not in started:
                why = CLEANER if held else NO_DEVICE
                decisions.append(Wait(work.experiment, _until(work, until) if held else work.latest_start, why))
        return decisions


CLEANER = "cleaner hours are expected"


def _until(work: Work, until: datetime | None) -> datetime:
    """To the minute, so that a guess that moves by a moment is no news."""
    if until is None or until > work.latest_start:
        return work.latest_start
    return until - timedelta(seconds=until.second, microseconds=until.microsecond) + MINUTE


def remaining(situation: Situation) -> list[Remaining]:
    """The waiting work with its latest ends: what starts by its latest start ends so, on the fastest device."""
    fastest = max(device.speed for device in situation.devices)
    deadline = situation.deadline
    found = []
    for work in situation.waiting:
        end = work.latest_start + work.duration / fastest
        found.append(Remaining(work.duration, min(end, deadline) if deadline else end))
    return found


def lanes(situation: Situation) -> list[Lane]:
    """The devices, each free when what runs on it is expected to end."""
    busy = {each.device: each.expected_end for each in situation.running}
    work = situation.waiting[0]
    usual = work.energy_kwh / (work.duration / HOUR)
    return [
        Lane(
            max(situation.now, busy.get(device.name, situation.now)),
            device.speed,
            device.power_w / 1000 if device.power_w is not None else usual,
            device.idle_power_w / 1000,
        )
        for device in situation.devices
    ]
