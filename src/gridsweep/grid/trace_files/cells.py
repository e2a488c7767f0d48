"""Parsing of the cells of a row; an invalid cell is a problem of that row."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime
from math import isfinite, nan
from typing import cast, get_args

from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import POUNDS_PER_MWH
from gridsweep.grid.trace_files.problems import LONGEST, Problems, shown

HIGHEST = 5000.0  # The dirtiest grids stay under 1,500 g/kWh; a value above this limit is in another unit.
GRAMS = {"gCO2eq/kWh": 1.0, "lbs_co2_per_mwh": POUNDS_PER_MWH}
QUALITIES: tuple[str, ...] = get_args(Quality)
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def moment_of(cell: object, row: int, problems: Problems) -> datetime | None:
    """Return a time as aware UTC, or None for anything but a time from 1970 to before 2200."""
    try:
        if isinstance(cell, datetime):
            moment = cell
        elif isinstance(cell, str) and len(cell) <= LONGEST:  # fromisoformat's error would repeat a longer text
            moment = datetime.fromisoformat(cell.strip())
        else:
            raise ValueError
        if moment.tzinfo is None:
            problems.add(row, f"`{shown(cell)}` has no time zone; add Z for UTC, or an offset such as +01:00")
            return None
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        what = "the time is null" if cell is None else f"`{shown(cell)}` is no time"
        problems.add(row, f"{what}; write it as 2024-05-01T13:00:00Z")
        return None
    if not EARLIEST <= moment < LATEST:
        problems.add(row, f"`{shown(cell)}` is not between 1970 and 2200; correct the year")
        return None
    return moment


def amount_in(cell: str, unit: object, row: int, problems: Problems) -> float:
    """Return the carbon intensity in gCO2eq/kWh that a text gives; NaN for an empty text."""
    cell = cell.strip()
    if not cell:
        return nan
    try:
        number = float("" if "_" in cell else cell)
    except ValueError:
        problems.add(row, f"`{shown(cell)}` is no number; write gCO2eq/kWh as 231.5, or nothing where unknown")
        return nan
    if not isfinite(number):
        problems.add(row, f"`{shown(cell)}` is no amount of carbon; leave the cell empty where it is unknown")
        return nan
    return amount_of(number, unit, row, problems)


def amount_of(number: float, unit: object, row: int, problems: Problems) -> float:
    """Convert a number in a unit to gCO2eq/kWh; a unit that is None or empty means gCO2eq/kWh."""
    value = number
    if unit is not None and (name := unit.strip() if isinstance(unit, str) else unit) != "":
        factor = GRAMS.get(name) if isinstance(name, str) else None
        if factor is None:
            problems.add(row, f"`{shown(name)}` is no unit of a trace; {_unit_hint(name)}")
            return nan
        value = number * factor
    if value < 0:
        problems.add(row, f"{shown(number)} is negative; leave the value out where it is unknown")
    elif not value <= HIGHEST:
        if value == number:
            what = f"{shown(number)} is more than {HIGHEST:.0f}, so it is not gCO2eq/kWh; convert the column"
        else:
            what = f"{shown(number)} {shown(unit)} is more than {HIGHEST:.0f} gCO2eq/kWh; correct the unit"
        problems.add(row, what)
    return value


def quality_of(cell: object, row: int, problems: Problems) -> Quality | None:
    """Return the cell as a `readings.Quality`; None for an empty, null or unknown cell."""
    if cell is None or (word := cell.strip() if isinstance(cell, str) else cell) == "":
        return None
    if word in QUALITIES:
        return cast(Quality, word)
    near = difflib.get_close_matches(shown(word).lower(), QUALITIES, n=1)
    fix = f"did you mean `{near[0]}`?" if near else f"write one of {', '.join(QUALITIES)}"
    problems.add(row, f"`{shown(word)}` is no quality; {fix}")
    return None


def _unit_hint(name: object) -> str:
    near = difflib.get_close_matches(shown(name), GRAMS, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else f"convert it to {' or '.join(GRAMS)}"
