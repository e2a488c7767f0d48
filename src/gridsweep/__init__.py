"""Hyperparameter sweeps of LoRA fine-tuning that watch the power grid.

from gridsweep import Sweep, plan, run

sweep = Sweep.load("sweep.yaml")
print(plan(sweep).reduction)
print(run(sweep).report.best)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridsweep.accounting.report import Report
    from gridsweep.api import plan, report, run, simulate
    from gridsweep.carbon.forecasts import Forecast
    from gridsweep.carbon.readings import Reading
    from gridsweep.carbon.traces import Trace
    from gridsweep.errors import GridsweepError, SpecError
    from gridsweep.loop import drive
    from gridsweep.policy.gates import Immediate, OnOff, Threshold
    from gridsweep.policy.situation import Policy, Situation
    from gridsweep.runs.run import Run
    from gridsweep.simulation.backtest import Simulation
    from gridsweep.simulation.plan import Plan
    from gridsweep.state.state import State
    from gridsweep.sweep.experiments import Experiment, LoraParams
    from gridsweep.sweep.stints import Device
    from gridsweep.sweep.sweep import Sweep
    from gridsweep.sweep.tiers import Tier

_HOMES = {
    "Device": "sweep.stints",
    "Experiment": "sweep.experiments",
    "Forecast": "carbon.forecasts",
    "GridsweepError": "errors",
    "Immediate": "policy.gates",
    "LoraParams": "sweep.experiments",
    "OnOff": "policy.gates",
    "Plan": "simulation.plan",
    "Policy": "policy.situation",
    "Reading": "carbon.readings",
    "Report": "accounting.report",
    "Run": "runs.run",
    "Simulation": "simulation.backtest",
    "Situation": "policy.situation",
    "SpecError": "errors",
    "State": "state.state",
    "Sweep": "sweep.sweep",
    "Threshold": "policy.gates",
    "Tier": "sweep.tiers",
    "Trace": "carbon.traces",
    "drive": "loop",
    "plan": "api",
    "report": "api",
    "run": "api",
    "simulate": "api",
}

__all__ = [
    "Device",
    "Experiment",
    "Forecast",
    "GridsweepError",
    "Immediate",
    "LoraParams",
    "OnOff",
    "Plan",
    "Policy",
    "Reading",
    "Report",
    "Run",
    "Simulation",
    "Situation",
    "SpecError",
    "State",
    "Sweep",
    "Threshold",
    "Tier",
    "Trace",
    "drive",
    "plan",
    "report",
    "run",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import gridsweep` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"gridsweep has no {name!r}")
    return getattr(import_module(f"gridsweep.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
