"""A survey of a model, its data and this machine for a sweep to be designed, by the worker's own code in a process."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from importlib.util import find_spec

from gridsweep.errors import GridsweepError, HubError, SpecError, printable
from gridsweep.records.attempts import Assignment
from gridsweep.runs.looking import NEEDED, answer
from gridsweep.sweep.constants import ENCODING
from gridsweep.sweep.experiments import Dataset, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.sweep.surveys import ASKED, Survey
from gridsweep.sweep.sweep import CarbonSource, Estimates, Sweep


def surveyed(model: Model, dataset: Dataset, carbon: CarbonSource, at: datetime) -> Survey:
    """Return the survey of a model and data on this machine.

    Raise `GridsweepError` without the extra `train`, `SpecError` for what a worker would refuse, `HubError` without a
    hub, `ExecutorError` if the survey itself fails.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise GridsweepError(f"recommend needs {missing[0]}, which is not installed; pip install 'gridsweep[train]'")
    recipe = Recipe(max_length=ASKED)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    asked = Assignment("survey", model, dataset, recipe, 1, Device("device0"), (), "full", ENCODING, {}, day)
    estimates = Estimates(timedelta(hours=1), 1.0)
    nothing = Sweep("survey", model, dataset, recipe, (), (), estimates, (), 1, carbon)  # keeps the provider's secrets
    found = answer(Survey, "gridsweep.train.survey", asked, nothing)
    if found.unreachable:
        raise HubError(found.unreachable)
    if found.error:
        raise SpecError(found.error)
    return replace(found, warnings=tuple(map(printable, found.warnings)))
