"""Great Britain's Carbon Intensity API as a double: national with measurements, regional without; it repeats edges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any  # JSON, as a provider's API answers

from gridsweep.carbon.traces import floor_to
from gridsweep.testing.grid.dialect import Grid, Request, Response, as_json

SLOT = timedelta(minutes=30)
LONGEST = timedelta(days=14)
AHEAD = timedelta(hours=48)

_TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}Z"
_PATH = re.compile(rf"(/regional)?/intensity/({_TIME})/(fw48h|{_TIME})(?:/regionid/(\d+))?")


@dataclass(slots=True)
class CarbonIntensityApi:
    """The API; `zone` is `GB`, or `GB-13` for a region; the latest `unmeasured` slots have no actual value yet.

    Forecasts are off by `error`, gCO2eq/kWh, so that measurements can be distinguished from forecasts.
    """

    zone: str = "GB"
    unmeasured: int = 2
    error: int = 0
    name: str = "uk"
    secrets: Mapping[str, str] = field(default_factory=dict)
    time_key: str = "from"
    value_key: str = "intensity"

    def respond(self, request: Request, grid: Grid) -> Response:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return problem("404 Not Found", "there is no such path")
        regional, begin, until, id = found.groups()
        start = moment(begin)
        end = start + AHEAD if until == "fw48h" else moment(until)
        if bool(regional) != bool(id) or not timedelta(0) <= end - start <= LONGEST:
            return problem("400 Bad Request", "Please enter a valid start and end datetime, 14 days apart at most.")
        number = grid.zone.removeprefix("GB-") if regional else "GB"
        if (id or "GB") != number:
            return problem("400 Bad Request", "Please enter a valid region id.")
        slots = self._slots(start, end, grid, regional=bool(regional))
        if not regional:
            return as_json({"data": slots})
        region = {"regionid": int(number), "dnoregion": "a network", "shortname": "a region", "data": slots}
        return as_json({"data": [region] if until == "fw48h" else region})  # an object, or a list of one

    def _slots(self, start: datetime, end: datetime, grid: Grid, *, regional: bool) -> list[dict[str, Any]]:
        """Return every slot that touches the range, including a slot that ends where the range begins."""
        first = floor_to(start, SLOT)
        first = first - SLOT if first == start else first
        last = min(end, floor_to(grid.now(), SLOT) + AHEAD)
        starts = [first + i * SLOT for i in range((last - first) // SLOT + 1)]
        levels = [(slot, grid.trace.mean(slot, slot + SLOT)) for slot in starts]
        return [self._slot(slot, level, grid, regional) for slot, level in levels if not isnan(level)]

    def _slot(self, start: datetime, level: float, grid: Grid, regional: bool) -> dict[str, Any]:
        measured = start + self.unmeasured * SLOT <= floor_to(grid.now(), SLOT)
        intensity: dict[str, Any] = {"forecast": round(level) + self.error, "index": "moderate"}
        if not regional:
            intensity["actual"] = round(level) if measured else None
        return {"from": text(start), "to": text(start + SLOT), "intensity": intensity}

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        region = self._region(body)
        found = region.get("data") if region is not None else None
        return found if isinstance(found, list) else None

    def rename_zone(self, body: Any, zone: str) -> bool:
        """Rename the zone; only a regional body names it."""
        region = self._region(body)
        if region is None or "regionid" not in region:
            return False
        region["regionid"] = zone
        return True

    def _region(self, body: Any) -> dict[str, Any] | None:
        """Return the object that holds the slots: the body itself, or the region in it."""
        data = body.get("data") if isinstance(body, dict) else None
        for place in (data, data[0] if isinstance(data, list) and data else None):
            if isinstance(place, dict) and "regionid" in place:
                return place
        return body if isinstance(body, dict) else None


def problem(code: str, message: str) -> Response:
    return as_json({"error": {"code": code, "message": message}}, int(code[:3]))


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")
