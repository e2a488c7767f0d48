"""Electricity Maps, version 3: hourly average intensity of the consumption in a zone (flow-traced)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Basis, Provenance, Quality, Reading
from gridsweep.carbon.traces import DAY, HOUR, floor_to, utc
from gridsweep.errors import AnswerError, CredentialError, LimitError, SignalError, SpecError
from gridsweep.grid.http.parsing import (
    Point,
    expect,
    field,
    forecast_of,
    fresh,
    history_of,
    moment,
    nullable_number,
    objects,
    same_zone,
)
from gridsweep.grid.source import Fetched, Means, Zone
from gridsweep.sweep.sweep import CarbonSource

NAME = "electricity_maps"
BASE_URL = "https://api.electricitymaps.com/v3"
TOKEN = "env:ELECTRICITY_MAPS_TOKEN"

LATEST_KEEP, HISTORY_KEEP, FORECAST_KEEP = timedelta(minutes=15), timedelta(minutes=55), timedelta(minutes=55)
"""With these, no hour has more than eight requests (four, two and two), even if the present is never reported."""
TRAILING = 28 * DAY
CHUNK = 10 * DAY
"""Maximum span of one request for the past."""
CHUNK_PAUSE, LIMIT_PAUSE, TROUBLE_PAUSE = timedelta(minutes=30), timedelta(minutes=10), HOUR
"""Pauses between two optional requests, if the last one succeeded, met a limit, or failed."""
SETTLED = 4 * DAY
HORIZONS = ("72", "24")
FARTHEST = 8 * DAY
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Series:
    """The points of an answer; `synthetic` if the API marks them as made up."""

    points: tuple[Point, ...]
    fetched_at: datetime
    synthetic: bool
    issued_at: datetime | None = None


class ElectricityMaps:
    """A provider whose zone is a zone key, such as DE or US-CAL-CISO. `basis` is lifecycle (the default) or direct.

    The plan of the API key determines the available data: always the last 24 hours, and the trailing 28 days and a
    forecast if the plan includes them. Data that the plan refuses are not requested again.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"token", "base_url", "basis"})
    secrets: ClassVar[dict[str, str]] = {"token": TOKEN}
    live: ClassVar[bool] = True

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        basis = settings.basis or "lifecycle"
        if basis not in ("lifecycle", "direct"):
            raise SpecError(f"carbon.basis is {basis!r}; {NAME} has lifecycle and direct")
        self.zone = settings.zone
        self.basis: Basis = "direct" if basis == "direct" else "lifecycle"
        self._secret, self._token = means.secret, settings.token or TOKEN
        self._http = means.http(settings.base_url or BASE_URL)
        self._chunks: dict[tuple[datetime, datetime], Series] = {}
        self._past_from = self._forecast_from = datetime.min.replace(tzinfo=UTC)
        self._horizons = list(HORIZONS)
        self._seen: datetime | None = None
        self._day: Series | None = None

    def read(self, now: datetime) -> Reading:
        """Return the last 24 hours, hourly, and the trailing 28 days and the forecast if the plan includes them.

        Makes at most four requests, at most one of them for the trailing days, which thus arrive over the first hour.
        """
        now = utc(now)
        present = floor_to(now, HOUR)
        trouble: list[str] = []
        recent = self._recent(now, trouble)
        newest, parts = recent, [recent]
        if not any(p.start == present and p.value is not None for p in recent.points):
            try:
                newest = self._latest(now, present)
                parts.append(newest)
            except LimitError as error:  # the hours before are still useful
                trouble.append(f"the present is unknown: {error}")
        parts = [*self._trailing(now, trouble), *parts]
        synthetic = any(part.synthetic for part in parts)
        provenance = self._provenance(newest.fetched_at, synthetic)
        points = [p for part in parts for p in part.points if present - TRAILING <= p.start <= present]
        history, stretches = history_of(_marked(points, synthetic), HOUR, provenance)
        known = [p for p in points if p.start == present and p.value is not None][-1:]
        forecast = self._forecast(now, present, known, provenance, trouble)
        return Reading(history, forecast, stretches, why="; ".join(trouble))

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the current values of the hours of `[start, end)`, ten days per request; not in every plan."""
        start, end = floor_to(utc(start), HOUR), utc(end)
        parts: list[Series] = []
        at, until = start, floor_to(end + HOUR - timedelta.resolution, HOUR)
        while at < until:
            parts.append(self._range(at, min(at + CHUNK, until), HOUR))
            at += CHUNK
        if not parts:
            raise AnswerError(f"{NAME}: from {start} to {end} there is nothing to ask for; give a later end")
        synthetic = any(part.synthetic for part in parts)
        points = [p for part in parts for p in part.points if start <= p.start < end]
        provenance = self._provenance(parts[-1].fetched_at, synthetic)
        history, stretches = history_of(_marked(points, synthetic), HOUR, provenance, "past-range")
        return Reading(history, None, stretches)

    def zones(self) -> Sequence[Zone]:
        """Return every zone; with an API key, also the access rights of that key."""
        try:
            headers = self._headers()
        except CredentialError:
            headers = {}
        what = f"{NAME}: zones"
        body = expect(self._http.get("/zones", headers=headers).body, dict, what)
        found = expect(body["zones"], dict, what) if "zones" in body else body
        zones = []
        for key, about in found.items():
            access = expect(about, dict, f"{what}.{key}").get("access") or ()
            note = ", ".join(str(right) for right in access) if isinstance(access, list | tuple) else ""
            zones.append(Zone(key, str(about.get("zoneName") or key), note))
        return zones

    def _recent(self, now: datetime, trouble: list[str]) -> Series:
        """Return the last 24 hours; if a limit is met, the previous answer, at most six hours old."""
        try:
            self._day = self._series("history", "history", keep=HISTORY_KEEP)
        except LimitError as error:
            if self._day is None or now - self._day.fetched_at > DAY / 4:
                raise
            trouble.append(f"the last hours may be missing: {error}")
        return self._day

    def _latest(self, now: datetime, present: datetime) -> Series:
        """Return the latest value, requested every 15 minutes until it is that of the present hour."""
        found = self._series("latest", "", keep=HOUR if self._seen == present else LATEST_KEEP)
        if fresh(found.points[0].start, HOUR, now, f"{NAME}: latest"):
            self._seen = found.points[0].start
        return found

    def _trailing(self, now: datetime, trouble: list[str]) -> list[Series]:
        """Return the days before today in fixed pieces, so that they can be cached; the newest is fetched first."""
        today = floor_to(now, DAY)
        starts = [floor_to(today, CHUNK) - i * CHUNK for i in range(4)]
        wanted = [(s, min(s + CHUNK, today)) for s in starts if s < today and s + CHUNK > now - TRAILING]
        self._chunks = {piece: series for piece, series in self._chunks.items() if piece in wanted}
        for start, end in wanted:
            if (start, end) in self._chunks or now < self._past_from:
                continue
            try:
                found = self._range(start, end, DAY if end + SETTLED > now else 7 * DAY)
            except SignalError as error:
                self._past_from = _again(now, error)
                if not isinstance(error, CredentialError | LimitError):
                    trouble.append(f"the trailing days are missing: {error}")
                break
            self._chunks[start, end] = found
            if found.fetched_at >= now - timedelta(minutes=1):
                self._past_from = now + CHUNK_PAUSE
        return [self._chunks[piece] for piece in reversed(wanted) if piece in self._chunks]

    def _forecast(
        self, now: datetime, present: datetime, known: list[Point], provenance: Provenance, trouble: list[str]
    ) -> Forecast | None:
        """Return the plan's forecast from the present hour on, if any; a refused horizon is requested only once."""
        if now < self._forecast_from or not self._horizons:
            return None
        try:
            found = self._series("forecast", "forecast", keep=FORECAST_KEEP, horizonHours=self._horizons[0])
            ahead = [p for p in found.points if present <= p.start < present + FARTHEST]
            if not any(p.value is not None for p in ahead):
                return None
            issued_at = min(found.issued_at or found.fetched_at, found.fetched_at)
            return forecast_of([*ahead, *known], HOUR, issued_at, provenance)
        except SignalError as error:
            if error.status in (400, 401, 403):
                self._horizons.pop(0)  # the next read requests a shorter horizon
            else:
                self._forecast_from = now + LIMIT_PAUSE
                trouble.append(f"there is no forecast: {error}")
            return None

    def _range(self, start: datetime, end: datetime, keep: timedelta) -> Series:
        return self._series("past-range", "data", keep=keep, start=_text(start), end=_text(end))

    def _series(self, what: str, key: str, keep: timedelta, **more: str) -> Series:
        """Return the points of an answer; for `latest`, the answer itself is the only point."""
        params = {
            "zone": self.zone,
            "emissionFactorType": self.basis,
            "temporalGranularity": "hourly",
            "disableCallerLookup": "true",  # otherwise an unknown zone falls back to the caller's location
            **more,
        }
        fetched = self._http.get(f"/carbon-intensity/{what}", params, headers=self._headers(), keep=keep)
        return self._parsed(fetched, f"{NAME}: {what}", key)

    def _parsed(self, fetched: Fetched, what: str, key: str) -> Series:
        body = expect(fetched.body, dict, what)
        same_zone(self.zone, body.get("zone"), what)
        granularity = body.get("temporalGranularity") or "hourly"
        if granularity != "hourly":
            raise AnswerError(f"{what} is in steps of {granularity!r}, and hours were asked for")
        items = objects(field(body, key, list, what), f"{what}.{key}") if key else [body]
        points = tuple(self._point(item, f"{what}[{i}]") for i, item in enumerate(items))
        synthetic = "SANDBOX MODE" in str(body.get("_disclaimer", "")).upper() or any(map(_made_up, items))
        updated = body.get("updatedAt")
        issued_at = moment(updated, f"{what}.updatedAt") if updated is not None else None
        return Series(points, fetched.fetched_at, synthetic, issued_at)

    def _point(self, item: Mapping[str, object], what: str) -> Point:
        factors = item.get("emissionFactorType", self.basis)
        if factors != self.basis:
            raise AnswerError(f"{what} has {factors!r} emission factors, and {self.basis} ones were asked for")
        start = moment(field(item, "datetime", str, what), f"{what}.datetime")
        value = nullable_number(field(item, "carbonIntensity", object, what), f"{what}.carbonIntensity")
        estimated: Quality = "estimated" if item.get("isEstimated") or item.get("estimationMethod") else "measured"
        return Point(start, value, estimated)

    def _provenance(self, fetched_at: datetime, synthetic: bool) -> Provenance:
        title = f"Electricity Maps, {self.zone}, {self.basis} factors"
        return Provenance(
            title=f"{title} (sandbox: made-up numbers)" if synthetic else title,
            quality="synthetic" if synthetic else "measured",
            provider=NAME,
            zone=self.zone,
            kind="average",
            basis=self.basis,
            fetched_at=fetched_at,
        )

    def _headers(self) -> dict[str, str]:
        return {"auth-token": self._secret(self._token)}


def _made_up(item: Mapping[str, object]) -> bool:
    return item.get("estimationMethod") == "SANDBOX_MODE_DATA"


def _marked(points: Iterable[Point], synthetic: bool) -> list[Point]:
    """Mark all points as synthetic if any answer came from the sandbox."""
    return [Point(p.start, p.value, "synthetic") if synthetic else p for p in points]


def _again(now: datetime, error: SignalError) -> datetime:
    """Return the time from which optional data may be requested again."""
    if isinstance(error, CredentialError):
        return NEVER
    return now + (LIMIT_PAUSE if isinstance(error, LimitError) else TROUBLE_PAUSE)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
