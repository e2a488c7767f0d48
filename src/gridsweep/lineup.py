"""A situation as the planner counts it: what waits and by when it must have ended, and when each device is free."""

from __future__ import annotations

from datetime import datetime, timedelta

from gridsweep.carbon.traces import HOUR
from gridsweep.policy.backlog import Lane, Remaining
from gridsweep.policy.situation import Busy, Situation

MINUTE = timedelta(minutes=1)


def remaining(situation: Situation) -> list[Remaining]:
    """The waiting work with its latest ends: what starts by its latest start ends so, on the fastest device."""
    fastest = max(device.speed for device in situation.devices)
    deadline = situation.deadline
    found = []
    for work in situation.waiting:
        end = work.latest_start + work.duration / fastest
        found.append(Remaining(work.duration, min(end, deadline) if deadline else end))
    return found


def ahead(situation: Situation) -> list[Remaining]:
    """What is expected after the rungs to come, by when it must have ended: it cannot be started yet."""
    fastest = max(device.speed for device in situation.devices)
    return [Remaining(work.duration, work.latest_start + work.duration / fastest) for work in situation.ahead]


def lanes(situation: Situation) -> list[Lane]:
    """The devices, each free when what runs on it is expected to end; there must be work submitted or waiting."""
    soon = situation.now + MINUTE  # what runs longer than expected still holds its device
    busy = {each.device: max(each.expected_end, soon) for each in situation.running}
    work = (situation.waiting or situation.submitted)[0]
    usual = work.energy_kwh / (work.duration / HOUR)
    return [
        Lane(
            busy.get(device.name, situation.now),
            device.speed,
            device.power_w / 1000 if device.power_w is not None else usual,
            device.idle_power_w / 1000,
        )
        for device in situation.devices
    ]


def running(situation: Situation, most: int) -> dict[int, Remaining]:
    """What is left of the stints that may pause, by the position of their device.

    Not what is due, or pausing, or has paused `most` times.
    """
    places = {device.name: i for i, device in enumerate(situation.devices)}
    return {
        places[busy.device]: Remaining(_left(situation, busy), _latest_end(situation, busy))
        for busy in situation.running
        if not (busy.due or busy.pausing) and busy.pauses < most and busy.expected_end > situation.now
    }


def _left(situation: Situation, busy: Busy) -> timedelta:
    speed = next(device.speed for device in situation.devices if device.name == busy.device)
    return (busy.expected_end - situation.now) * speed


def _latest_end(situation: Situation, busy: Busy) -> datetime:
    """The sweep's deadline, or as if begun at its latest start."""
    if situation.deadline is not None:
        return situation.deadline
    whole = max((work.duration for work in situation.submitted), default=busy.expected_end - busy.since)
    return max(busy.expected_end, (situation.submitted_at or busy.since) + busy.tier.max_delay + whole)
