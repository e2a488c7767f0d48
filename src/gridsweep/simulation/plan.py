"""A plan: a sweep rehearsed on the forecast, its expected saving, and the spread of the saving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Reading
from gridsweep.carbon.spans import hours
from gridsweep.carbon.traces import DAY, HOUR, Column, Trace
from gridsweep.errors import TraceError
from gridsweep.loop import Provider
from gridsweep.policy.gates import Immediate
from gridsweep.policy.planner.planned import Planned
from gridsweep.policy.registry import policy_for
from gridsweep.policy.situation import Policy
from gridsweep.schedule.capacity import check_work, least_makespan, reach_of
from gridsweep.schedule.step import situation
from gridsweep.simulation.plan_rows import PlanRow, plan_rows
from gridsweep.simulation.plan_spread import band_of, continued, in_past_weeks, over_paths
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.virtual import Foreseen
from gridsweep.state.state import State
from gridsweep.sweep.counting import counted
from gridsweep.sweep.rung_prices import rungs_told
from gridsweep.sweep.sweep import Sweep

MIN_SAVING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The schedule of the policy if the forecast came true; `reduction` is against `immediate` on the same devices.

    `saving_p10` to `saving_p90` are percentiles of the share saved, over the cases that `saving_from` names; None with
    too little data. For the default policy they are the savings on which it decides; `past_p10` to `past_p90` are its
    savings on past days. Columns are gCO2eq/kWh by slot from `intensity_start` on, None if unknown. `unknown_kwh` is
    energy in hours that the forecast does not cover: the emissions exclude it. `notes` are caveats.
    """

    sweep: str
    policy: str
    issued_at: datetime
    forecast: str
    source: str
    quality: str
    devices: tuple[str, ...]
    rows: tuple[PlanRow, ...]
    finish: datetime
    finish_immediate: datetime
    deadline: datetime | None
    energy_kwh: float
    emissions_g: float
    emissions_immediate_g: float
    emissions_low_g: float | None
    emissions_high_g: float | None
    unknown_kwh: float
    idle_kwh: float
    idle_g: float
    slow_down: float
    saving_p10: float | None = None
    saving_p50: float | None = None
    saving_p90: float | None = None
    saving_from: str = ""
    past_p10: float | None = None
    past_p50: float | None = None
    past_p90: float | None = None
    past_from: str = ""
    notes: tuple[str, ...] = ()
    intensity_start: datetime
    intensity_step_h: float
    intensity: tuple[float | None, ...] = ()
    intensity_low: tuple[float | None, ...] = ()
    intensity_high: tuple[float | None, ...] = ()
    schema_version: int = 4

    @property
    def reduction(self) -> float:
        """The expected share saved; NaN if part of the forecast is unknown."""
        if self.unknown_kwh:
            return float("nan")
        return 1 - self.emissions_g / self.emissions_immediate_g if self.emissions_immediate_g > 0 else 0.0

    @property
    def late(self) -> bool:
        """Whether the plan misses a deadline: the sweep's `finish_by`, or the latest start of an experiment."""
        return self.misses_finish_by or any(row.late_h > 0 for row in self.rows)

    @property
    def misses_finish_by(self) -> bool:
        """Whether the plan ends after the sweep's `finish_by`."""
        return self.deadline is not None and self.finish > self.deadline


def plan(sweep: Sweep, provider: Provider, now: datetime) -> Plan:
    """Rehearse a sweep submitted at `now` on the forecast of `now`, as if it came true.

    Raise `TraceError` if the history is too short for a forecast, `SpecError` for work that cannot be planned.
    """
    check_work(sweep)
    reading = provider.read(now)
    forecast = reading.forecast
    if forecast is None or not np.isfinite(forecast.mean.values).any():
        raise TraceError(
            f"{reading.provenance.title} has less than 24 hours of history before {now:%Y-%m-%d %H:%M} UTC, too little "
            "for a forecast; choose a later start, or a longer trace"
        )
    policy, until = policy_for(sweep.policy), _until(sweep, now)
    expected = expected_grid(sweep, reading, forecast, now)
    seen = Foreseen(expected, replace(reading.provenance, title=forecast.source, quality="forecast"))
    planned, atonce = rehearse(sweep, now, seen, policy), rehearse(sweep, now, seen, Immediate())
    band = band_of(reading.history, forecast, until)
    made = _bare(sweep, reading, forecast, planned, atonce, band)
    made = _drawn(made, expected, forecast.start, band, now + reach_of(sweep, now))
    savings, tried = in_past_weeks(sweep, reading, now, reach_of(sweep, now))
    if not savings and not made.unknown_kwh:
        savings, tried = over_paths(planned, atonce, reading.history, forecast, until)
    p10, p50, p90 = _tenths(savings)
    made = replace(made, past_p10=p10, past_p50=p50, past_p90=p90, past_from=tried)
    judged = _judged(policy, planned, seen, now)
    if judged is not None:
        savings, tried = judged.tolist(), f"the best placement in {len(judged)} scenarios from recent weeks"
    p10, p50, p90 = _tenths(savings)
    made = replace(made, saving_p10=p10, saving_p50=p50, saving_p90=p90, saving_from=tried)
    notes = _notes(made, forecast, getattr(policy, "min_saving", MIN_SAVING))
    if sweep.rungs is not None:
        notes.append("survivors of rungs are unknown yet; this plan assumes the first listed")
        notes.append(rungs_told(sweep))
    return replace(made, notes=tuple(notes))


