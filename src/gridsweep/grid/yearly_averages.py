"""Yearly averages of grid zones, bundled with the package: the last fallback when no provider answers.

The head of `data/zone_averages.csv` states their source and licence.
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
"""Grid regions that nearly match a state, or equal a country, with a known average."""

_BASES: dict[str, Basis] = {"lifecycle": "lifecycle", "direct": "direct"}


@dataclass(frozen=True, slots=True)
class YearlyAverage:
    """The mean of one year in gCO2eq/kWh of generation; imports are not counted.

    `zone` is the zone of the average. If it differs from the requested zone, `title` says so.
    """

    zone: str
    title: str
    g_per_kwh: float
    year: int
    source: str
    basis: Basis = "unknown"


def average(zone: str) -> YearlyAverage | None:
    """Return the average of a zone, or else of its state or country, with a title that says so; None if unknown.

    Accepts zone names as used by providers: `FR`, `US`, `US-CA`, `US-CAL-CISO`, `DE-LU`.
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
    """Return all known averages, one per zone, in the order of the file."""
    return list(_averages().values())


def nearest(zone: str) -> str | None:
    """Return the known zone whose code or title is most similar to `zone`, or None."""
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
