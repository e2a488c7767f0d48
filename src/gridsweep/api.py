"""The commands as functions with the same defaults; each returns a value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gridsweep import spec
from gridsweep.accounting.report import Report
from gridsweep.grid.recorded_forecasts import open_replay
from gridsweep.grid.registry import provider_for
from gridsweep.render import files
from gridsweep.runs import run as runs
from gridsweep.runs.run import Run
from gridsweep.schedule import capacity
from gridsweep.simulation import backtest
from gridsweep.simulation import plan as plans
from gridsweep.simulation.backtest import Simulation
from gridsweep.simulation.conditions import Conditions
from gridsweep.simulation.plan import Plan
from gridsweep.sweep.sweep import PolicyChoice, Sweep


def load(path: str | Path) -> Sweep:
    """Read a `sweep.yaml`. Raise `SpecError` with all errors of the file at once."""
    return spec.load(path)


def plan(sweep: Sweep, at: datetime | None = None) -> Plan:
    """Plan a sweep on the forecast at a moment (default: now, or the start of its replayed clock).

    Raise `DeadlineError` if no plan can meet the deadline, `TraceError` if there is too little history for a forecast.
    """
    now = at or (sweep.replay.start if sweep.replay else datetime.now(UTC))
    capacity.check_deadline(sweep, now)
    return plans.plan(sweep, provider_for(sweep.carbon), now)


def simulate(
    sweep: Sweep,
    trace: str | Path | None = None,
    *,
    policies: Sequence[str | PolicyChoice] = (),
    every: timedelta = timedelta(hours=6),
    start: datetime | None = None,
    end: datetime | None = None,
    tick: timedelta | None = None,
    forecast: str = "history",
    devices: int | None = None,
    finish_by: timedelta | None = None,
    idle_power_w: float | None = None,
    lengths: float = 0.0,
    bounds: bool = True,
    against: Sweep | None = None,
) -> Simulation:
    """Backtest policies (default: the sweep's own) on a trace.

    `trace` is a file or `solar-valley` (default: the trace that the sweep names). Start times are `every` apart, from
    `start` (default: 28 days into the trace) to before `end` (default: nine days before its end). `forecast` is given
    to the policies: `history`, `perfect`, or `recorded:FILE`, which needs no trace. `devices` is the number of devices,
    each like the sweep's first. `finish_by` replaces the tiers' start deadlines. `lengths` is the relative spread of
    real durations around the estimate. `bounds` computes the achievable saving too. The baseline of all reductions is
    running the same sweep at once, or the sweep `against`.
    """
    provider = open_replay(None if trace is None else str(trace), forecast, sweep.carbon)
    starts = backtest.start_instants(provider.trace, every, start, end)
    conditions = Conditions(
        policies=policies, tick=tick, forecast=forecast, devices=devices, finish_by=finish_by,
        idle_power_w=idle_power_w, lengths=lengths, bounds=bounds, against=against,
    )  # fmt: skip
    return backtest.simulate(sweep, provider, starts, conditions)


def run(sweep: Sweep, folder: str | Path | None = None) -> Run:
    """Run a sweep on this machine, or resume it, in `folder` (default: runs/<name of the sweep>)."""
    done = runs.run(sweep, folder)
    files.publish(done.folder, done.report)
    return done


def report(folder: str | Path) -> Report:
    """Return the report of the sweep in a run folder, as of now."""
    return runs.report(folder)
