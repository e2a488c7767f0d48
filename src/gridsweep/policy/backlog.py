"""The remaining work, the devices, and how late the work can start. The grid plays no part here.

Stints are placed backwards from their latest ends, last first, each as late as a device allows. The first stint of a
device's chain gives the time when that device must begin. This is exact for stints of one length on devices of one
speed.
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
    """A waiting stint: its `length` at device speed 1, and its latest end."""

    length: timedelta
    latest_end: datetime


@dataclass(frozen=True, slots=True)
class Lane:
    """A device: free from `free_at` on, which may be in the past. `idle_kw` is drawn until the last stint ends."""

    free_at: datetime
    speed: float = 1.0
    power_kw: float = 1.0
    idle_kw: float = 0.0


class Queue:
    """The remaining stints and when devices become free, in hours from now."""

    def __init__(self, now: datetime, stints: Sequence[Remaining], lanes: Sequence[Lane]):
        self.length = [s.length / HOUR for s in stints]
        self.by = [(s.latest_end - now) / HOUR for s in stints]
        self.free = [max(0.0, (lane.free_at - now) / HOUR) for lane in lanes]
        self.lanes = lanes
        self.left = sorted(range(len(stints)), key=lambda i: (self.by[i], self.length[i]))
        self.alike = len(set(self.length)) <= 1 and len({lane.speed for lane in lanes}) <= 1
        self.horizon = max(self.by, default=0.0)

    def bring_forward(self, count: int) -> None:
        """Move the first remaining stint among the first `count` to the front; stints after those cannot start yet."""
        first = next((i for i in self.left if i < count), None)
        if first is not None and self.left[0] != first:
            self.left.remove(first)
            self.left.insert(0, first)

    def by_energy(self) -> list[int]:
        """Return the devices by energy for the same work, the lowest first."""
        return sorted(range(len(self.lanes)), key=lambda i: (self.lanes[i].power_kw / self.lanes[i].speed, i))

    def start(self, lane: int, stint: int | None = None) -> int:
        stint = self.left[0] if stint is None else stint
        self.left.remove(stint)
        self.free[lane] = self.length[stint] / self.lanes[lane].speed
        return stint

    def must_start(self, lane: int, tick: float) -> tuple[int | None, float]:
        """Return the stint that has to start on a free device now, or None and when the next one has to, in hours.

        Infinity means that no stint has to start before the tick; the exact time is then not computed.
        """
        slowest, together = min(d.speed for d in self.lanes), sum(d.speed for d in self.lanes)
        begin, work, longest = max(tick, *self.free), 0.0, 0.0
        for i in self.left:
            work += self.length[i]
            longest = max(longest, self.length[i])
            if begin + work / together + longest / slowest > self.by[i]:  # the bound for any order of the stints
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
        """Whether all deadlines still hold if the next stint runs on this device, which may be slow."""
        if self.alike:
            return True
        left, free = self.left[:], self.free[:]
        self.start(lane)
        fits = bool(self._chains()[0]) and self.free[lane] <= self.by[left[0]] + SECOND
        self.left, self.free = left, free
        return fits

    def fits(self) -> bool:
        """Whether all remaining stints can end in time, placed backwards."""
        return not self.left or bool(self._chains()[0])

    def _chains(self) -> tuple[list[float], list[int]]:
        """Return when each device has to begin and with which stint, as late as possible. Empty if they do not fit."""
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
    """Return the waiting work with its latest ends: the latest start plus the duration on the fastest device."""
    fastest = max(device.speed for device in situation.devices)
    deadline = situation.deadline
    found = []
    for work in situation.waiting:
        end = work.latest_start + work.duration / fastest
        found.append(Remaining(work.duration, min(end, deadline) if deadline else end))
    return found


def work_ahead(situation: Situation) -> list[Remaining]:
    """Return the work expected after later rungs, with its latest ends; it cannot start yet."""
    fastest = max(device.speed for device in situation.devices)
    return [Remaining(work.duration, work.latest_start + work.duration / fastest) for work in situation.ahead]


def lanes(situation: Situation) -> list[Lane]:
    """Return the devices, each free when its attempt is expected to end. Needs submitted or waiting work."""
    soon = situation.now + MINUTE  # an attempt that runs longer than expected still holds its device
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
    """Return the remaining part of the stints that may pause, by the position of their device.

    Excludes due work, attempts that are pausing, and work that has paused `most` times.
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
    """Return the sweep's deadline, or else the end if the work had begun at its latest start."""
    if situation.deadline is not None:
        return situation.deadline
    whole = max((work.duration for work in situation.submitted), default=busy.expected_end - busy.since)
    return max(busy.expected_end, (situation.submitted_at or busy.since) + busy.tier.max_delay + whole)
