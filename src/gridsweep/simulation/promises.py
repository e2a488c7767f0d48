"""The plan's promise at the submission against the result: the difference and its causes.

The difference is split in four steps, three of them by rehearsals of the work that was trained:

1. `durations`: the policy on the promised forecast, with the real durations, energy and survivors of rungs. The
   difference from the promise is caused by the work.
2. `grid`: the same schedule on the observed intensities.
3. `lost`: the emissions of lost work and of repeated loading, which no rehearsal contains.
4. `rest`: the remaining difference to the sweep's saving: starts forced by deadlines, later forecasts.

The order matters: a part shared by two causes goes to the first of them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.accounting.savings import Promise, compare
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import DAY, HOUR, Trace, or_nan, or_nones
from gridsweep.errors import GridsweepError
from gridsweep.policy.gates import Immediate
from gridsweep.policy.registry import policy_for
from gridsweep.simulation.plan import expected_grid
from gridsweep.simulation.rehearsal import again, rehearse
from gridsweep.simulation.virtual import Foreseen
from gridsweep.state.events import Promised
from gridsweep.state.state import State
from gridsweep.sweep.sweep import Sweep

MOST = 200
"""The most experiments rehearsed beside a run: more would delay its start and its report."""

ROOM = 4 * DAY


def promised(sweep: Sweep, reading: Reading, now: datetime) -> Promised | None:
    """Return the plan's promise for a sweep submitted at `now`; None without a forecast or if too large."""
    forecast = reading.forecast
    if len(sweep.experiments) > MOST or forecast is None or not np.isfinite(forecast.mean.values).any():
        return None
    expected = expected_grid(sweep, reading, forecast, now)
    seen = Foreseen(expected, replace(reading.provenance, title=forecast.source, quality="forecast"))
    planned = rehearse(sweep, now, seen, policy_for(sweep.policy))
    book, base = ledger(planned), ledger(rehearse(sweep, now, seen, Immediate()))
    if book.total.unknown_kwh or base.total.unknown_kwh:
        return None
    ahead = expected.between(forecast.start, expected.end)
    return Promised(
        at=now,
        emissions_g=book.total.emissions_g,
        immediate_g=base.total.emissions_g,
        finish=book.ended_at,
        finish_immediate=base.ended_at,
        work=work_of(planned),
        forecast=forecast.source,
        start=ahead.start,
        step=ahead.step,
        values=or_nones(ahead.values),
    )


def promise(state: State, book: Ledger, other: tuple[State, Ledger] | None) -> Promise | None:
    """Return the journal's promise against the result; `other` is the baseline. None if nothing was promised."""
    told = state.promised
    if told is None:
        return None
    share = 1 - told.emissions_g / told.immediate_g if told.immediate_g > 0 else None
    makespan = (told.finish - told.at) / HOUR
    made = Promise(told.forecast, share, told.emissions_g, makespan, None, None, None)
    if state.left or state.active or share is None:
        return made
    found = compare(state, book, other[1] if other else None)
    made = replace(made, came=found.reduction, came_g=found.actual_g, came_h=book.makespan / HOUR)
    if made.came is None:
        return made
    if state.amendments:
        return replace(made, why="the sweep was changed while it ran")
    if len(state.standings) > MOST:
        return replace(made, why=f"more than {MOST} experiments are too many to rehearse for a report")
    length = work_of(state) / told.work if told.work > timedelta(0) else None
    return _explained(replace(made, length=length), state, book, told, other)


def _explained(
    made: Promise, state: State, book: Ledger, told: Promised, other: tuple[State, Ledger] | None
) -> Promise:
    """Return the promise with the causes of the difference."""
    assert made.promised is not None and made.came is not None and other is not None
    seen = Foreseen(_as_forecast(state, told), Provenance(told.forecast, "forecast"))
    try:
        planned = again(state, seen, policy_for(state.sweep.policy), as_planned=True)
        atonce = again(state, seen, Immediate(), as_planned=True)
    except GridsweepError as error:
        return replace(made, why=str(error))
    after_work = _reduction(ledger(planned), ledger(atonce)) if planned and atonce else None
    if planned is None or after_work is None:
        return replace(made, why="the finished work cannot be placed on the promised forecast")
    durations = after_work - made.promised
    lost = -(book.wasted + book.reloaded).emissions_g / other[1].total.emissions_g
    after_grid = _reduction(ledger(planned, state.history), other[1])
    if after_grid is None:
        why = "the promised schedule exceeds the observed hours: the grid's part is included in the rest"
        return replace(made, durations=durations, lost=lost, rest=made.came - after_work - lost, why=why)
    grid, rest = after_grid - after_work, made.came - after_grid - lost
    return replace(made, durations=durations, grid=grid, lost=lost, rest=rest)


def _as_forecast(state: State, told: Promised) -> Trace:
    """Return the grid as known at the submission, continued by the promised forecast, whose last day is repeated."""
    known = state.history.between(state.history.start, told.start)
    values = or_nan(told.values)
    day = values[-max(1, min(len(values), DAY // told.step)) :]
    until = (
        state.history.end + (state.history.end - told.at) + ROOM
    )  # the same work may end later on the promised forecast
    slots = max(0, -(-(until - told.start) // told.step) - len(values))
    past = known.values if known.step == told.step else np.array([])
    return Trace(told.start - len(past) * told.step, told.step, np.concatenate([past, values, np.resize(day, slots)]))


def _reduction(book: Ledger, base: Ledger) -> float | None:
    """Return the share saved against running at once; None if either used energy at unknown intensity."""
    if book.total.unknown_kwh or base.total.unknown_kwh or base.total.emissions_g <= 0:
        return None
    return 1 - book.total.emissions_g / base.total.emissions_g


def work_of(state: State) -> timedelta:
    """Return the total duration of all stints."""
    return sum((a.ended_at - a.requested_at for a in state.attempts.values() if a.ended_at), timedelta(0))
