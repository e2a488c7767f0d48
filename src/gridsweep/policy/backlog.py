"""What is left, on which devices, and how late it can start: no grid in it.

The stints are placed backwards from their latest ends, last first, each as late as a device allows; the first of a
device's chain tells when that device must begin. For stints of one length on devices of one speed this is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

import numpy as np

from gridsweep.carbon.traces import HOUR
from gridsweep.policy.situation import Busy, Situation
from gridsweep.sweep.stints import device_named

SECOND = 1 / 3600


@dataclass(frozen=True, slots=True)
class Remaining:
    """Work that waits: `length` at device speed 1."""

    length: timedelta
    latest_end: datetime


@dataclass(frozen=True, slots=True)
class Lane:
    """A device: free from a moment on, which may have passed. `idle_kw` is drawn until the last end of all."""

    free_at: datetime
    speed: float = 1.0
    power_kw: float = 1.0
    idle_kw: float = 0.0


class Queue:
    """What is left and when devices are free, in hours from now."""

    def __init__(self, now: datetime, stints: Sequence[Remaining], lanes: Sequence[Lane]):
        self.length = [s.length / HOUR for s in stints]
        self.by = [(s.latest_end - now) / HOUR for s in stints]
        self.free = [max(0.0, (lane.free_at - now) / HOUR) for lane in lanes]
        self.lanes = lanes
        self.left = sorted(range(len(stints)), key=lambda i: (self.by[i], self.length[i]))
        self.alike = len(set(self.length)) <= 1 and len({lane.speed for lane in lanes}) <= 1
        self.horizon = max(self.by, default=0.0)

    def bring_forward(self, count: int) -> None:
        """Put the first of the first `count` stints that is left before all others: the rest cannot start yet."""
        first = next((i for i in self.left if i < count), None)
        if first is not None and self.left[0] != first:
            self.left.remove(first)
            self.left.insert(0, first)

    def by_energy(self) -> list[int]:
        """The devices, those first that need least energy for the same work."""
        return sorted(range(len(self.lanes)), key=lambda i: (self.lanes[i].power_kw / self.lanes[i].speed, i))

    def start(self, lane: int, stint: int | None = None) -> int:
        stint = self.left[0] if stint is None else stint
        self.left.remove(stint)
        self.free[lane] = self.length[stint] / self.lanes[lane].speed
        return stint

    def must_start(self, lane: int, tick: float) -> tuple[int | None, float]:
        """The stint that has to start on a free device now, if one has to; else when the next one has to, in hours.

        An infinite answer means not before the tick: it is not looked at more closely.
        """
        slowest, together = min(d.speed for d in self.lanes), sum(d.speed for d in self.lanes)
        begin, work, longest = max(tick, *self.free), 0.0, 0.0
        for i in self.left:
            work += self.length[i]
            longest = max(longest, self.length[i])
            if begin + work / together + longest / slowest > self.by[i]:  # so late even a careless order can be
                break
        else:
            return None, inf
        heads, first = self._chains()
        if not heads:
            return self.left[0], 0.0
        if heads[lane] <= SECOND:
            return first[lane], 0.0
        later = [head for head, free in zip(heads, self.free, strict=True) if free <= SECOND < head]
        return None, min(later, default=inf)

    def fits_after(self, lane: int) -> bool:
        """Whether the deadlines still hold once the next stint runs here: a slow device may be too late for it."""
        if self.alike:
            return True
        left, free = self.left[:], self.free[:]
        self.start(lane)
        fits = bool(self._chains()[0]) and self.free[lane] <= self.by[left[0]] + SECOND
        self.left, self.free = left, free
        return fits

    def fits(self) -> bool:
        """Whether all that is left can end in time, placed backwards."""
        return not self.left or bool(self._chains()[0])

    def _chains(self) -> tuple[list[float], list[int]]:
        """When each device has to begin, and with what: all stints as late as can be. Empty where they do not fit."""
        tails = np.full(len(self.lanes), inf)
        first = [-1] * len(self.lanes)
        free, pace = np.array(self.free), 1 / np.array([d.speed for d in self.lanes])
        for i in reversed(self.left):
            begins = np.minimum(tails, self.by[i]) - self.length[i] * pace
            begins[begins < free - SECOND] = -inf
            lane = int(begins.argmax())
            if begins[lane] == -inf:
                return [], []
            tails[lane], first[lane] = begins[lane], i
        return tails.tolist(), first


MINUTE = timedelta(minutes=1)


def work_waiting(situation: Situation) -> list[Remaining]:
    """The waiting work with its latest ends: what starts by its latest start ends so, on the fastest device."""
    fastest = max(device.speed for device in situation.devices)
    deadline = situation.deadline
    found = []
    for work in situation.waiting:
        end = work.latest_start + work.duration / fastest
        found.append(Remaining(work.duration, min(end, deadline) if deadline else end))
    return found


def work_ahead(situation: Situation) -> list[Remaining]:
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
    speed = device_named(situation.devices, busy.device).speed
    return (busy.expected_end - situation.now) * speed


def _latest_end(situation: Situation, busy: Busy) -> datetime:
    """The sweep's deadline, or as if begun at its latest start."""
    if situation.deadline is not None:
        return situation.deadline
    whole = max((work.duration for work in situation.submitted), default=busy.expected_end - busy.since)
    return max(busy.expected_end, (situation.submitted_at or busy.since) + busy.tier.max_delay + whole)
