"""WattTime, version 3: marginal operating emissions rate (MOER) of a region, in five-minute steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import numpy as np

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading, Stretch
from gridsweep.carbon.traces import DAY, HOUR, Trace, floor_to, utc
from gridsweep.errors import AnswerError, CredentialError, LimitError, SignalError
from gridsweep.grid.http.parsing import (
    MOST_GRAMS,
    Point,
    column,
    field,
    fresh,
    grams,
    history_of,
    moment,
    nullable_number,
    number,
    objects,
    same_zone,
)
from gridsweep.grid.source import Fetched, Means, Zone
from gridsweep.sweep.sweep import CarbonSource

NAME = "watttime"
BASE_URL = "https://api.watttime.org"
USERNAME, PASSWORD = "env:WATTTIME_USERNAME", "env:WATTTIME_PASSWORD"
SIGNAL = "co2_moer"

STEP = timedelta(minutes=5)
TOKEN_KEEP = timedelta(minutes=25)
"""A token is valid for 30 minutes; it is renewed before that."""
LOGIN_PAUSE = timedelta(seconds=30)
STUBBORN = timedelta(minutes=5)
"""Time for which the refusal of a fresh token counts as a refusal by the plan."""
FORECAST_KEEP, HISTORY_KEEP, TRAILING_KEEP = timedelta(minutes=14), timedelta(minutes=55), DAY
TRAILING = 28 * DAY
LONGEST = 31 * DAY  # one request for history may span 32 days
PAUSE = timedelta(minutes=15)
OLDEST = 2 * HOUR
"""Maximum age of a forecast's start; an older one does not give the present."""
BEGINNING = datetime.min.replace(tzinfo=UTC)


History = tuple[Trace, tuple[Stretch, ...]]


@dataclass(frozen=True, slots=True)
class Series:
    """The points of an answer, all with the same step."""

    points: tuple[Point, ...]
    step: timedelta
    fetched_at: datetime
    issued_at: datetime
    warnings: tuple[str, ...]


