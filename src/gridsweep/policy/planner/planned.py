"""The default policy: place all remaining work on the forecast, again at every tick.

A stint starts if starting now emits no more than the best later start, given all devices and all deadlines. The rule
itself is in `postponing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon.forecaster import from_history
from gridsweep.carbon.traces import HOUR, Column, Trace
from gridsweep.policy.backlog import SECOND, Remaining, lanes, work_ahead, work_waiting
from gridsweep.policy.planner.exact import placed
from gridsweep.policy.planner.pausing import around, is_long
from gridsweep.policy.planner.postponing import CHEAPEST, CLEANER, savings, verdicts
from gridsweep.policy.situation import NO_DEVICE, Decision, Situation, Start, Wait, Work, place

MINUTE = timedelta(minutes=1)
AHEAD = timedelta(hours=96)
FEW = 24
"""Up to this many stints of unequal length are placed exactly; more are counted in units of the next one's length."""
REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Planned:
    """Place all waiting work where the forecast expects the lowest emissions, and start the work placed now.

    If the median saving of the whole sweep, over scenarios from the days before its submission, is below `min_saving`,
    everything runs at once. This is judged on what was known at the submission and does not change later. With
    `pausing`, stints with a long remainder pause at a checkpoint if the pause saves more than the restart costs, each
    at most `max_pauses` times. `exact` places stints by the exact optimum at every tick, at any instant, and never
    pauses; without it, this is done only if lengths differ and the stints are few.
    """

    min_saving: float = 0.05
    pausing: bool = True
    exact: bool = False
    max_pauses: int = 6
    _judged: dict[object, Column | None] = field(default_factory=dict, compare=False, repr=False)

    def decide(self, situation: Situation) -> Sequence[Decision]:
        waiting = situation.waiting
        path = situation.forecast.mean if situation.forecast else None
        resting = self.pausing and not self.exact and path is not None and is_long(situation)
        if not resting and not waiting:
            return []
        if not resting and not situation.free:
            return [Wait(work.experiment, work.latest_start, NO_DEVICE) for work in waiting]
        if self.min_saving > 0 and (saving := self.expected_saving(situation)) < self.min_saving:
            why = f"waiting would save about {saving:.0%}, less than {self.min_saving:.0%}: runs at once"
            return place(situation, waiting, lambda work: why)
        if resting and path is not None:
            return around(situation, path, self.max_pauses)
        unequal = len({work.duration for work in waiting}) > 1
        if path is not None and not situation.ahead and (self.exact or (unequal and len(waiting) <= FEW)):
            found = _exactly(situation, path)
            if found is not None:
                return found
        return self._placed(situation, path, waiting)

    def expected_saving(self, situation: Situation) -> float:
        """Return the median of `expected_savings`; infinite if it cannot be known.

        A share of emissions, judged by what was known when the sweep was submitted.
        """
        found = self.expected_savings(situation)
        return float("inf") if found is None else float(np.median(found))

    def expected_savings(self, situation: Situation) -> Column | None:
        """Return the share of emissions that the best placement saves in each scenario; None if too little is known.

        The scenarios are the courses of the weeks before the submission, from the same hour of the day on, shifted to
        begin at the intensity of the submission.
        """
        at, work = situation.submitted_at or situation.now, situation.submitted
        key = (
            at,
            situation.history.at(at),
            len(work),
            work[0] if work else None,
            situation.finish_by,
            situation.devices,
        )
        if key not in self._judged:
            while len(self._judged) >= REMEMBERED:  # a back-test asks for many starts in turn
                del self._judged[next(iter(self._judged))]
            self._judged[key] = self._on_courses(situation, at, work)
        return self._judged[key]

    def _on_courses(self, situation: Situation, at: datetime, work: Sequence[Work]) -> Column | None:
        known = situation.history.between(situation.history.start, at + timedelta(microseconds=1))
        forecast = from_history(known, at, AHEAD) if len(known) else None
        if forecast is None or not work or forecast.start > at or situation.history.step > AHEAD:
            return None
        then = replace(situation, now=at, waiting=work, running=(), deadline=situation.finish_by)
        stints = work_waiting(then)
        if self.pausing and not self.exact and is_long(then):
            stints = [piece for stint in stints for piece in _pieces(stint)]
        return savings(forecast, at, stints, lanes(then), tick=situation.tick)

    def _placed(self, situation: Situation, path: Trace | None, waiting: Sequence[Work]) -> list[Decision]:
        found = verdicts(
            path,
            situation.now,
            work_waiting(situation),
            lanes(situation),
            tick=situation.tick,
            ahead=work_ahead(situation),
        )
        decisions: list[Decision] = []
        started: set[str] = set()
        until: datetime | None = None
        held = False
        for verdict in found:
            if verdict.stint is None:
                held = True
                until = min(verdict.until, until) if verdict.until and until else verdict.until or until
                continue
            work = waiting[verdict.stint]
            started.add(work.experiment)
            name = situation.devices[verdict.lane].name
            decisions.append(Start((work.experiment,), work.to_step, name, verdict.why))
        for work in waiting:
            if work.experiment not in started:
                why = CLEANER if held else NO_DEVICE
                decisions.append(Wait(work.experiment, _until(work, until) if held else work.latest_start, why))
        return decisions


def _exactly(situation: Situation, path: Trace) -> list[Decision] | None:
    """Return the decisions of the exact optimum on a path; None if not all deadlines can be met."""
    pieces = placed(situation, path)
    if pieces is None:
        return None
    free = {device.name for device in situation.free}
    works = {work.experiment: work for work in situation.waiting}
    decisions: list[Decision] = []
    for piece in pieces:
        work = works.pop(piece.job)
        if piece.start - situation.now <= SECOND * HOUR and piece.device in free:
            free.remove(piece.device)
            decisions.append(Start((work.experiment,), work.to_step, piece.device, CHEAPEST))
        else:
            decisions.append(Wait(work.experiment, piece.start, CLEANER if free else NO_DEVICE))
    return decisions


def _pieces(stint: Remaining) -> list[Remaining]:
    """Split a stint that may pause into stints of at most an hour."""
    count = -(-stint.length // HOUR)
    return [Remaining(stint.length / count, stint.latest_end)] * count


def _until(work: Work, until: datetime | None) -> datetime:
    """Round up to the minute, so that an estimate that moves by seconds is not a new decision."""
    if until is None or until > work.latest_start:
        return work.latest_start
    return until - timedelta(seconds=until.second, microseconds=until.microsecond) + MINUTE
