"""Virtual worlds: time jumps to the next moment at which something can happen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import Trace
from gridsweep.loop import Provider
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Event
from gridsweep.state.state import State


class Virtual:
    """A world without waiting: time jumps to the next moment at which something can happen."""

    def __init__(self, start: datetime, provider: Provider, executor: Simulated):
        self.time = start
        self.provider = provider
        self.executor: Simulated = executor

    def now(self) -> datetime:
        return self.time

    def clock(self, state: State) -> Sequence[Event]:
        return ()

    def silences(self, state: State) -> None:
        """Do nothing: simulated workers are never silent."""

    def wait(self, until: datetime, state: State) -> None:
        end = self.executor.next_end(state)
        self.time = max(self.time, min(until, end) if end else until)


class Observations:
    """A provider of a journal's observations: the past of the requested moment, without a forecast."""

    def __init__(self, trace: Trace, provenance: Provenance):
        self.trace, self.provenance = trace, provenance

    def read(self, now: datetime) -> Reading:
        past = self.trace.between(self.trace.start, now + timedelta(microseconds=1))
        return Reading(past, None, self.provenance)


class Foreseen(Observations):
    """A provider with a perfect forecast: the past of the requested moment, and the trace from then on."""

    def read(self, now: datetime) -> Reading:
        past = super().read(now).history
        slot = self.trace.start + self.trace.index(now) * self.trace.step
        ahead = self.trace.between(slot, self.trace.end)

        def forecast() -> Forecast | None:
            if not len(ahead):
                return None
            return Forecast(now, ahead.start, ahead.step, ahead.values[None, :], self.provenance.title)

        return Reading(past, forecast, self.provenance)
