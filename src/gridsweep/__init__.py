"""LoRA hyperparameter sweeps with a fraction of the work, run when the grid is cleanest.

import gridsweep

sweep = gridsweep.load("sweep.yaml")
print(gridsweep.plan(sweep).reduction)
print(gridsweep.run(sweep).report.best)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any  # the public names have types of their own

__version__ = "0.2.0"

if TYPE_CHECKING:
    from gridsweep.accounting.report import Report
    from gridsweep.api import load, plan, report, run, simulate
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
    "load": "api",
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
    "load",
    "plan",
    "report",
    "run",
    "simulate",
]


def handed_on(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:  # Any: a module's names are of any type
    """Return a module's `__getattr__` that imports a name in `homes` from its module below `package` on first use.

    Importing a package therefore costs nothing, and works on a worker that holds only some of its files.
    """

    def named(name: str) -> Any:  # Any: as above
        if name not in homes:
            raise AttributeError(f"module {package} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return named


def __getattr__(name: str) -> Any:  # Any: a public name is a class or a function
    if name == "Sweep":
        import_module("gridsweep.spec")  # attaches `Sweep.load`, the old name of `gridsweep.load`
    return handed_on(__name__, _HOMES)(name)


def __dir__() -> list[str]:
    return __all__
