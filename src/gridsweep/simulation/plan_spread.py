"""The spread of a plan's saving: the sweep tried on past weeks, or the plan on the scenarios of its forecast."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.carbon.forecaster import from_history
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import DAY, Column, Trace, ceil_to
from gridsweep.policy.gates import Immediate
from gridsweep.policy.registry import policy_for
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.virtual import Observations
from gridsweep.state.state import State
from gridsweep.sweep.sweep import Sweep

WEEKS = timedelta(weeks=4)
"""The past period whose days the policy is tried on."""
KNOWN = timedelta(weeks=1)
"""A day is tried only with at least this much history before it."""
TRIES, FEWEST = 12, 5
"""The most days tried, and the fewest outcomes from which a spread is computed."""
WORK = 600
"""The total number of experiments rehearsed on past days."""


def continued(history: Trace, forecast: Forecast, values: Column, until: datetime) -> Trace:
    """Return the history, then values on the forecast's slots; after their end their last day is repeated."""
    step = forecast.step
    wanted = max(len(values), (ceil_to(until, step) - forecast.start) // step)
    day = min(len(values), DAY // step)
    more = np.resize(values[-day:], wanted - len(values))
    before = history.between(history.start, forecast.start).values
    return Trace(forecast.start - len(before) * step, step, np.concatenate([before, values, more]))


def band_of(history: Trace, forecast: Forecast, until: datetime) -> tuple[Trace, Trace] | None:
    """Return the two sides of the forecast's 80 % interval; None if the error is unknown or unbounded."""
    sides = [side.values for side in forecast.band()]
    known = np.isfinite(forecast.mean.values)
    if not all(np.isfinite(side[known]).all() for side in sides):
        return None
    if np.isnan(forecast.typical_error) and np.array_equal(sides[0][known], sides[1][known]):
        return None  # a single scenario without a known past error
    low, high = (continued(history, forecast, side, until) for side in sides)
    return low, high


class _Remembered(Observations):
    """A provider of the past as known at the time, with a forecast made from that history alone."""

    def __init__(self, trace: Trace, provenance: Provenance, horizon: timedelta):
        super().__init__(trace, provenance)
        self.horizon = horizon

    def read(self, now: datetime) -> Reading:
        past = super().read(now).history
        return Reading(past, lambda: from_history(past, now, self.horizon), self.provenance)


def in_past_weeks(sweep: Sweep, reading: Reading, now: datetime, reach: timedelta) -> tuple[list[float], str]:
    """Return the shares that the same sweep saves at this hour on past days, and a text that names the days."""
    history = reading.history
    first = -(-reach // DAY)
    last = min(first + WEEKS // DAY - 1, (now - history.start - KNOWN) // DAY)
    days = np.arange(first, last + 1)
    tries = min(TRIES, WORK // max(1, len(sweep.experiments)), len(days))
    if tries < FEWEST:
        return [], ""
    chosen = days[np.unique(np.linspace(0, len(days) - 1, tries).astype(int))]
    deadline = sweep.deadline(now)
    then = replace(sweep, finish_by=None if deadline is None else deadline - now, replay=None)
    past = _Remembered(history, reading.provenance, reach + DAY)
    found = []
    for day in chosen.tolist():
        start = now - day * DAY
        books = [ledger(rehearse(then, start, past, policy)) for policy in (policy_for(sweep.policy), Immediate())]
        if all(book.ended_at <= history.end and not book.total.unknown_kwh for book in books):
            found.append(_saving(*books))
    if len(found) < FEWEST:
        return [], ""
    return found, f"the same sweep at this hour on {len(found)} days of the past {-(-int(chosen[-1]) // 7)} weeks"


def over_paths(
    planned: State, atonce: State, history: Trace, forecast: Forecast, until: datetime
) -> tuple[list[float], str]:
    """Return the shares that this plan, without replanning, saves in each scenario of the forecast, and a text."""
    paths = forecast.paths[: max(FEWEST, WORK * 5 // max(1, len(planned.standings)))]
    if len(paths) < FEWEST or not np.isfinite(paths).all():
        return [], ""
    grids = [continued(history, forecast, path, until) for path in paths]
    found = [_saving(ledger(planned, grid), ledger(atonce, grid)) for grid in grids]
    return found, f"this plan, without replanning, in {len(found)} scenarios of the forecast"


def _saving(book: Ledger, base: Ledger) -> float:
    emitted = base.total.emissions_g
    return 1 - book.total.emissions_g / emitted if emitted > 0 else 0.0
