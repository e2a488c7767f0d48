"""A provider that always answers: with live data, or with the best available fallback.

live -> cached, at most 10 minutes -> stale, at most six hours -> our own forecast -> a yearly average -> none.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon.forecaster import blend, from_history, with_past
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Freshness, Provenance, Quality, Reading, Stretch
from gridsweep.carbon.traces import DAY, HOUR, Trace, floor_to
from gridsweep.errors import SignalError
from gridsweep.grid.archive import Archive
from gridsweep.grid.source import Source

FRESH = timedelta(minutes=10)
"""Time for which an answer is reused before the provider is asked again."""
STALE = timedelta(hours=6)
"""Maximum age of an answer that may stand for the present, through its own forecast or one made from it."""
AGAIN = timedelta(minutes=2)
"""Pause after a failure before the provider is asked again, whatever its own limits allow."""
HISTORY = timedelta(days=60)
HORIZON = timedelta(hours=96)


class Resolver:
    """A reader of a live source with fallbacks.

    The last fallback is the zone's yearly mean: `average` is its provenance, `level` its value in gCO2eq/kWh.
    An unreported present slot is filled by a forecast and marked `forecast`, or `stale` at that freshness; a later
    observation from the provider replaces it. Past gaps are never filled.
    """

    def __init__(
        self, source: Source, archive: Archive, average: Provenance | None = None, level: float = float("nan")
    ):
        self.source = source
        self.archive = archive
        self.average = average
        self.level = level
        self.why = ""
        self.note = ""
        self._asked: datetime | None = None
        self._shown: tuple[object, Reading] | None = None

    def read(self, now: datetime) -> Reading:
        """Return the history with the present slot, a forecast, and their freshness. Never raises `SignalError`."""
        freshness = self._freshness(now, live=self._ask(now))
        slot = floor_to(now, self.archive.grid.trace(now).step)
        key = (slot, freshness, self.archive.fetched_at, self.why)
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self._composed(now, slot, freshness))
        return self._shown[1]

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the source's current data for `[start, end)`. Raises `SignalError`."""
        return self.source.past(start, end)

    def _ask(self, now: datetime) -> bool:
        """Ask the source, unless it answered or failed a moment ago; return whether it has just answered."""
        told = self.archive.fetched_at
        if told is not None and timedelta(0) <= now - told < FRESH and not self.why:
            return False
        if self.why and self._asked is not None and timedelta(0) <= now - self._asked < AGAIN:
            return False
        self._asked = now
        try:
            reading = self.source.read(now)
        except SignalError as error:
            self.why = str(error)
            return False
        self.why, self.note = "", reading.why
        self.archive.keep(reading, now)
        return True

    def _freshness(self, now: datetime, live: bool) -> Freshness:
        told = self.archive.fetched_at
        age = now - told if told is not None else None
        if live:
            return "live"
        if age is not None and timedelta(0) <= age < FRESH:
            return "cached"
        if age is not None and timedelta(0) <= age <= STALE:
            return "stale"
        if self.archive.grid.trace(now).known(now - HISTORY, now) >= DAY:
            return "forecast"
        return "static" if self.average else "none"

    def _composed(self, now: datetime, slot: datetime, freshness: Freshness) -> Reading:
        known, stretches = self.archive.history(slot - HISTORY, now + timedelta(microseconds=1))
        step = known.step
        seen = np.flatnonzero(np.isfinite(known.values))
        after = known.start + (int(seen[-1]) + 1) * step if len(seen) else max(slot - HISTORY, slot)
        known = known.between(known.start, after)
        stretches = tuple(stretch for stretch in stretches if stretch.start < after)
        missing = max(0, (slot - after) // step + 1)
        told = self.archive.told
        if not missing:
            return Reading(known, lambda: self._ahead(known, now, told), stretches, freshness, self.why or self.note)
        values, quality, title = self._filled(known, after, missing, freshness)
        base = stretches[-1].provenance if stretches else self.average or Provenance("no source", zone="")
        fill = Provenance(
            title, quality, base.provider, base.zone, base.kind, base.basis, fetched_at=self.archive.fetched_at
        )
        start = known.start if len(known) else after
        history = Trace(start, step, np.concatenate([known.values, values]))
        whole = (*stretches, Stretch(after, fill))
        if freshness in ("static", "none"):
            return Reading(history, None, whole, freshness, self.why)
        return Reading(history, lambda: self._ahead(history, now, told), whole, freshness, self.why or self.note)

    def _filled(
        self, known: Trace, after: datetime, slots: int, freshness: Freshness
    ) -> tuple[np.ndarray, Quality, str]:
        """Return values for the unreported slots up to the present one, their quality, and the source of the values."""
        if freshness == "none":
            return np.full(slots, np.nan), "estimated", "no source"
        if freshness == "static":
            return np.full(slots, self.level), "static", self.average.title if self.average else ""
        quality: Quality = "stale" if freshness == "stale" else "forecast"
        own = from_history(known, after - known.step, known.step * slots + HOUR) if len(known) else None
        values, titles = np.full(slots, np.nan), []
        for forecast in (own, self.archive.told):  # the provider's forecast overrides our own
            if forecast is None:
                continue
            expected = [forecast.mean.at(after + i * known.step) for i in range(slots)]
            better = np.isfinite(expected)
            values[better] = np.array(expected)[better]
            if better.any():
                titles.append(forecast.source)
        return values, quality, titles[-1] if titles else "no source"

    def _ahead(self, history: Trace, now: datetime, told: Forecast | None) -> Forecast | None:
        own = from_history(history, now, HORIZON)
        if told is None or told.end <= now:
            return own
        return told if own is None else blend(own, with_past(told, self.archive.earlier, history))
