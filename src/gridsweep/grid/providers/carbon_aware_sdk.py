"""The WebAPI of the Green Software Foundation's Carbon Aware SDK, whose operator configures its data source.

With WattTime as its source, the SDK answers with the marginal intensity of a region named by WattTime. Such an answer
is refused, because its zone is not the requested one. Use the provider `watttime` instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar
from urllib.parse import urlsplit

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading, Stretch
from gridsweep.carbon.traces import DAY, HOUR, Trace, floor_to, utc
from gridsweep.errors import AnswerError, SignalError, SpecError
from gridsweep.grid.http import parsing
from gridsweep.grid.http.parsing import Point
from gridsweep.grid.source import Fetched, Means, Zone
from gridsweep.sweep.sweep import CarbonSource

HISTORY = timedelta(days=28)
RECENT = timedelta(hours=23, minutes=45)
"""Electricity Maps gives free users the last 24 hours, if the request covers nothing older."""
QUARTER = timedelta(minutes=15)
NO_HISTORY = (400, 401, 403, 404, 501)
NO_FORECAST = (400, 404, 501)
"""Statuses for a source without history or forecast; the next request waits a day, or an hour."""

_SPAN = re.compile(r"(?:(\d{1,4})\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.\d{1,7})?", re.ASCII)


class CarbonAwareSdk:
    """The zone is a location of the SDK, such as `eastus`; `base_url` is where the WebAPI runs.

    The SDK states the length of slots. Raises `SpecError` without a `base_url`; without a zone nothing can be read.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"base_url"})
    live: ClassVar[bool] = True

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        if not settings.base_url:
            raise SpecError("carbon.base_url: missing; carbon_aware_sdk is self-hosted: write the URL of its WebAPI")
        self._zone = settings.zone
        self._http = means.http(settings.base_url)
        title = f"Carbon Aware SDK at {urlsplit(settings.base_url).hostname} (it does not say from which source)"
        self._provenance = Provenance(title, "estimated", "carbon_aware_sdk", settings.zone, "average", "unknown")
        self._not_before: dict[str, datetime] = {}
        self._shown: tuple[object, Trace, tuple[Stretch, ...]] | None = None  # the same answers give the same history

    def read(self, now: datetime) -> Reading:
        """Return up to 28 days of history, and the forecast if the SDK's source has one."""
        now = utc(now)
        today, until = floor_to(now, DAY), floor_to(now, QUARTER)
        recent = self._emissions(until - RECENT, until, keep=QUARTER)
        older = self._unless_refused("history", now, DAY, NO_HISTORY, (today - HISTORY, today, DAY))
        ahead = self._unless_refused("forecast", now, HOUR, NO_FORECAST)
        told = [one for one in (older, recent) if one]
        key = (until, *(fetched.fetched_at for fetched in told))
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, *self._history(told, today - HISTORY, until + timedelta.resolution))
        _, history, stretches = self._shown
        return Reading(history, self._forecast(ahead, now) if ahead else None, stretches)

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the current values of the slots that begin in `[start, end)`."""
        start, end = utc(start), utc(end)
        history, stretches = self._history([self._emissions(start, end, keep=HOUR)], start, end)
        return Reading(history, None, stretches)

    def zones(self) -> Sequence[Zone]:
        """Return the locations that the SDK lists."""
        body = self._http.get("/locations", keep=HOUR).body
        return [Zone(name, name) for name in sorted(parsing.expect(body, dict, "carbon_aware_sdk: locations"))]

    def _emissions(self, start: datetime, end: datetime, keep: timedelta) -> Fetched:
        params = {"location": self._zone, "time": _text(start), "toTime": _text(end)}
        return self._http.get("/emissions/bylocation", params, keep=keep)

    def _unless_refused(
        self,
        what: str,
        now: datetime,
        rest: timedelta,
        statuses: Sequence[int],
        span: tuple[datetime, datetime, timedelta] | None = None,
    ) -> Fetched | None:
        """Return the older history of a span, or the forecast; None if the source has none, and for `rest` after."""
        if (until := self._not_before.get(what)) and now < until:
            return None
        try:
            if span:
                return self._emissions(*span)
            # Without bounds, because the SDK refuses bounds outside the forecast it holds.
            return self._http.get("/emissions/forecasts/current", {"location": self._zone}, keep=2 * QUARTER)
        except SignalError as error:
            if error.status not in statuses:
                raise
            self._not_before[what] = now + rest
            return None

    def _history(self, told: Sequence[Fetched], start: datetime, end: datetime) -> tuple[Trace, tuple[Stretch, ...]]:
        """Return the history of the slots that begin in `[start, end)`, from the answers, newest last."""
        what = "carbon_aware_sdk: emissions"
        rows = [row for fetched in told for row in parsing.objects(fetched.body, what)]
        step = _step((row.get("duration") for row in rows), what)
        points = [self._point(row, f"{what}[{i}]") for i, row in enumerate(rows)]
        provenance = replace(self._provenance, fetched_at=told[-1].fetched_at)
        return parsing.history_of([p for p in points if start <= p.start < end], step, provenance)

    def _point(self, row: dict[str, object], at: str) -> Point:
        parsing.same_zone(self._zone, row.get("location"), f"{at}.location")
        if "rating" not in row:
            raise AnswerError(f"{at} has no 'rating'; it has {sorted(row)}")
        rating = parsing.nullable_number(row["rating"], f"{at}.rating")
        return Point(parsing.moment(row.get("time"), f"{at}.time"), rating, "estimated")

    def _forecast(self, fetched: Fetched, now: datetime) -> Forecast | None:
        """Return the forecast from the present slot on; None if it has ended or is empty."""
        what = "carbon_aware_sdk: forecast"
        found = parsing.objects(fetched.body, what)
        if not found or not found[0].get("forecastData"):
            return None
        told = found[0]
        parsing.same_zone(self._zone, told.get("location"), f"{what}.location")
        issued_at = parsing.moment(told.get("generatedAt"), f"{what}.generatedAt")
        if issued_at > now + HOUR:
            raise AnswerError(f"{what} was made at {issued_at:%Y-%m-%d %H:%M} UTC, which is yet to come")
        rows = parsing.objects(told["forecastData"], f"{what}.forecastData")
        step = _step((row.get("duration") for row in rows), what)
        points = []
        for i, row in enumerate(rows):
            at = f"{what}.forecastData[{i}]"
            parsing.same_zone(self._zone, row.get("location"), f"{at}.location")
            start = parsing.moment(row.get("timestamp"), f"{at}.timestamp")
            if start >= floor_to(now, step):
                points.append(Point(start, parsing.nullable_number(row.get("value"), f"{at}.value"), "forecast"))
        if not points:
            return None
        return parsing.forecast_of(points, step, issued_at, self._provenance)


def _step(durations: Iterable[object], what: str) -> timedelta:
    """Return the length of a slot. The SDK reports 0 if it has only one point; another answer may state the length."""
    steps = {_duration(duration, what) for duration in durations} - {timedelta(0)}
    if len(steps) != 1:
        said = ", ".join(map(str, sorted(steps))) or "nothing"
        raise AnswerError(f"{what} should say how long a slot is, and says {said}")
    return steps.pop()


def _duration(value: object, what: str) -> timedelta:
    """Parse a .NET time span, such as `00:05:00` or `1.00:00:00`, or whole minutes, as used in forecasts."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DAY / timedelta(minutes=1):
        return timedelta(minutes=value)
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise AnswerError(f"{what} has the duration {str(value)[:40]!r} where 00:05:00, or minutes, were expected")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
