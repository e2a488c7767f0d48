"""EIA's hourly fuel mix, version 2, as a double: hours named by their end, strings for numbers, pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isnan
from typing import Any  # JSON, as a provider's API answers

from gridsweep.carbon.traces import HOUR, floor_to
from gridsweep.testing.grid.dialect import Grid, Request, Response, as_json

PATH = "/v2/electricity/rto/fuel-type-data/data/"
PAGE = 5000
MWH = 20_000.0
"""The generation of all fuels in an hour, in MWh."""

GRAMS = {"WAT": 24.0, "NG": 490.0, "COL": 820.0}
"""IPCC medians, cleanest first: two of these fuels mix to any intensity between theirs."""
NAMES = {"WAT": "Hydro", "NG": "Natural Gas", "COL": "Coal", "BAT": "Battery storage"}

_HOUR = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}", re.ASCII)


@dataclass(slots=True)
class EiaApi:
    """A fuel mix with the truth's intensity; the latest hours, `lag`, are not known yet.

    A battery charges all the time; every seventh hour has a row twice, in two spellings. The truth must be between 24
    and 820 gCO2eq/kWh.
    """

    lag: timedelta = 2 * HOUR
    name: str = "eia"
    zone: str = "CISO"
    secrets: Mapping[str, str] = field(default_factory=lambda: {"token": "canary-eia-51d0b2"})
    time_key: str = "period"
    value_key: str = "value"

    def respond(self, request: Request, grid: Grid) -> Response:
        if request.path != PATH:
            return as_json({"error": "Not Found.", "code": 404}, 404)
        if request.headers.get("x-api-key") != self.secrets["token"]:
            return as_json({"error": {"code": "API_KEY_INVALID", "message": "An invalid api_key was supplied."}}, 403)
        try:
            start, end = (moment(request.params[key]) for key in ("start", "end"))
            offset, length = int(request.params.get("offset", "0")), int(request.params.get("length", str(PAGE)))
        except (KeyError, ValueError):
            return as_json({"error": "Invalid parameter", "code": 400}, 400)
        rows = []
        if request.params.get("facets[respondent][]") == grid.zone:
            last = min(end, floor_to(grid.now() - self.lag, HOUR))
            ends = [start + i * HOUR for i in range(max(0, (last - start) // HOUR + 1))]
            rows = [row for end in ends for row in self._rows(end, grid)]
        shown = rows[offset : offset + min(length, PAGE)]
        told = {"total": str(len(rows)), "dateFormat": 'YYYY-MM-DD"T"HH24', "frequency": "hourly", "data": shown}
        return as_json({"response": told, "request": {"command": PATH}, "apiVersion": "2.1.8"})

    def _rows(self, end: datetime, grid: Grid) -> Iterator[dict[str, Any]]:
        level = grid.trace.mean(end - HOUR, end)
        if isnan(level):
            return
        mix = {"BAT": -123.0, **mixed(level)}
        for fuel, mwh in mix.items():
            row = {
                "period": end.strftime("%Y-%m-%dT%H"),
                "respondent": grid.zone,
                "respondent-name": "a balancing authority",
                "fueltype": fuel,
                "type-name": NAMES[fuel],
                "value": f"{mwh:.3f}".rstrip("0").rstrip("."),
                "value-units": "megawatthours",
            }
            yield row
            if fuel == "WAT" and end.hour % 7 == 0:
                yield {**row, "type-name": NAMES[fuel].lower()}

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        try:
            rows = body["response"]["data"]
        except (KeyError, TypeError):
            return None
        return rows if isinstance(rows, list) else None

    def rename_zone(self, body: Any, zone: str) -> bool:
        rows = self.points(body)
        for row in rows or ():
            row["respondent"] = zone
        return bool(rows)


def mixed(level: float) -> dict[str, float]:
    """Return MWh by fuel for the two fuels whose intensities enclose the level; the others generate nothing."""
    mix = dict.fromkeys(GRAMS, 0.0)
    for clean, dirty in pairwise(GRAMS):
        if GRAMS[clean] <= level <= GRAMS[dirty]:
            share = (level - GRAMS[clean]) / (GRAMS[dirty] - GRAMS[clean])
            return mix | {clean: MWH * (1 - share), dirty: MWH * share}
    raise ValueError(f"no mix of {', '.join(GRAMS)} has {level} gCO2eq/kWh")


def moment(period: str) -> datetime:
    if not _HOUR.fullmatch(period):
        raise ValueError(f"{period} is no hour")
    return datetime.fromisoformat(period).replace(tzinfo=UTC)
