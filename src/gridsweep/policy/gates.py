"""Gates: policies that compare the current intensity with a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import isnan

from gridsweep.carbon.spans import hours
from gridsweep.policy.situation import Decision, Pause, Situation, Wait, Work, place
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import SignalLoss
from gridsweep.sweep.tiers import Percentile, Tier


@dataclass(frozen=True, slots=True)
class Immediate:
    """Run everything at once and ignore the grid, as sweeps usually do."""

    def decide(self, situation: Situation) -> Sequence[Decision]:
        return place(situation, situation.waiting, lambda work: "runs at once")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Start work at or below its tier's limit, or once its latest start is reached: the published gate."""

    def decide(self, situation: Situation) -> Sequence[Decision]:
        intensity = situation.intensity
        able: list[Work] = []
        decisions: list[Decision] = []
        for work in situation.waiting:
            limit = situation.limit(work.tier)
            if intensity <= limit or situation.due(work) or situation.clean_soon(limit):
                able.append(work)
            else:
                why = _unknown if isnan(intensity) or isnan(limit) else _above(_whose(work.tier), limit)
                decisions.append(Wait(work.experiment, work.latest_start, why))
        if able:
            decisions += place(situation, able, lambda work: _why(situation, work))
        return decisions


@dataclass(frozen=True, slots=True)
class OnOff:
    """Pause running work above `pause_above` and resume it at or below `resume_below`, both gCO2eq/kWh."""

    pause_above: float
    resume_below: float

    def decide(self, situation: Situation) -> Sequence[Decision]:
        intensity = situation.intensity
        decisions: list[Decision] = [
            Pause(busy.attempt, f"{intensity:.0f} g/kWh, above {number(self.pause_above)}")
            for busy in situation.running
            if intensity > self.pause_above and not busy.due and not busy.pausing
        ]
        able: list[Work] = []
        for work in situation.waiting:
            if intensity <= self.resume_below or situation.due(work):
                able.append(work)
            else:
                why = _unknown if isnan(intensity) else _above("the sweep", self.resume_below)
                decisions.append(Wait(work.experiment, work.latest_start, why))
        started = f"{intensity:.0f} g/kWh, at or below {number(self.resume_below)}"
        return decisions + place(
            situation, able, lambda work: started if intensity <= self.resume_below else _late(work)
        )


def blind(situation: Situation, how: SignalLoss) -> list[Decision]:
    """Decide for waiting work while the grid signal is lost, since the policy would only be guessing.

    `wait_until_deadline` starts only due work, `wait` starts nothing, `run` starts work on every free device.
    """
    if how == "run":
        return place(situation, situation.waiting, lambda work: f"{_lost}; on_signal_loss is run")
    if how == "wait":
        return [Wait(work.experiment, None, f"{_lost}; on_signal_loss is wait") for work in situation.waiting]
    due = [work for work in situation.waiting if situation.due(work)]
    waits = [Wait(work.experiment, work.latest_start, _lost) for work in situation.waiting if work not in due]
    return [*waits, *place(situation, due, _late)]


_lost = "no grid data from any provider"


_unknown = "the grid's intensity is unknown"


@cache
def _above(whose: str, limit: float) -> str:
    return f"the grid is above {whose}'s limit of {_level(limit)} g/kWh"


def _whose(tier: Tier) -> str:
    return f"{tier.name} ({tier.threshold})" if isinstance(tier.threshold, Percentile) else tier.name


def _level(limit: float) -> str:
    return number(round(limit, 1))


def _why(situation: Situation, work: Work) -> str:
    limit = situation.limit(work.tier)
    if situation.intensity <= limit:
        return f"{situation.intensity:.0f} g/kWh, at or below {_whose(work.tier)}'s limit of {_level(limit)}"
    return (
        _late(work) if situation.due(work) else f"the next slot starts soon; forecast at or below {_level(limit)} g/kWh"
    )


def _late(work: Work) -> str:
    return f"latest start reached ({work.tier.name} waits at most {hours(work.tier.max_delay)})"
