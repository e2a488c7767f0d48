"""A constant intensity: the value of the spec, or the bundled yearly average of the zone. No requests are made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import nan
from typing import ClassVar

import numpy as np

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Basis, Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace, floor_to, utc
from gridsweep.errors import SpecError
from gridsweep.grid import yearly_averages as zones
from gridsweep.grid.source import Means, Zone
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import CarbonSource

HISTORY = timedelta(days=28)
HORIZON = timedelta(hours=96)


class Static:
    """A provider of the same intensity, in gCO2eq/kWh, in every hour; policies use it and find no reason to wait.

    `carbon.value` takes precedence over the average of `carbon.zone`. Raises `SpecError` for a zone without an average;
    without a zone, the zones can be listed and the intensity is unknown.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"value"})
    live: ClassVar[bool] = False

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        basis: Basis = "unknown"
        self.level, title = nan, "nothing: the spec gives neither a value nor a zone"
        if settings.value is not None:
            self.level = float(settings.value)
            title = f"a constant, {number(self.level)} gCO2eq/kWh, as the spec says"
        elif settings.zone:
            found = zones.average(settings.zone)
            if found is None:
                raise SpecError(_unknown(settings.zone))
            self.level, basis = found.g_per_kwh, found.basis
            title = f"the yearly average of {found.title}, {found.year} ({found.source})"
        self.provenance = Provenance(title, "static", "static", settings.zone, "average", basis)

    def read(self, now: datetime) -> Reading:
        """Return 28 flat days of hourly values up to the present hour, and 96 flat hours ahead."""
        present = floor_to(utc(now), HOUR)
        values = np.full(HISTORY // HOUR + 1, self.level)
        ahead = np.full((1, HORIZON // HOUR), self.level)
        forecast = Forecast(utc(now), present, HOUR, ahead, source=self.provenance.title)
        return Reading(Trace(present - HISTORY, HOUR, values), forecast, self.provenance)

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return flat values for the hours that lie in or overlap `[start, end)`."""
        first = floor_to(utc(start), HOUR)
        slots = max(0, -((first - utc(end)) // HOUR))
        return Reading(Trace(first, HOUR, np.full(slots, self.level)), None, self.provenance)

    def zones(self) -> Sequence[Zone]:
        """Return the zones with a bundled average."""
        return [Zone(one.zone, one.title, f"{one.g_per_kwh:.0f} gCO2eq/kWh in {one.year}") for one in zones.listed()]


def _unknown(zone: str) -> str:
    what = f"carbon.zone: of {zone!r} no yearly average is known"
    near = zones.nearest(zone)
    return (
        f"{what}{f'; did you mean {near!r}?' if near else ''}; write a zone such as FR, or carbon.value in gCO2eq/kWh"
    )
