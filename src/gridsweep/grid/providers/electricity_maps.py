"""Electricity Maps, version 3: hourly average intensity of a zone, as consumed there (flow-traced)."""

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
"""So no hour has more than eight requests, even where the present is never told: four, two and two."""
TRAILING = 28 * DAY
CHUNK = 10 * DAY
"""As much as one request for the past may span."""
CHUNK_PAUSE, LIMIT_PAUSE, TROUBLE_PAUSE = timedelta(minutes=30), timedelta(minutes=10), HOUR
"""Between two requests for what is not vital: when the last one succeeded, met a limit, or failed."""
SETTLED = 4 * DAY
HORIZONS = ("72", "24")
FARTHEST = 8 * DAY
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Series:
    """The points of an answer; `synthetic` where the API says that it made them up."""

    points: tuple[Point, ...]
    fetched_at: datetime
    synthetic: bool
    issued_at: datetime | None = None


class ElectricityMaps:
    """A zone by its key, such as DE or US-CAL-CISO. `basis` is lifecycle (the default) or direct.

    The key's plan decides what there is: the last 24 hours always, the trailing 28 days and a forecast if they are in
    it. What the plan refuses is not asked for again.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"token", "base_url", "basis"})
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
        """The last 24 hours, the trailing 28 days and the forecast as far as the plan has them; hourly.

        At most four requests, and one of them at most for the trailing days, which so come in over the first hour.
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
            except LimitError as error:  # the hours before are worth telling
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
        """The hours of `[start, end)` as they are known by now, ten days a request; not in every plan."""
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
        """Every zone; with a key, also what that key may read there."""
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
        """The last 24 hours; where a limit is met, those that were read last."""
        try:
            self._day = self._series("history", "history", keep=HISTORY_KEEP)
        except LimitError as error:
            if self._day is None or now - self._day.fetched_at > DAY / 4:
                raise
            trouble.append(f"the last hours may be missing: {error}")
        return self._day

    def _latest(self, now: datetime, present: datetime) -> Series:
        """The latest value, asked for every 15 minutes until it is that of the present hour."""
        found = self._series("latest", "", keep=HOUR if self._seen == present else LATEST_KEEP)
        if fresh(found.points[0].start, HOUR, now, f"{NAME}: latest"):
            self._seen = found.points[0].start
        return found

    def _trailing(self, now: datetime, trouble: list[str]) -> list[Series]:
        """The days before today in pieces that stay the same, so that they can be kept; the newest first to come."""
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
        """The plan's forecast from the present hour on, if it has one; what the plan refuses is asked for once."""
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
                self._horizons.pop(0)  # the next read asks for less
            else:
                self._forecast_from = now + LIMIT_PAUSE
                trouble.append(f"there is no forecast: {error}")
            return None

    def _range(self, start: datetime, end: datetime, keep: timedelta) -> Series:
        return self._series("past-range", "data", keep=keep, start=_text(start), end=_text(end))

    def _series(self, what: str, key: str, keep: timedelta, **more: str) -> Series:
        """The points of an answer; the latest has one, which is the answer itself."""
        params = {
            "zone": self.zone,
            "emissionFactorType": self.basis,
            "temporalGranularity": "hourly",
            "disableCallerLookup": "true",  # else an unknown zone is answered with that of the caller's address
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
    """One answer of a sandbox makes the whole reading one."""
    return [Point(p.start, p.value, "synthetic") if synthetic else p for p in points]


def _again(now: datetime, error: SignalError) -> datetime:
    """When something that is not vital may be asked for again."""
    if isinstance(error, CredentialError):
        return NEVER
    return now + (LIMIT_PAUSE if isinstance(error, LimitError) else TROUBLE_PAUSE)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