class WattTime:
    """A provider of the emissions at the stack of one more kilowatt-hour in a region, such as CAISO_NORTH.

    The present is the first point of the forecast, because WattTime does not guarantee history. The token is kept in
    memory only.
    """

    keys: ClassVar[frozenset[str]] = frozenset({"username", "password", "base_url"})
    secrets: ClassVar[dict[str, str]] = {"username": USERNAME, "password": PASSWORD}
    live: ClassVar[bool] = True

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        self.zone = settings.zone
        self._secret = means.secret
        self._user, self._password = settings.username or USERNAME, settings.password or PASSWORD
        self._http = means.http(settings.base_url or BASE_URL)
        self._token: str | None = None
        self._token_until = self._login_from = self._stubborn_until = self._at = BEGINNING
        self._horizons = ["72", "24"]
        self._held: Series | None = None
        self._line = Trace(BEGINNING, STEP, ())
        self._pieces: dict[str, tuple[tuple[datetime, datetime], Series]] = {}
        self._told: History | None = None
        self._history_from, self._trouble = BEGINNING, ""
        self._refused: tuple[datetime, str] = (BEGINNING, "")

    def read(self, now: datetime) -> Reading:
        """Return the trailing 28 days as far as they are known, the present, and the forecast of up to 72 hours.

        Makes at most five requests, including a login, and seven in an ordinary hour.
        """
        now = self._at = utc(now)
        if now < self._refused[0]:
            raise CredentialError(self._refused[1], 403)
        ahead = self._ahead(now)
        present = floor_to(now, ahead.step)
        first = min(p.start for p in ahead.points)
        trouble = list(ahead.warnings)
        fresh(first, ahead.step, now, f"{NAME}: forecast")
        near = [p for p in ahead.points if p.start <= present] if first >= now - OLDEST else []
        if not near:
            trouble.append(f"the forecast begins at {first:%Y-%m-%d %H:%M} UTC, after the present")
            near = [Point(present, None)]
        provenance = self._provenance(ahead.fetched_at)
        history, stretches = history_of(near, ahead.step, provenance, "forecast")
        if told := self._trailing(now, ahead.step, trouble):
            history, stretches = _joined(told, (history, stretches))
        return Reading(history, self._forecast(ahead, present, provenance), stretches, why="; ".join(trouble))

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the known values in `[start, end)`, NaN elsewhere; WattTime does not guarantee any history."""
        start, end = floor_to(utc(start), STEP), utc(end)
        if end <= start:
            raise AnswerError(f"{NAME}: from {start} to {end} there is no time; give a later end")
        self._at = max(self._at, end)
        starts = [start + i * LONGEST for i in range(-((start - end) // LONGEST))]
        parts = [self._history(at, min(at + LONGEST, end), HOUR) for at in starts]
        provenance, step = self._provenance(parts[-1].fetched_at), parts[0].step
        points = [p for part in parts for p in part.points if start <= p.start < end]
        if not points:
            blank = Trace(start, step, np.full(-((start - end) // step), np.nan))
            return Reading(blank, None, provenance, why=f"{NAME} has no history of these hours")
        history, stretches = history_of(points, step, provenance, "historical")
        return Reading(history, None, stretches, why="; ".join(dict.fromkeys(w for p in parts for w in p.warnings)))

    def zones(self) -> Sequence[Zone]:
        """Return the regions whose marginal intensity this account may read, with the endpoints."""
        what = f"{NAME}: my-access"
        body = self._asked("/v3/my-access", {}).body
        zones: list[Zone] = []
        for signal in objects(field(body, "signal_types", list, what), what):
            if signal.get("signal_type") != SIGNAL:
                continue
            for region in objects(field(signal, "regions", list, what), what):
                id = field(region, "region", str, what)
                ends = [str(e.get("endpoint")) for e in objects(region.get("endpoints") or [], what)]
                zones.append(Zone(id, str(region.get("region_full_name") or id), ", ".join(ends)))
        return zones

    def _ahead(self, now: datetime) -> Series:
        """Return the forecast for the longest horizon not refused; it is requested again after a quarter of an hour."""
        if self._held and timedelta(0) <= now - self._held.fetched_at <= FORECAST_KEEP:
            return self._held
        for hours in tuple(self._horizons):
            params = self._params(horizon_hours=hours)
            try:
                found = self._parsed(self._asked("/v3/forecast", params, FORECAST_KEEP), "forecast")
            except LimitError:
                if self._held and now - self._held.fetched_at <= OLDEST:
                    return self._held  # it covers the present too
                raise
            except SignalError as error:
                if hours != self._horizons[-1] and (error.status in (400, 422) or _of_the_plan(error)):
                    continue
                if _of_the_plan(error):
                    why = f"{NAME}: {self.zone} is not in this account's plan; the free one has CAISO_NORTH ({error})"
                    self._refused = (now + HOUR, why)
                    raise CredentialError(why, error.status) from None
                raise
            self._horizons = self._horizons[self._horizons.index(hours) :]
            self._line = column(found.points, found.step, f"{NAME}: forecast")
            self._held = found
            return found
        raise AssertionError("the last horizon returns or raises")

    def _forecast(self, ahead: Series, present: datetime, provenance: Provenance) -> Forecast | None:
        line = self._line.between(present, present + 4 * DAY)
        if not np.isfinite(line.values).any():
            return None
        issued_at = min(ahead.issued_at, ahead.fetched_at)
        return Forecast(issued_at, line.start, line.step, line.values[np.newaxis, :], provenance.title)

    def _trailing(self, now: datetime, step: timedelta, trouble: list[str]) -> History | None:
        """Return history up to this hour: days before yesterday are requested once a day, the rest every hour."""
        yesterday = floor_to(now, DAY) - DAY
        wanted = (
            ("recent", (yesterday, floor_to(now, HOUR)), HISTORY_KEEP),
            ("trailing", (yesterday + DAY - TRAILING, yesterday), TRAILING_KEEP),
        )
        for name, window, keep in wanted:
            if now < self._history_from or (name in self._pieces and self._pieces[name][0] == window):
                continue
            try:
                self._pieces[name] = window, self._history(*window, keep)
                self._told = None
            except SignalError as error:
                self._history_from = now + PAUSE
                self._trouble = f"some history is missing: {error}"
        if now < self._history_from:
            trouble.append(self._trouble)
        parts = [series for _, series in self._pieces.values()]
        points = [p for part in parts for p in part.points if part.step == step] if self._told is None else []
        if points:
            provenance = self._provenance(max(part.fetched_at for part in parts))
            self._told = history_of(points, step, provenance, "historical")
        return self._told if self._told and self._told[0].step == step else None

    def _history(self, start: datetime, end: datetime, keep: timedelta) -> Series:
        params = self._params(start=start.isoformat(), end=end.isoformat(), include_imputed_marker="true")
        found = self._parsed(self._asked("/v3/historical", params, keep), "historical")
        return replace(found, points=tuple(p for p in found.points if start <= p.start < end))

    def _params(self, **more: str) -> dict[str, str]:
        return {"region": self.zone, "signal_type": SIGNAL, **more}

    def _parsed(self, fetched: Fetched, name: str) -> Series:
        what = f"{NAME}: {name}"
        meta = field(fetched.body, "meta", dict, what)
        same_zone(self.zone, meta.get("region"), what)
        if meta.get("signal_type", SIGNAL) != SIGNAL:
            raise AnswerError(f"{what} is of the signal {meta['signal_type']!r}, and {SIGNAL} was asked for")
        factor = grams(1.0, meta.get("units"), what)
        seconds = number(meta.get("data_point_period_seconds"), f"{what}.meta.data_point_period_seconds", most=3600)
        if seconds < 60 or 3600 % seconds:
            raise AnswerError(f"{what} is in steps of {seconds:g} s, and an hour does not divide into those")
        generated = meta.get("generated_at")
        issued_at = moment(generated, f"{what}.meta.generated_at") if generated is not None else fetched.fetched_at
        items = objects(field(fetched.body, "data", list, what), f"{what}.data")
        points = [self._point(item, factor, f"{what}.data[{i}]") for i, item in enumerate(items)]
        if name == "forecast" and points:
            first = min(p.start for p in points)
            points = [Point(p.start, p.value, "estimated" if p.start == first else "forecast") for p in points]
        told = meta.get("warnings") or []
        warnings = tuple(f"WattTime warns: {_words(one)}" for one in (told if isinstance(told, list) else [told]))
        return Series(tuple(points), timedelta(seconds=seconds), fetched.fetched_at, issued_at, warnings)

    def _point(self, item: Mapping[str, object], factor: float, what: str) -> Point:
        value = nullable_number(field(item, "value", object, what), f"{what}.value", most=MOST_GRAMS / factor)
        start = moment(field(item, "point_time", str, what), f"{what}.point_time")
        imputed = item.get("imputed_data_used") is True
        return Point(start, None if value is None else value * factor, "imputed" if imputed else "measured")

    def _provenance(self, fetched_at: datetime) -> Provenance:
        title = f"WattTime, {self.zone}, marginal ({SIGNAL})"
        return Provenance(title, "measured", NAME, self.zone, "marginal", "direct", fetched_at=fetched_at)

    def _asked(self, path: str, params: Mapping[str, str], keep: timedelta = timedelta(0)) -> Fetched:
        """Send a request with a token and return the answer; a refused token is replaced once."""
        if self._token is None or self._at >= self._token_until:
            self._log_in()
        try:
            return self._got(path, params, keep)
        except CredentialError as refused:
            if refused.status == 401:
                self._token = None  # for any other status, the plan may be what refuses
            if _of_the_plan(refused) or self._at < max(self._login_from, self._stubborn_until):
                raise
        self._log_in()
        try:
            return self._got(path, params, keep)
        except CredentialError:
            self._stubborn_until = self._at + STUBBORN
            raise

    def _got(self, path: str, params: Mapping[str, str], keep: timedelta) -> Fetched:
        fetched = self._http.get(path, params, headers={"authorization": f"Bearer {self._token}"}, keep=keep)
        if not fetched.cached:
            self._at = max(self._at, fetched.fetched_at)
        return fetched

    def _log_in(self) -> None:
        """Request a new token, at most once every 30 seconds."""
        if self._at < self._login_from:
            raise LimitError(f"{NAME}: the last log-in was less than 30 s ago; the next one has to wait")
        self._token = None
        if self._at > BEGINNING:
            self._login_from = self._at + LOGIN_PAUSE
        auth = self._secret(self._user), self._secret(self._password)
        fetched = self._http.get("/login", auth=auth)
        token = field(fetched.body, "token", str, f"{NAME}: login")
        if not token or not token.isascii() or not token.isprintable():
            raise AnswerError(f"{NAME}: login gave a token that no header can carry; look at carbon.base_url")
        self._at = max(self._at, fetched.fetched_at)
        self._token, self._token_until = token, self._at + TOKEN_KEEP
        self._login_from = self._at + LOGIN_PAUSE


def _of_the_plan(error: SignalError) -> bool:
    """Return whether the plan, not the token, is the reason for the refusal."""
    return error.status == 403 and "scope" in str(error).lower()


def _words(warning: object) -> str:
    message = warning.get("message") or warning.get("type") if isinstance(warning, dict) else warning
    return "".join(char for char in str(message)[:200] if char.isprintable())


def _joined(told: History, near: History) -> History:
    """Return history joined with the known slots after it; slots in between are NaN."""
    (old, sources), (new, more) = told, near
    new = new.between(max(new.start, old.end), new.end)
    if not len(new):
        return told
    gap = np.full((new.start - old.end) // old.step, np.nan)
    kept = tuple(Stretch(max(s.start, new.start), s.provenance) for s in more if s.start < new.end)
    return Trace(old.start, old.step, np.concatenate((old.values, gap, new.values))), (*sources, *kept)
