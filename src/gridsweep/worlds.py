"""The worlds a sweep can be driven in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gridsweep.carbon import Reading, Trace
from gridsweep.events import ClockAnchored, Event
from gridsweep.executors.simulated import Simulated
from gridsweep.loop import Executor, Provider
from gridsweep.state import State


class Virtual:
    """A world without waiting: time jumps to the next moment at which something can happen."""

    def __init__(self, start: datetime, provider: Provider, executor: Simulated):
        self.time = start
        self.provider = provider
        self.executor = executor

    def now(self) -> datetime:
        return self.time

    def clock(self, state: State) -> Sequence[Event]:
        return ()

    def wait(self, until: datetime, state: State) -> None:
        end = self.executor.next_end(state)
        self.time = max(self.time, min(until, end) if end else until)


class Observations:
    """A provider that shows what a journal observed: the past of the moment it is asked about."""

    def __init__(self, trace: Trace, source: str, quality: str):
        self.trace, self.source, self.quality = trace, source, quality

    def read(self, now: datetime) -> Reading:
        return Reading(self.trace.between(self.trace.start, now + timedelta(microseconds=1)), None, self.source, self.quality)
