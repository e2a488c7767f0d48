"""The interface of a policy: the situation it sees, and its decisions to start, pause or wait.

A policy is any object with `decide(situation) -> decisions`. It holds no state: everything it needs is in the
situation, so the same situation always gets the same decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Reading
from gridsweep.carbon.traces import DAY, Trace
from gridsweep.sweep.stints import Device
from gridsweep.sweep.tiers import TRAILING, Percentile, Tier


@dataclass(frozen=True, slots=True)
class Work:
    """The remaining steps of a waiting experiment, and of `others` trained with it in one stint.

    `duration` and `energy_kwh` are estimates at device speed 1; `duration` includes `restart`, the time to resume.
    A user asked to start it `soon`.
    """

    experiment: str
    tier: Tier
    ready_at: datetime
    latest_start: datetime
    from_step: int
    to_step: int
    duration: timedelta
    energy_kwh: float
    device: str | None = None
    restart: timedelta = timedelta(0)
    others: tuple[str, ...] = ()
    soon: bool = False

    @property
    def members(self) -> tuple[str, ...]:
        return (self.experiment, *self.others)

    @property
    def training(self) -> timedelta:
        """The duration without the restart."""
        return self.duration - self.restart

    @property
    def order(self) -> tuple[int, datetime, str]:
        """Sort key among work that may start: what a user asked for, then tier rank, age, id."""
        return (-1 if self.soon else self.tier.rank, self.ready_at, self.experiment)


@dataclass(frozen=True, slots=True)
class Busy:
    """A device that runs an attempt. `due` work started because its latest start was reached; it must not be paused.

    `pauses` counts how often the work of this attempt has paused before.
    """

    attempt: str
    device: str
    tier: Tier
    since: datetime
    expected_end: datetime
    due: bool
    pausing: bool
    pauses: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a policy may know at `now`. `waiting` is in order; `ahead` is work that does not exist yet.

    All existing work should end by `deadline`, which leaves room before `finish_by`, the sweep's own deadline: for
    durations that vary and for work `ahead`. Waits shorter than `min_wait` are not worthwhile; the policy is asked
    again after a `tick` at the latest. `submitted` is all the work as of `submitted_at`.
    """

    now: datetime
    waiting: Sequence[Work]
    running: Sequence[Busy]
    devices: tuple[Device, ...]
    reading: Reading
    history: Trace
    ahead: Sequence[Work] = ()
    min_wait: timedelta = timedelta(0)
    deadline: datetime | None = None
    tick: timedelta = timedelta(minutes=30)
    submitted_at: datetime | None = None
    submitted: Sequence[Work] = ()
    finish_by: datetime | None = None

    @property
    def forecast(self) -> Forecast | None:
        """The forecast from the current slot on, computed on first use; None if there is none."""
        return self.reading.forecast

    @property
    def intensity(self) -> float:
        """The carbon intensity of the current slot, gCO2eq/kWh; NaN when unknown."""
        return self.history.at(self.now)

    def limit(self, tier: Tier) -> float:
        """Return a tier's threshold in gCO2eq/kWh; a percentile is taken over the last 28 days up to the current slot.

        With less than a day of history it is taken over the forecast; NaN without a forecast.
        """
        if not isinstance(tier.threshold, Percentile):
            return tier.threshold
        end = min(self.history.end, self.now + self.history.step)
        if self.history.known(end - TRAILING, end) >= DAY or self.forecast is None:
            return self.history.percentile(tier.threshold.percent, end, TRAILING)
        expected = self.forecast.mean
        return expected.percentile(tier.threshold.percent, expected.end, expected.end - expected.start)

    def due(self, work: Work) -> bool:
        """Whether the work's latest start is reached, or is less than `min_wait` away."""
        return self.now >= work.latest_start - self.min_wait

    def clean_soon(self, limit: float) -> bool:
        """Whether the next slot starts within `min_wait` and is forecast at or below the limit."""
        step = self.history.step
        edge = self.history.start + (self.history.index(self.now) + 1) * step
        if edge - self.now > self.min_wait or self.forecast is None:
            return False
        return self.forecast.mean.at(edge) <= limit

    @property
    def free(self) -> list[Device]:
        taken = {busy.device for busy in self.running}
        return [device for device in self.devices if device.name not in taken]


@dataclass(frozen=True, slots=True)
class Start:
    """Start these experiments together, up to a step, on a device. `due` work must not be paused later."""

    members: tuple[str, ...]
    to_step: int
    device: str
    why: str
    due: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop an attempt at a checkpoint; its remaining steps wait again."""

    attempt: str
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave an experiment waiting, until `until` at the latest."""

    experiment: str
    until: datetime | None
    why: str


Decision = Start | Pause | Wait


class Policy(Protocol):
    """Decides what starts, pauses and waits; `schedule.step` enforces devices and deadlines on every decision."""

    def decide(self, situation: Situation) -> Sequence[Decision]: ...


NO_DEVICE = "ready, waiting for a free device"


def place(situation: Situation, candidates: Iterable[Work], why: Callable[[Work], str]) -> list[Decision]:
    """Start candidates, in the order given, on free devices; the rest wait for a device."""
    free = situation.free
    decisions: list[Decision] = []
    for work in candidates:
        device = next((d for d in free if work.device in (None, d.name)), None)
        if device is None:
            decisions.append(Wait(work.experiment, work.latest_start, NO_DEVICE))
        else:
            free.remove(device)
            decisions.append(Start((work.experiment,), work.to_step, device.name, why(work)))
    return decisions
