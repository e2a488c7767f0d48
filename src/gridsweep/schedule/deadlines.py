"""Starts forced by a deadline, whatever the policy says, so that all work ends in time on the devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from gridsweep.carbon.traces import HOUR
from gridsweep.policy.backlog import Lane, Queue, Remaining
from gridsweep.policy.situation import Work
from gridsweep.sweep.stints import Device


@dataclass(frozen=True, slots=True)
class Pressure:
    """The remaining work and its common `deadline`; `busy` maps devices in use to the time when they become free.

    The check is repeated after a `tick`.
    """

    now: datetime
    deadline: datetime
    tick: timedelta
    left: Sequence[Work]
    devices: Sequence[Device]
    busy: Mapping[str, datetime]

    def forced(self) -> list[tuple[Work, str]]:
        """Return the work that has to start now, each with the free device it starts on."""
        found: list[tuple[Work, str]] = []
        if self._early():
            return found
        queue = self._queue()
        for lane in self._free():
            must = queue.must_start(lane, self.tick / HOUR)[0] if queue.left else None
            if must is not None:
                queue.start(lane, must)
                found.append((self.left[must], self.devices[lane].name))
        return found

    def next(self) -> datetime | None:
        """Return when work next has to start on a free device; None if not before the tick."""
        if self._early():
            return None
        queue = self._queue()
        soonest = min((queue.must_start(lane, self.tick / HOUR)[1] for lane in self._free()), default=inf)
        return self.now + timedelta(hours=soonest) if soonest < inf else None

    def _early(self) -> bool:
        """Whether any order of the work ends in time even if no device starts before the tick: a cheap check."""
        begin = max(self.now + self.tick, max(self.busy.values(), default=self.now))
        spans = [work.duration for work in self.left]
        speeds = [device.speed for device in self.devices]
        careless = sum(spans, timedelta(0)) / sum(speeds) + max(spans, default=timedelta(0)) / min(speeds)
        return begin + careless <= self.deadline

    def _free(self) -> list[int]:
        """Return the positions of the free devices, the fastest first."""
        free = [i for i, device in enumerate(self.devices) if device.name not in self.busy]
        return sorted(free, key=lambda i: -self.devices[i].speed)

    def _queue(self) -> Queue:
        stints = [Remaining(work.duration, self.deadline) for work in self.left]
        lanes = [Lane(max(self.now, self.busy.get(d.name, self.now)), d.speed) for d in self.devices]
        return Queue(self.now, stints, lanes)
