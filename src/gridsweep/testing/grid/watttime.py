"""WattTime, version 3, as a double: log-ins, and marginal intensity in lb/MWh every five minutes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isnan
from typing import Any, Literal  # JSON, as a provider's API answers

from gridsweep.carbon.traces import floor_to
from gridsweep.testing.grid.dialect import Grid, Request, Response, as_json

POUNDS = 0.45359237
"""gCO2eq/kWh per lb/MWh."""
STEP = timedelta(minutes=5)
NGINX = b"<html><head><title>403 Forbidden</title></head><body><center>nginx</center></body></html>"
SCOPE = (
    "Invalid scope. You do not have sufficient access to complete this request. "
    "Your account only has access to CAISO_ZP26."
)


@dataclass(slots=True)
class WattTimeApi:
    """The API; `plan` is the regions the account may read, `longest` the longest horizon it may request, in hours.

    `reach` is how far back the history goes, `lag` its delay; `refusal` is the way a bad token is refused.
    """

    plan: frozenset[str] = frozenset({"CAISO_NORTH"})
    longest: int = 72
    reach: timedelta = timedelta(days=90)
    lag: timedelta = timedelta(minutes=10)
    token_life: timedelta = timedelta(minutes=30)
    refusal: Literal["html", "json"] = "html"
    units: str = "lbs_co2_per_mwh"
    warnings: tuple[str, ...] = ()
    imputed: bool = False
    name: str = "watttime"
    zone: str = "CAISO_NORTH"
    secrets: Mapping[str, str] = field(
        default_factory=lambda: {"username": "canary-wt-user", "password": "canary-wt-5d1e"}
    )
    time_key: str = "point_time"
    value_key: str = "value"
    issued: dict[str, datetime] = field(default_factory=dict)
    """The tokens issued, with the time of issue."""

    def respond(self, request: Request, grid: Grid) -> Response:
        now = grid.now()
        if request.path == "/login":
            pair = f"{self.secrets['username']}:{self.secrets['password']}"
            if request.headers.get("authorization") != "Basic " + base64.b64encode(pair.encode()).decode():
                return as_json({"error": "Unauthorized"}, 401)
            token = f"canary-jwt-{len(self.issued)}"
            self.issued[token] = now
            return as_json({"token": token})
        issued = self.issued.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if issued is None or now - issued >= self.token_life:
            return (
                Response(403, NGINX, {"content-type": "text/html"})
                if self.refusal == "html"
                else as_json({"error": "Invalid token"}, 401)
            )
        if request.path == "/v3/my-access":
            return as_json({"signal_types": [{"signal_type": "co2_moer", "regions": self._regions()}]})
        if request.path not in ("/v3/forecast", "/v3/historical"):
            return as_json({"error": "Not found"}, 404)
        if request.params.get("signal_type") != "co2_moer":
            return as_json({"error": "Invalid query parameters", "message": "signal_type is not valid"}, 400)
        if request.params.get("region") not in self.plan or request.params.get("region") != grid.zone:
            return as_json({"error": "Invalid query parameters", "message": SCOPE}, 403)
        return self._forecast(request.params, grid) if "forecast" in request.path else self._history(request, grid)

    def _forecast(self, params: Mapping[str, str], grid: Grid) -> Response:
        horizon = int(params.get("horizon_hours", "24"))
        if horizon > self.longest:
            return as_json({"error": "Invalid query parameters", "message": "horizon_hours is too long"}, 400)
        first = floor_to(grid.now(), STEP)
        times = [first + i * STEP for i in range(horizon * 12 + 1)]
        return self._answer(times, grid, {})

    def _history(self, request: Request, grid: Grid) -> Response:
        start, end = (datetime.fromisoformat(request.params[key]) for key in ("start", "end"))
        if start.tzinfo is None or end.tzinfo is None or not timedelta(0) < end - start <= timedelta(days=32):
            return as_json({"error": "Invalid query parameters", "message": "start and end are not valid"}, 400)
        now = grid.now()
        first, last = max(start, floor_to(now - self.reach, STEP)), min(end, now - self.lag)
        times = [first + i * STEP for i in range(max(0, (last - first) // STEP + 1))]
        marked = request.params.get("include_imputed_marker") == "true"
        return self._answer(times, grid, {"imputed_data_used": self.imputed} if marked else {})

    def _answer(self, times: list[datetime], grid: Grid, more: Mapping[str, Any]) -> Response:
        points = []
        for at in times:
            value = grid.trace.at(at)
            if not isnan(value):
                points.append({"point_time": at.isoformat(), "value": round(value / POUNDS, 2), **more})
        meta = {
            "data_point_period_seconds": 300,
            "region": grid.zone,
            "signal_type": "co2_moer",
            "units": self.units,
            "warnings": [{"type": "odd", "message": message} for message in self.warnings],
            "model": {"date": "2023-03-01"},
            "generated_at_period_seconds": 300,
            "generated_at": floor_to(grid.now(), STEP).isoformat(),
        }
        return as_json({"data": points, "meta": meta})

    def _regions(self) -> list[dict[str, Any]]:
        about = {"parent": "USA", "data_point_period_seconds": 300}
        endpoints = [
            {"endpoint": name, "models": [{"model": "2023-03-01"}]} for name in ("v3/forecast", "v3/historical")
        ]
        named = [(region, f"The region {region}") for region in sorted(self.plan)]
        return [{"region": r, "region_full_name": title, **about, "endpoints": endpoints} for r, title in named]

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        found = body.get("data") if isinstance(body, dict) else None
        return found if isinstance(found, list) else None

    def rename_zone(self, body: Any, zone: str) -> bool:
        if not isinstance(body, dict) or not isinstance(body.get("meta"), dict):
            return False
        body["meta"]["region"] = zone
        return True
