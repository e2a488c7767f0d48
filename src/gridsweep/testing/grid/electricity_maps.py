"""Electricity Maps, version 3, as a double: its answers to a key of a given plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isnan
from typing import Any  # JSON, as a provider's API answers

from gridsweep.carbon.traces import HOUR, floor_to
from gridsweep.testing.grid.dialect import Grid, Request, Response, as_json

EVERYTHING = frozenset({"latest", "history", "past-range", "forecast"})
FREE = frozenset({"latest", "history"})
LICENCE = "This data is the exclusive property of its owner and is licensed for one zone."
SANDBOX = "SANDBOX MODE: the values are random and must not be used."


@dataclass(slots=True)
class ElectricityMapsApi:
    """The API; `plan` is the key's access, `lag` the delay of the latest value, `horizons` the allowed hours.

    `disclaimer` is part of every answer; a sandbox invents its numbers, and its disclaimer says so.
    """

    plan: frozenset[str] = EVERYTHING
    lag: timedelta = timedelta(0)
    horizons: tuple[int, ...] = (24, 48, 72)
    sandbox: bool = False
    disclaimer: str = ""
    estimated: int = 3
    """How many of the latest values are estimates."""
    name: str = "electricity_maps"
    zone: str = "DE"
    secrets: Mapping[str, str] = field(default_factory=lambda: {"token": "canary-em-7f3a9c"})
    time_key: str = "datetime"
    value_key: str = "carbonIntensity"

    def respond(self, request: Request, grid: Grid) -> Response:
        path = request.path.removeprefix("/v3").strip("/")
        if path == "zones":
            return as_json({self.zone: self._zone(request), "FR": {"zoneName": "France"}})
        if request.headers.get("auth-token") != self.secrets["token"]:
            return as_json({"error": "Invalid auth-token"}, 401)
        what = path.removeprefix("carbon-intensity/")
        if what not in EVERYTHING or what == path:
            return as_json({"status": "error", "message": "Endpoint not available"}, 404)
        if request.params.get("zone") != grid.zone:
            asked = request.params.get("zone", "")
            return as_json({"error": f"Token unauthorized for zoneKey {asked}"}, 401)
        if what not in self.plan:
            return as_json({"status": "error", "message": "This endpoint is not in your plan"}, 403)
        body = self._body(what, request.params, grid)
        if body is None:
            return as_json({"status": "error", "message": "the parameters are not valid"}, 400)
        if self.sandbox or self.disclaimer:
            body["_disclaimer"] = SANDBOX if self.sandbox else self.disclaimer
        return as_json(body)

    def _zone(self, request: Request) -> dict[str, Any]:
        known = request.headers.get("auth-token") == self.secrets["token"]
        access = {"access": [f"carbon-intensity/{what}" for what in sorted(self.plan)]} if known else {}
        return {"zoneName": "Germany", **access}

    def _body(self, what: str, params: Mapping[str, str], grid: Grid) -> dict[str, Any] | None:
        newest = floor_to(grid.now() - self.lag, HOUR)
        hourly = {"temporalGranularity": "hourly"}
        if what == "latest":
            return self._point(newest, params, grid) | hourly
        if what == "history":
            hours = [newest - i * HOUR for i in range(23, -1, -1)]
            return {"zone": grid.zone, "history": [self._point(hour, params, grid) for hour in hours], **hourly}
        if what == "forecast":
            horizon = int(params.get("horizonHours", "24"))
            now = floor_to(grid.now(), HOUR)
            points = [
                {"carbonIntensity": self._value(now + i * HOUR, grid), "datetime": text(now + i * HOUR)}
                for i in range(1, horizon + 1)
            ]
            made = {"zone": grid.zone, "forecast": points, "updatedAt": text(grid.now()), **hourly}
            return made if horizon in self.horizons else None
        start, end = (datetime.fromisoformat(params[key]) for key in ("start", "end"))
        if not timedelta(0) < end - start <= timedelta(days=10):
            return None
        hours = [start + i * HOUR for i in range((end - start) // HOUR) if start + i * HOUR <= newest]
        points = [self._point(hour, params, grid) for hour in hours]
        return {"zone": grid.zone, "data": points, **hourly, "aggregationPeriod": None}

    def _value(self, hour: datetime, grid: Grid) -> int | None:
        value = grid.trace.mean(hour, hour + HOUR)
        return None if isnan(value) else round(value)

    def _point(self, hour: datetime, params: Mapping[str, str], grid: Grid) -> dict[str, Any]:
        estimated = self.sandbox or hour > floor_to(grid.now() - self.lag, HOUR) - self.estimated * HOUR
        method = "SANDBOX_MODE_DATA" if self.sandbox else "TIME_SLICER_AVERAGE" if estimated else None
        return {
            "zone": grid.zone,
            "carbonIntensity": self._value(hour, grid),
            "datetime": text(hour),
            "updatedAt": text(grid.now()),
            "createdAt": text(hour),
            "emissionFactorType": params.get("emissionFactorType", "lifecycle"),
            "isEstimated": estimated,
            "estimationMethod": method,
        }

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        if not isinstance(body, dict):
            return None
        found = next((body[key] for key in ("history", "data", "forecast") if isinstance(body.get(key), list)), None)
        return [body] if found is None and "carbonIntensity" in body else found

    def rename_zone(self, body: Any, zone: str) -> bool:
        if not isinstance(body, dict) or "zone" not in body:
            return False
        for place in (body, *(self.points(body) or ())):
            if "zone" in place:
                place["zone"] = zone
        return True


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