def expected_grid(sweep: Sweep, reading: Reading, forecast: Forecast, now: datetime) -> Trace:
    """Return the observed grid continued by the mean forecast, as far as the sweep may reach."""
    return continued(reading.history, forecast, forecast.mean.values, _until(sweep, now))


def _until(sweep: Sweep, now: datetime) -> datetime:
    return now + reach_of(sweep, now) + least_makespan(sweep, now) + DAY


def _bare(
    sweep: Sweep,
    reading: Reading,
    forecast: Forecast,
    planned: State,
    atonce: State,
    band: tuple[Trace, Trace] | None,
) -> Plan:
    """Return the plan's rows and figures, without spread, curves and notes."""
    book, base = ledger(planned), ledger(atonce)
    low, high = (_emitted(ledger(planned, side)) for side in band) if band else (None, None)
    return Plan(
        sweep=sweep.name,
        policy=sweep.policy.name,
        issued_at=planned.submitted_at,
        forecast=forecast.source,
        source=reading.provenance.title,
        quality=reading.provenance.quality,
        devices=tuple(device.name for device in sweep.devices),
        rows=plan_rows(planned, atonce, book, base, band),
        finish=book.ended_at,
        finish_immediate=base.ended_at,
        deadline=sweep.deadline(planned.submitted_at),
        energy_kwh=book.total.energy_kwh,
        emissions_g=book.total.emissions_g,
        emissions_immediate_g=base.total.emissions_g,
        emissions_low_g=low,
        emissions_high_g=high,
        unknown_kwh=book.total.unknown_kwh + base.total.unknown_kwh,
        idle_kwh=book.idle.energy_kwh,
        idle_g=book.idle.emissions_g,
        slow_down=book.makespan / base.makespan,
        intensity_start=planned.submitted_at,
        intensity_step_h=forecast.step / HOUR,
    )


def _drawn(made: Plan, expected: Trace, start: datetime, band: tuple[Trace, Trace] | None, reach: datetime) -> Plan:
    """Return the plan with its curves, from a day before the plan to six hours after its last end, or its deadline.

    The band begins with the forecast, at `start`; a deadline after `reach` is not shown.
    """
    end = max(made.finish, made.finish_immediate, min(made.deadline or made.issued_at, reach))
    shown = expected.between(made.issued_at - DAY, end + 6 * HOUR)
    low, high = (_column(side.between(shown.start, shown.end), start) for side in band) if band else ((), ())
    return replace(
        made,
        intensity_start=shown.start,
        intensity_step_h=shown.step / HOUR,
        intensity=_column(shown),
        intensity_low=low,
        intensity_high=high,
    )


# -- what is expected


def _tenths(savings: Sequence[float]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Return the 10th, 50th and 90th percentile."""
    if not savings:
        return None, None, None
    p10, p50, p90 = np.percentile(savings, (10, 50, 90)).tolist()
    return p10, p50, p90


def _judged(policy: Policy, planned: State, provider: Provider, now: datetime) -> Column | None:
    """Return the savings on which the default policy decides whether to wait; None for other policies."""
    if not isinstance(policy, Planned) or policy.min_saving <= 0:
        return None
    return policy.expected_savings(situation(planned, provider.read(now), now))


def _emitted(book: Ledger) -> float | None:
    return None if book.total.unknown_kwh else book.total.emissions_g


# -- caveats


def _notes(made: Plan, forecast: Forecast, min_saving: float) -> list[str]:
    notes = []
    waits = sorted(row.start for row in made.rows) != sorted(row.earliest for row in made.rows)
    more = made.finish - made.finish_immediate
    if made.policy == "planned" and not waits:
        notes.append(f"waiting would save less than {_percent(min_saving)}: all work runs at once")
    elif waits and made.reduction < min_saving:
        notes.append(f"waiting is not worth it: {_percent(made.reduction)} less than at once, {hours(more)} later")
    elif waits and made.saving_p50 is not None and made.saving_p50 < min_saving:
        notes.append(f"waiting may not be worth it: half of the scenarios save {_percent(made.saving_p50)} or less")
    late = sorted((row for row in made.rows if row.late_h > 0), key=lambda row: -row.late_h)
    if late:
        listed = ", ".join(f"{row.experiment} {hours(row.late_h * HOUR)}" for row in late[:3])
        rest = f" and {len(late) - 3} more" if len(late) > 3 else ""
        what = "starts after its deadline" if len(late) == 1 else "start after their deadline"
        on = counted(len(made.devices), "device")
        notes.append(f"{counted(len(late), 'experiment')} {what}, on {on}: {listed}{rest}")
    if max(made.finish, max(row.latest_start for row in made.rows)) > forecast.end:
        notes.append(f"the forecast ends on {forecast.end:%Y-%m-%d %H:%M} UTC; after that its last day is repeated")
    holes = int((~np.isfinite(forecast.mean.values)).sum())
    if holes:
        cost = "; the emissions exclude the energy used in them" if made.unknown_kwh else ""
        notes.append(f"the forecast has {holes} unknown slots{cost}")
    if made.emissions_low_g is None and not made.unknown_kwh:
        notes.append("the typical error of this forecast is unknown: no 80 % interval is shown")
    return notes


def _percent(share: float) -> str:
    return f"{100 * share + 0.0:.1f} %"


def _column(trace: Trace, since: datetime | None = None) -> tuple[float | None, ...]:
    """Return values by slot; None where unknown, and before `since`."""
    known: Sequence[float] = trace.values.tolist()
    moments = (trace.start + i * trace.step for i in range(len(known)))
    return tuple(
        value if np.isfinite(value) and (since is None or moment >= since) else None
        for value, moment in zip(known, moments, strict=True)
    )
