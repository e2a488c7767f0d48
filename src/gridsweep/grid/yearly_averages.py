"""Yearly averages of grid zones, which come with the package: the last resort when nobody can be asked.

Where they come from and under which licence stands at the head of `data/zone_averages.csv`.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from gridsweep.carbon.readings import Basis

_ALIKE = {
    "CAISO_NORTH": "US-CA",
    "CISO": "US-CA",
    "ERCO": "US-TX",
    "NYIS": "US-NY",
    "UK": "GB",
    "US-CAL-CISO": "US-CA",
    "US-NY-NYIS": "US-NY",
    "US-TEX-ERCO": "US-TX",
}
"""Grid regions that nearly are the state (or are the country) whose average is known."""

_BASES: dict[str, Basis] = {"lifecycle": "lifecycle", "direct": "direct"}


@dataclass(frozen=True, slots=True)
class YearlyAverage:
    """The mean of one year, gCO2eq/kWh of generation; imports are not counted.

    `zone` is where it holds. `title` says so where that is not the zone that was asked for.
    """

    zone: str
    title: str
    g_per_kwh: float
    year: int
    source: str
    basis: Basis = "unknown"


def average(zone: str) -> YearlyAverage | None:
    """The average of a zone, else of the state or country it lies in, with a title that says so; None if none is known.

    Takes the zones' names as providers have them: `FR`, `US`, `US-CA`, `US-CAL-CISO`, `DE-LU`.
    """
    known = _averages()
    if found := known.get(zone):
        return found
    if found := known.get(_ALIKE.get(zone, "")):
        return replace(found, title=f"{found.title}, for {zone}")
    country, dash, _ = zone.partition("-")
    if dash and (found := known.get(country)):
        return replace(found, title=f"{found.title} as a whole, as nothing is known of {zone} alone")
    return None


def listed() -> list[YearlyAverage]:
    """All that is known, by zone."""
    return list(_averages().values())


def nearest(zone: str) -> str | None:
    """The known zone whose code or title is most like what was written."""
    names = {found.title.lower(): found.zone for found in listed()}
    if zone.lower() in names:
        return names[zone.lower()]
    near = difflib.get_close_matches(zone.upper(), _averages(), n=1, cutoff=0.75)
    near = near or difflib.get_close_matches(zone.lower(), names, n=1, cutoff=0.7)
    return names.get(near[0], near[0]) if near else None


@cache
def _averages() -> dict[str, YearlyAverage]:
    lines = (files("gridsweep") / "data" / "zone_averages.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    found = [
        YearlyAverage(
            row["zone"],
            row["title"],
            float(row["g_per_kwh"]),
            int(row["year"]),
            row["source"],
            _BASES.get(row["basis"], "unknown"),
        )
        for row in rows
    ]
    return {one.zone: one for one in found}
