"""A recommended sweep: surveyed, sized, drafted, read back as `check` reads it, and only then written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from pathlib import Path

from gridsweep.carbon.readings import Reading, titled
from gridsweep.errors import GridsweepError, SignalError, SpecError, word
from gridsweep.grid.registry import provider_for
from gridsweep.records.files import replace_file
from gridsweep.runs.surveying import surveyed
from gridsweep.schedule.capacity import check_deadline
from gridsweep.spec import loads
from gridsweep.spec.drafting import Choice, beside, choices, local, text, unknown
from gridsweep.sweep.experiments import Dataset, Model
from gridsweep.sweep.sizing import Budget, Sizing, sized
from gridsweep.sweep.sweep import CarbonSource

WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Recommended:
    """A sweep that was written to `path`, with every choice and what is not known.

    Time is of the whole sweep on all devices without waiting; emissions are at the grid's mean intensity, None where
    the grid is unknown. `budget_h` and `budget_g` are None without a budget.
    """

    path: str
    choices: tuple[Choice, ...]
    unknown: tuple[str, ...]
    warnings: tuple[str, ...]
    experiment_count: int
    total_steps: int
    whole_runs: float
    guess: bool
    training_h: float
    energy_kwh: float
    emissions_g: float | None
    mean_intensity: float | None
    budget_h: float | None
    budget_g: float | None
    next: str
    afterwards: str
    schema_version: int = 1


def recommend(
    model: str, dataset: str, to: Path, carbon: CarbonSource, now: datetime, *,
    hours: float | None = None, grams: float | None = None, overwrite: bool = False,
) -> Recommended:  # fmt: skip
    """Write a sweep of a model on data to a file, sized by a budget, and return it.

    Raise `SpecError` where model or data are wrong or the budget is too small, `SignalError` where grams cannot be
    counted, `GridsweepError` where the file exists and is not to be overwritten. An error leaves the file as it was.
    """
    _free(to, overwrite)
    ids = [_absolute(given, what) for given, what in ((model, "MODEL"), (dataset, "DATA"))]
    level, whence, reason = _intensity(carbon, now, needed=grams is not None)
    budget = Budget(hours, grams, level)
    survey = surveyed(Model(ids[0]), Dataset(ids[1]), carbon, now)
    sizing = sized(survey, budget)
    written = [beside(given, to) for given in (model, dataset)]
    if carbon.file is not None and (path := local(carbon.file)) is not None:
        carbon = CarbonSource(file=beside(str(path), to), zone=carbon.zone)
    made = list(choices(sizing, survey, budget, carbon, *written))
    missing = unknown(sizing, survey, budget, word(to), reason)
    draft = text(made, _head(sizing, budget, whence, missing))
    sweep = loads(draft, to)
    check_deadline(sweep, now)
    _write(to, draft, overwrite)
    cost, here = sizing.cost, word(to)
    return Recommended(
        str(to), tuple(made), missing, survey.warnings, sizing.extent.experiments, sizing.total_steps,
        round(cost.runs, 2), sizing.guess, cost.hours, cost.kwh, None if level is None else cost.kwh * level, level,
        hours, grams, f"gridsweep check {here} && gridsweep plan {here} && gridsweep run {here}",
        f"gridsweep best {word(Path('runs') / sweep.name)} --as peft",
    )  # fmt: skip


def _free(to: Path, overwrite: bool) -> None:
    if os.path.lexists(to) and not overwrite:
        raise GridsweepError(f"{to} already exists; name another file with --to, or replace it with --overwrite")
    if to.is_dir():
        raise GridsweepError(f"{to} is a folder; name a file in it with --to")


def _write(to: Path, draft: str, overwrite: bool) -> None:
    try:
        if overwrite:
            replace_file(to, draft)
        else:
            with to.open("x", encoding="utf-8") as file:
                file.write(draft)
    except FileExistsError:
        _free(to, overwrite)  # it came while model and data were looked at
        raise
    except OSError as error:
        raise GridsweepError(f"cannot write {to}: {error.strerror}; name another file with --to") from None


def _absolute(given: str, what: str) -> str:
    """Return an id as a spec's reader would: a path is absolute. Raise `SpecError` if there is nothing at it."""
    path = local(given)
    if path is None:
        return given
    if not path.exists():
        raise SpecError(f"there is no file or folder {given}", where=what, remedy="correct the path")
    return str(path)


def _intensity(carbon: CarbonSource, now: datetime, *, needed: bool) -> tuple[float | None, str, str]:
    """Return the mean intensity of the last week in g/kWh, where it comes from, and why it is no measurement.

    Raise `SignalError` if it is needed and unknown.
    """
    try:
        reading = provider_for(carbon).read(now)
    except SignalError as error:
        if needed:
            raise
        return None, "", f"the grid could not be read ({error})"
    level = _mean(reading, now)
    found = reading.provenance
    if level is None or found.kind == "index":
        if needed:
            why = "reports an index, not grams" if found.kind == "index" else reading.why or "has no data"
            raise SignalError(f"a budget in grams cannot be counted: {carbon.zone} {why}", remedy="give --hours")
        return None, "", f"the intensity of {carbon.zone or carbon.provider} is unknown"
    title = titled(found.title, found.quality)
    bare = f"{title} is not measured" if found.quality in ("synthetic", "static") else ""
    return level, f"{level:.0f} g/kWh, the mean of a week of {title}", bare


def _mean(reading: Reading, now: datetime) -> float | None:
    end = min(now, reading.history.end)
    start = max(end - WEEK, reading.history.start)
    level = reading.history.mean(start, end) if start < end else float("nan")
    return level if isfinite(level) else None


def _head(sizing: Sizing, budget: Budget, whence: str, missing: tuple[str, ...]) -> list[str]:
    cost = sizing.cost
    asked = [f"{budget.hours:g} h"] if budget.hours else []
    asked += [f"{budget.grams:g} g CO2eq"] if budget.grams else []
    emitted = f", {cost.kwh * budget.intensity:.3g} g CO2eq at {whence}" if budget.intensity is not None else ""
    return [
        "Written by `gridsweep recommend`. Above each key: why, and [where the figures come from].",
        f"Estimate: {cost.runs:.1f} whole trainings of {cost.experiment_s / 60:.3g} minutes, {cost.hours:.3g} h "
        f"without waiting, {cost.kwh:.3g} kWh{emitted}.",
        f"Budget: {' and '.join(asked)}." if asked else "No budget was given.",
        "Not known:",
        *(f"- {one}" for one in missing),
    ]
