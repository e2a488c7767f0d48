"""Policies: what should start, pause or wait, given all that may be known.

A policy is any object with `decide(situation) -> decisions`. It holds no state: what it must remember is in the
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
    """Remaining steps of an experiment, waiting, and of `others` trained with it in one stint.

    `duration` and `energy_kwh` are estimates at device speed 1; of the duration `restart` is what coming back costs.
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

    @property
    def members(self) -> tuple[str, ...]:
        return (self.experiment, *self.others)

    @property
    def training(self) -> timedelta:
        """The duration without the restart."""
        return self.duration - self.restart

    @property
    def order(self) -> tuple[int, datetime, str]:
        """Who goes first among those that may start: tier rank, age, id."""
        return (self.tier.rank, self.ready_at, self.experiment)


@dataclass(frozen=True, slots=True)
class Busy:
    """A device at work. `due` work was started because its latest start had come: it is not to be paused.

    `pauses` is how often what runs on it has paused before.
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
    """All that may be known at `now`. `waiting` is in order; `ahead` is work that does not exist yet.

    By the `deadline` all should have ended; it keeps room before `finish_by`, the sweep's own, where lengths differ.
    Waits shorter than `min_wait` are not worth it; the next look is after a `tick`, at the latest. `submitted` is all
    the work there was at `submitted_at`.
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
        """What is expected from the present slot on, made when asked for; None where nobody can say."""
        return self.reading.forecast

    @property
    def intensity(self) -> float:
        """The present slot's, gCO2eq/kWh; NaN when unknown."""
        return self.history.at(self.now)

    def limit(self, tier: Tier) -> float:
        """A tier's threshold in gCO2eq/kWh: a percentile is one of the last 28 days up to the present slot.

        With less than a day of history it is one of the forecast; NaN where there is none either.
        """
        if not isinstance(tier.threshold, Percentile):
            return tier.threshold
        end = min(self.history.end, self.now + self.history.step)
        if self.history.known(end - TRAILING, end) >= DAY or self.forecast is None:
            return self.history.percentile(tier.threshold.percent, end, TRAILING)
        expected = self.forecast.mean
        return expected.percentile(tier.threshold.percent, expected.end, expected.end - expected.start)

    def due(self, work: Work) -> bool:
        """Whether its latest start has come, or is so near that waiting for it is not worth while."""
        return self.now >= work.latest_start - self.min_wait

    def clean_soon(self, limit: float) -> bool:
        """Whether the next slot is too near to wait for, and expected at or below the limit."""
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
    """Start these experiments together, up to a step, on a device. What is `due` must not be paused again."""

    members: tuple[str, ...]
    to_step: int
    device: str
    why: str
    due: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop an attempt at a checkpoint; what remains waits again."""

    attempt: str
    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave an experiment waiting, until then at the latest."""

    experiment: str
    until: datetime | None
    why: str


Decision = Start | Pause | Wait


class Policy(Protocol):
    """Decides; `step` checks what it decides against what no policy may get wrong."""

    def decide(self, situation: Situation) -> Sequence[Decision]: ...


NO_DEVICE = "may start, waits for a device"


def place(situation: Situation, candidates: Iterable[Work], why: Callable[[Work], str]) -> list[Decision]:
    """Start candidates, in the order given, on the devices that are free; the rest wait for one."""
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
