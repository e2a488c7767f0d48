"""A synthetic year of carbon intensity in a sunny grid, made by a formula: no recorded data in it.

On a clock eight hours behind UTC, with `hour` the middle of the slot, `day` counted from 0 on 1 January, and
`season = cos(2 pi (day - 130) / 365)`, which is 1 on 11 May:

    night    = 330 - 110 exp(2.5 (season - 1))          water and mild weather in spring
    evening  = 1 - 0.03 cos(2 pi (hour - 18) / 24)      batteries filled at noon; the peak comes before dawn
    weekend  = 0.94 on Saturday and Sunday, else 1      offices closed
    weather  = 1 + 0.20 n60 + 0.04 n6                   wind and imports, over days and over hours
    daylight = 12.2 - 2.45 cos(2 pi (day + 10) / 365)   hours of sun
    sun      = 1 - (1 - cos(pi (hour - 12) / daylight))^2 by day, else 0
    depth    = (0.58 + 0.08 season) (1 + 0.20 n24)      how far noon falls, with its clouds

    intensity = night x evening x weekend x weather x (1 - depth x sun)     gCO2eq/kWh

clipped to 40..450 and rounded to 0.1. Noise `nP` joins values in [-1, 1), one every P hours, by smoothstep;
the values are splitmix64 of their number, so that every platform and every numpy version makes the same year.
The parameters are round numbers chosen to give the level and the daily swing of California in 2024;
docs/solar-valley.md compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np

from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import HOUR, Column, Trace

TITLE = "Solar valley (synthetic)"
ZONE = "synthetic-solar-valley"
QUALITY: Quality = "synthetic"
START = datetime(2025, 1, 1, tzinfo=UTC)

HOURS = 365 * 24
BEHIND_UTC = 8
FIRST_WEEKDAY = START.weekday()
LOWEST, HIGHEST = 40.0, 450.0


@cache
def solar_valley() -> Trace:
    """The year from `START` in 8,760 hours; one shared, read-only trace, meant to be repeated yearly."""
    values: Column = np.round(np.clip(_intensity(), LOWEST, HIGHEST), 1).astype(np.float64)
    values.setflags(write=False)
    return Trace(START, HOUR, values)


def _intensity() -> Column:
    """Shape (8760,), gCO2eq/kWh, not yet clipped and rounded."""
    # The clock behind UTC wraps into the end of the same year, so that the year joins onto itself.
    local = (np.arange(HOURS) - BEHIND_UTC) % HOURS
    day, hour = local // 24, local % 24 + 0.5
    season = np.cos(2 * np.pi * (day - 130) / 365)

    night = 330 - 110 * np.exp(2.5 * (season - 1))
    evening = 1 - 0.03 * np.cos(2 * np.pi * (hour - 18) / 24)
    weekend = np.where((day + FIRST_WEEKDAY) % 7 >= 5, 0.94, 1.0)
    weather = 1 + 0.20 * _noise(60, stream=1) + 0.04 * _noise(6, stream=2)

    daylight = 12.2 - 2.45 * np.cos(2 * np.pi * (day + 10) / 365)
    height = np.where(np.abs(hour - 12) < daylight / 2, np.cos(np.pi * (hour - 12) / daylight), 0.0)
    sun = 1 - (1 - height) ** 2
    depth = (0.58 + 0.08 * season) * (1 + 0.20 * _noise(24, stream=3))

    intensity: Column = night * evening * weekend * weather * (1 - depth * sun)
    return intensity


def _noise(every: int, stream: int) -> Column:
    """Shape (8760,), in [-1, 1): hashed values, `every` hours apart, smoothly joined into a ring."""
    knots = _hashed(np.arange(HOURS // every, dtype=np.uint64) + np.uint64(stream << 32))
    hours = np.arange(HOURS)
    before, part = hours // every, hours % every / every
    part = part * part * (3 - 2 * part)
    joined: Column = knots[before] * (1 - part) + knots[(before + 1) % len(knots)] * part
    return joined


def _hashed(numbers: np.typing.NDArray[np.uint64]) -> Column:
    """Splitmix64 of each number, as floats in [-1, 1). Source: Steele, Lea and Flood, OOPSLA 2014."""
    z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
