"""The outlook for a grid zone: the forecast, its uncertainty, and the cleanest windows for a piece of work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsweep.carbon.readings import Reading
from gridsweep.carbon.traces import DAY, HOUR, Trace, or_none, or_nones

WINDOWS = 3
WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Window:
    """A time to run: its mean intensity in gCO2eq/kWh, and the share it saves compared with running now."""

    start: datetime
    end: datetime
    intensity: float
    saving: float | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """The source of the slots of `[start, end)`, and their quality."""

    start: datetime
    end: datetime
    title: str
    quality: str
    kind: str
    basis: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """The grid now and ahead. Columns are gCO2eq/kWh per slot, None where unknown; `expected` begins at `start`.

    `low` and `high` bound the 80 % interval from past errors of such forecasts. `typical_error` is the mean relative
    error on the first day; None if too little is known.
    """

    provider: str
    zone: str
    now: datetime
    intensity: float | None
    freshness: str
    why: str
    step_h: float
    start: datetime
    expected: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    past_start: datetime
    past: tuple[float | None, ...]
    typical_error: float | None
    duration_h: float
    now_intensity: float | None
    windows: tuple[Window, ...]
    sources: tuple[Attribution, ...]
    schema_version: int = 2


def outlook(reading: Reading, now: datetime, duration: timedelta, horizon: timedelta) -> Outlook:
    """Return the outlook of a reading for `[now, now + horizon)`, with its cleanest windows of the given length."""
    history, forecast, seen = reading.history, reading.forecast, reading.provenance
    level = history.at(now)
    end = now + horizon
    expected = low = high = Trace(now, history.step, [])
    if forecast is not None:
        expected = forecast.mean.between(now, end)
        low, high = (side.between(now, end) for side in forecast.band())
    atonce = expected.mean(now, now + duration) if len(expected) else float("nan")
    past = history.between(now - DAY, now + timedelta(microseconds=1))
    sources = [
        Attribution(max(a.start, past.start), b, p.title, p.quality, p.kind, p.basis)
        for a, b in zip(reading.stretches, [*(s.start for s in reading.stretches[1:]), history.end], strict=True)
        if b > past.start and (p := a.provenance)
    ]
    if forecast is not None:
        sources.append(Attribution(forecast.start, forecast.end, forecast.source, "forecast", seen.kind, seen.basis))
    return Outlook(
        provider=seen.provider,
        zone=seen.zone,
        now=now,
        intensity=or_none(level),
        freshness=reading.freshness,
        why=reading.why,
        step_h=history.step / HOUR,
        start=expected.start,
        expected=or_nones(expected.values),
        low=or_nones(low.values),
        high=or_nones(high.values),
        past_start=past.start,
        past=or_nones(past.values),
        typical_error=or_none(forecast.typical_error) if forecast is not None else None,
        duration_h=duration / HOUR,
        now_intensity=or_none(atonce),
        windows=tuple(cleanest(expected, now, duration, atonce)),
        sources=tuple(sources),
    )


def cleanest(expected: Trace, now: datetime, duration: timedelta, atonce: float) -> list[Window]:
    """Return the cleanest windows that lie within the forecast and do not overlap, the best first."""
    edges = [now, *(expected.start + i * expected.step for i in range(1, len(expected)))]
    starts = [start for start in edges if start + duration <= expected.end]
    found = [(expected.mean(start, start + duration), start) for start in starts]
    chosen: list[Window] = []
    for level, start in sorted((level, start) for level, start in found if level == level):
        if len(chosen) == WINDOWS:
            break
        if all(abs(start - window.start) >= duration for window in chosen):
            saving = 1 - level / atonce if atonce > 0 else None
            chosen.append(Window(start, start + duration, level, saving))
    return chosen
