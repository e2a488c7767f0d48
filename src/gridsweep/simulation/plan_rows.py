"""The rows of a plan: each experiment's schedule, stint by stint, and its emissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gridsweep.accounting.ledger import Ledger, charge
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.schedule.capacity import least_makespan
from gridsweep.state.overdue import tolerance
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State


@dataclass(frozen=True, slots=True)
class Leg:
    """One stint of an experiment: from a start or a resumption to a rung, a pause or the end."""

    device: str
    start: datetime
    end: datetime
    from_step: int
    to_step: int
    why: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One experiment's schedule in a plan, with its emissions if run at once and as planned, in g.

    `earliest` is the start if all work ran at once. `late_h` is the time from `latest_start`, by the tier's `max_delay`
    and the sweep's `finish_by`, to `start`. Between its `legs` the experiment waits, for a rung or for the grid.
    `start` is the start of the first leg, `end` the end of the last. `emissions_low_g` to `emissions_high_g` is the
    80 % interval of `emissions_g` by the errors of past forecasts; None if unknown.
    """

    experiment: str
    tier: str
    device: str
    earliest: datetime
    start: datetime
    end: datetime
    latest_start: datetime
    late_h: float
    pauses: int
    why: str
    energy_kwh: float
    emissions_now_g: float | None
    emissions_g: float | None
    emissions_low_g: float | None
    emissions_high_g: float | None
    legs: tuple[Leg, ...]


def plan_rows(
    planned: State, atonce: State, book: Ledger, base: Ledger, band: tuple[Trace, Trace] | None
) -> tuple[PlanRow, ...]:
    """Return a row for every experiment of a rehearsal, by start, compared with the rehearsal of running at once.

    `book` and `base` are the two rehearsals' ledgers, `band` the sides of the forecast's error band.
    """
    rows = []
    for id, standing in planned.standings.items():
        attempts = [planned.attempts[a] for a in standing.attempts]
        first, account, other = attempts[0], book.experiments[id], base.experiments[id]
        latest = _latest_start(planned, id)
        late = first.requested_at - latest
        low, high = _range(attempts, band)
        rows.append(
            PlanRow(
                experiment=id,
                tier=standing.experiment.tier,
                device=first.device,
                earliest=atonce.attempts[atonce.standings[id].attempts[0]].requested_at,
                start=first.requested_at,
                end=attempts[-1].ended_at or book.ended_at,
                latest_start=latest,
                late_h=late / HOUR if late > tolerance(planned) else 0.0,
                pauses=sum(attempt.end == "paused" for attempt in attempts),
                why=first.why,
                energy_kwh=account.energy_kwh,
                emissions_now_g=None if other.unknown_kwh else other.emissions_g,
                emissions_g=None if account.unknown_kwh else account.emissions_g,
                emissions_low_g=low,
                emissions_high_g=high,
                legs=tuple(_leg(attempt, id, book.ended_at) for attempt in attempts),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.start, row.device)))


def _leg(attempt: Attempt, id: str, last: datetime) -> Leg:
    member = next(member for member in attempt.stint.members if member.experiment == id)
    steps = attempt.step - min(member.from_step for member in attempt.stint.members)
    to = min(member.from_step + steps, member.to_step)
    return Leg(attempt.device, attempt.requested_at, attempt.ended_at or last, member.from_step, to, attempt.why)


def _latest_start(planned: State, id: str) -> datetime:
    """Return the latest start by the tier's `max_delay` and the sweep's `finish_by`."""
    sweep, now = planned.sweep, planned.submitted_at
    standing, deadline = planned.standings[id], sweep.deadline(now)
    latest = standing.submitted_at + sweep.tier(standing.experiment.tier).max_delay
    if deadline is None:
        return latest
    if sweep.staged and all(e.id != id for event in planned.additions for e in event.experiments):
        return min(latest, deadline - least_makespan(sweep, now))
    return min(latest, deadline - sweep.estimates.duration / max(device.speed for device in sweep.devices))


def _range(attempts: Sequence[Attempt], band: tuple[Trace, Trace] | None) -> tuple[float | None, float | None]:
    """Return an experiment's emissions on either side of the forecast's band, g; None if part of it is unknown."""
    drawn = [
        replace(segment, kwh=segment.kwh / len(attempt.stint.members))
        for attempt in attempts
        for segment in attempt.energy
    ]
    sides = [charge(drawn, side) for side in band] if band else []
    if not sides:
        return None, None
    low, high = [None if side.unknown_kwh else side.emissions_g for side in sides]
    return low, high
