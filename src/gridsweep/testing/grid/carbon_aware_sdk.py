"""The Carbon Aware SDK's WebAPI as a double: a source with or without a forecast, and with limits to its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isnan
from typing import Any  # JSON, as a provider's API answers

from gridsweep.carbon.traces import HOUR, floor_to
from gridsweep.testing.grid.dialect import Grid, Request, Response, as_json

HORIZON = timedelta(hours=24)


@dataclass(slots=True)
class WebApi:
    """The WebAPI; `step` is its source's slot length, `forecast` the status of a forecast request (200: it has one).

    `reach` is how far back its source can be queried: with 24 hours, any older query is a 403.
    """

    step: timedelta = HOUR
    forecast: int = 200
    reach: timedelta | None = None
    name: str = "carbon_aware_sdk"
    zone: str = "eastus"
    secrets: Mapping[str, str] = field(default_factory=dict)
    time_key: str = "time"
    value_key: str = "rating"

    def respond(self, request: Request, grid: Grid) -> Response:
        if request.path == "/locations":
            place = {"latitude": 36.66, "longitude": -78.39}
            return as_json({name: {"name": name, **place} for name in (self.zone, "westus")})
        if request.path not in ("/emissions/bylocation", "/emissions/forecasts/current"):
            return problem(404, "Not Found")
        if request.params.get("location") != grid.zone:
            return problem(400, "location", f"Unknown Location: '{request.params.get('location')}' not found")
        if request.path.endswith("current"):
            return as_json(self._forecast(grid)) if self.forecast == 200 else problem(self.forecast, "NotImplemented")
        try:
            start, end = (datetime.fromisoformat(request.params[key]) for key in ("time", "toTime"))
        except (KeyError, ValueError):
            return problem(400, "time", "The value is not valid.")
        if start > end:
            return problem(400, "startTime", "startTime must be before endTime")
        if self.reach is not None and start < grid.now() - self.reach:
            return problem(403, "Forbidden", "Access to this endpoint is not in your plan")
        return as_json(self._emissions(start, min(end, grid.now()), grid))

    def _emissions(self, start: datetime, end: datetime, grid: Grid) -> list[dict[str, Any]]:
        first = floor_to(start, self.step)
        slots = [first + i * self.step for i in range(max(0, (end - first) // self.step + 1))]
        rows = [
            {"location": grid.zone, "time": text(slot), "rating": level, "duration": span(self.step)}
            for slot in slots
            if (level := self._level(slot, grid)) is not None
        ]
        return rows if len(rows) > 1 else [{**row, "duration": "00:00:00"} for row in rows]

    def _forecast(self, grid: Grid) -> list[dict[str, Any]]:
        first = floor_to(grid.now(), self.step)
        slots = [first + i * self.step for i in range(HORIZON // self.step)]
        minutes = self.step // timedelta(minutes=1)
        rows: list[dict[str, Any]] = [
            {"location": grid.zone, "timestamp": text(slot), "duration": minutes, "value": level}
            for slot in slots
            if (level := self._level(slot, grid)) is not None
        ]
        told = {
            "generatedAt": text(first),
            "requestedAt": text(grid.now()),
            "location": grid.zone,
            "dataStartAt": text(first),
            "dataEndAt": text(first + HORIZON),
            "windowSize": minutes,
            "optimalDataPoint": min(rows, key=lambda row: row["value"], default=None),
            "forecastData": rows,
        }
        return [told]

    def _level(self, slot: datetime, grid: Grid) -> float | None:
        level = grid.trace.mean(slot, slot + self.step)
        return None if isnan(level) else round(level, 2)

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        """Return the points of the history; a forecast has other keys."""
        found = isinstance(body, list) and body and isinstance(body[0], dict) and "rating" in body[0]
        return body if found else None

    def rename_zone(self, body: Any, zone: str) -> bool:
        if not isinstance(body, list) or not body:
            return False
        for place in (*body, *body[0].get("forecastData", ())):
            place["location"] = zone
        return True


def problem(status: int, title: str, detail: str = "") -> Response:
    """Return a ValidationProblemDetails."""
    return as_json({"type": "about:blank", "title": title, "status": status, "errors": {title: [detail]}}, status)


def span(step: timedelta) -> str:
    """Format a duration as .NET does."""
    hours, rest = divmod(step.seconds, 3600)
    days = f"{step.days}." if step.days else ""
    return f"{days}{hours:02}:{rest // 60:02}:{rest % 60:02}"


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S+00:00")
