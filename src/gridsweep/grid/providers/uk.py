"""Great Britain's Carbon Intensity API: half-hourly values, measured nationally, and a two-day forecast. No API key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import DAY, HOUR, floor_to, utc
from gridsweep.errors import AnswerError, SpecError
from gridsweep.grid.http import parsing
from gridsweep.grid.http.parsing import Point
from gridsweep.grid.source import Fetched, Means, Zone
from gridsweep.sweep.sweep import CarbonSource

BASE_URL = "https://api.carbonintensity.org.uk"
LICENCE = "National Energy System Operator, CC BY 4.0"

SLOT = timedelta(minutes=30)
HISTORY = timedelta(days=28)
LONGEST_RANGE = timedelta(days=14)
HORIZON = timedelta(hours=48)
SETTLED = timedelta(days=2)
"""A range that ended this long ago is requested once a day; a more recent one, once an hour."""

NATIONAL = "GB"
REGIONS: dict[int, str] = {
    1: "North Scotland",
    2: "South Scotland",
    3: "North West England",
    4: "North East England",
    5: "Yorkshire",
    6: "North Wales and Merseyside",
    7: "South Wales",
    8: "West Midlands",
    9: "East Midlands",
    10: "East England",
    11: "South West England",
    12: "South England",
    13: "London",
    14: "South East England",
    15: "England",
    16: "Scotland",
    17: "Wales",
}
"""The regions of the distribution networks, and the nations; 18 is Great Britain."""


class UK:
    """A provider whose zone is `GB`, or a region such as `GB-13` or `GB-London`.

    A region has no measurements: its past is estimated too. Without a zone, the zones can be listed, and Great
    Britain is read. Raises `SpecError` for any other zone.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"base_url"})
    live: ClassVar[bool] = True

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        zone = settings.zone or NATIONAL
        self._region = _region(zone)
        self._http = means.http(settings.base_url or BASE_URL)
        place = REGIONS[self._region] if self._region else "Great Britain"
        self._provenance = Provenance(f"{place} ({LICENCE})", "estimated", "uk", zone, "average", "direct")
        self._shown: tuple[object, Reading] | None = None  # cached, as the same answers make the same reading

    def read(self, now: datetime) -> Reading:
        """Return the last 28 days with the present half hour, and the forecast of the next 48 hours."""
        present = floor_to(utc(now), SLOT)
        ahead = self._asked(f"{_text(present)}/fw48h", keep=SLOT)  # a new path each half hour, and thus a new request
        first = floor_to(present - HISTORY, LONGEST_RANGE)
        told = self._range(first, floor_to(present, HOUR) + HOUR, settled=present - SETTLED)
        key = (present, *(fetched.fetched_at for fetched in (ahead, *told)))
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self._composed(present, ahead, told))
        return self._shown[1]

    def _composed(self, present: datetime, ahead: Fetched, told: Sequence[Fetched]) -> Reading:
        expected = [p for p in self._points(ahead, "forecast") if present <= p.start < present + HORIZON]
        points = [point for fetched in told for point in self._points(fetched, "history")]
        points = [p for p in (*points, *expected) if present - HISTORY <= p.start <= present]
        points.sort(key=lambda point: point.quality == "measured")  # the last of two points for one slot counts
        provenance = replace(self._provenance, fetched_at=max(fetched.fetched_at for fetched in (ahead, *told)))
        history, stretches = parsing.history_of(points, SLOT, provenance)
        forecast: Forecast | None = None
        if any(point.value is not None for point in expected):
            forecast = parsing.forecast_of(expected, SLOT, ahead.fetched_at, self._provenance)
        return Reading(history, forecast, stretches)

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the current values of the half hours that begin in `[start, end)`."""
        start, end = utc(start), utc(end)
        told = self._range(floor_to(start, SLOT), end, settled=start)
        points = [point for fetched in told for point in self._points(fetched, "history")]
        points = [point for point in points if start <= point.start < end]
        provenance = replace(self._provenance, fetched_at=max((one.fetched_at for one in told), default=None))
        history, stretches = parsing.history_of(points, SLOT, provenance)
        return Reading(history, None, stretches)

    def zones(self) -> Sequence[Zone]:
        regions = [Zone(f"{NATIONAL}-{id}", title, "no measurements, estimates only") for id, title in REGIONS.items()]
        return [Zone(NATIONAL, "Great Britain", "measured"), *regions]

    def _range(self, start: datetime, end: datetime, settled: datetime) -> list[Fetched]:
        """Return the answers for `[start, end)`, split at fixed dates, so that settled ranges stay in the cache."""
        found = []
        while start < end:
            cut = min(end, floor_to(start, LONGEST_RANGE) + LONGEST_RANGE)
            found.append(self._asked(f"{_text(start)}/{cut:%Y-%m-%dT%H:%MZ}", keep=DAY if cut <= settled else HOUR))
            start = cut
        return found

    def _asked(self, span: str, keep: timedelta) -> Fetched:
        path = f"/regional/intensity/{span}/regionid/{self._region}" if self._region else f"/intensity/{span}"
        return self._http.get(path, keep=keep)

    def _points(self, fetched: Fetched, what: str) -> Iterator[Point]:
        what = f"uk: {what}"
        data = parsing.expect(fetched.body, dict, what).get("data")
        if self._region:
            data = self._of_region(data, what)
        return _points(parsing.objects(data, f"{what}: data"), what)

    def _of_region(self, data: object, what: str) -> object:
        """Return the slots of the region; some routes return the region itself, others a list of one."""
        if isinstance(data, list):
            if len(data) != 1:
                raise AnswerError(f"{what} has {len(data)} regions where one was asked for")
            data = data[0]
        region = parsing.expect(data, dict, f"{what}: data")
        parsing.same_zone(str(self._region), region.get("regionid"), f"{what}: data.regionid")
        return region.get("data")


def _points(slots: Iterable[dict[str, object]], what: str) -> Iterator[Point]:
    """Yield the measured value of each slot, or else its forecast as an estimate."""
    for i, slot in enumerate(slots):
        at = f"{what}[{i}]"
        start = parsing.moment(slot.get("from"), f"{at}.from")
        if parsing.moment(slot.get("to"), f"{at}.to") - start != SLOT:
            raise AnswerError(f"{at} is from {slot['from']} to {slot['to']}, which is not half an hour")
        levels = parsing.field(slot, "intensity", dict, at)
        if "forecast" not in levels:
            raise AnswerError(f"{at}.intensity has no 'forecast'; it has {sorted(levels)}")
        actual = parsing.nullable_number(levels.get("actual"), f"{at}.intensity.actual")
        expected = parsing.nullable_number(levels["forecast"], f"{at}.intensity.forecast")
        yield Point(start, expected, "estimated") if actual is None else Point(start, actual, "measured")


def _text(start: datetime) -> str:
    """Format a slot for a path, one minute after its start: at the exact start, the API returns the previous slot."""
    return f"{start + timedelta(minutes=1):%Y-%m-%dT%H:%MZ}"


def _region(zone: str) -> int | None:
    """Return the number of a region, or None for Great Britain. Raises `SpecError` for any other zone."""
    name = _plain(zone.removeprefix(f"{NATIONAL}-"))
    if name in ("gb", "18", "great britain"):
        return None
    names = {_plain(title): id for id, title in REGIONS.items()} | {str(id): id for id in REGIONS}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, [known for known in names if not known.isdigit()], n=1)
    meant = f"; did you mean GB-{names[near[0]]}, {REGIONS[names[near[0]]]}?" if near else ""
    raise SpecError(f"carbon.zone: uk has no zone {zone!r}{meant}; take GB, or GB-1 to GB-17 for a region")


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[-_.]", " ", name.lower()).split())
