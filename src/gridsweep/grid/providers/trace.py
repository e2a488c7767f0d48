"""A recorded trace as a provider."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path

import numpy as np

from gridsweep.carbon.forecaster import from_history
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Quality, Reading, Stretch
from gridsweep.carbon.traces import DAY, Trace, utc
from gridsweep.errors import TraceError
from gridsweep.grid.source import Means, Zone
from gridsweep.grid.trace_files import read_recording
from gridsweep.sweep.sweep import CarbonSource

BUNDLED = "solar-valley"

HISTORY = timedelta(days=60)
"""A forecast is made from 28 days, and judged by its accuracy in the 28 before."""
HORIZON = timedelta(hours=96)
REMEMBERED = 512
"""Number of cached forecasts: about ten days of half-hour ticks."""


def open_trace(file: str, base: Path | None = None, zone: str | None = None) -> TraceProvider:
    """Return the provider that `file` names: the bundled `solar-valley`, or a file, relative to `base`.

    The zone of a file is its name without the ending, unless `zone` is given. Raises `TraceError`.
    """
    if file == BUNDLED:
        # The bundled trace is data computed by a formula, so it is imported only when needed.
        from gridsweep.carbon import solar_valley as bundled

        trace = bundled.solar_valley()
        return TraceProvider(trace, zone or bundled.ZONE, bundled.TITLE, bundled.QUALITY, yearly=True)
    path = (base or Path()) / Path(file).expanduser()
    try:
        recorded = read_recording(path)
    except TraceError:
        if difflib.get_close_matches(file, [BUNDLED], cutoff=0.7):
            raise TraceError(f"{path}: cannot be read; did you mean the bundled trace `{BUNDLED}`?") from None
        raise
    return TraceProvider(recorded.trace, zone or path.stem, path.name, qualities=recorded.qualities)


class TraceProvider:
    """A provider that replays a trace: it shows the slots that have begun at the given moment, and never a later one.

    Outside the trace's time the present is unknown. `yearly` repeats a trace of a year or more on the same days of any
    year, with 28 February repeated on the 29th; it raises `TraceError` if the trace does not cover a whole year.
    `qualities` lists the start of each quality, if the quality is not the same for all slots.
    """

    def __init__(
        self,
        trace: Trace,
        zone: str,
        source: str,
        quality: Quality = "measured",
        history: timedelta = HISTORY,
        yearly: bool = False,
        qualities: Sequence[tuple[datetime, Quality]] = (),
    ):
        self.trace = trace
        self.provenance = Provenance(source, quality, zone=zone)
        self._stretches = [Stretch(start, replace(self.provenance, quality=told)) for start, told in qualities]
        self._slots = max(1, history // trace.step)
        self._calendar = _calendar(trace) if yearly else None
        self._year = 0
        self._shown = trace
        self._present: int | None = None
        self._history = trace
        self._made: dict[datetime, Forecast | None] = {}

    def read(self, now: datetime) -> Reading:
        """Return the last 60 days up to the present slot, as a view, and the forecast from them."""
        if self._calendar is not None and (year := utc(now).year) != self._year:
            # Two years in one column, so that the history of early January is a view too.
            self._shown = _years(self._calendar, year - 1, year)
            self._year, self._present = year, None
        trace = self._shown
        present = (now - trace.start) // trace.step
        if present != self._present:
            size = len(trace.values)
            last = min(max(0, present + 1), size)
            first = min(max(0, present + 1 - self._slots), size)
            self._present = present
            self._history = Trace(trace.start + first * trace.step, trace.step, trace.values[first:last])
        history = self._history
        return Reading(history, lambda: self._forecast(history, now), self._provenance_until(now))

    def _forecast(self, history: Trace, now: datetime) -> Forecast | None:
        """Return the forecast, cached per moment, because backtests from many starts read the same moments."""
        if now not in self._made:
            if len(self._made) >= REMEMBERED:
                del self._made[next(iter(self._made))]
            self._made[now] = from_history(history, now, HORIZON)
        return self._made[now]

    def _provenance_until(self, now: datetime) -> Provenance | list[Stretch]:
        begun = [stretch for stretch in self._stretches if stretch.start <= now]
        return begun or self.provenance


class TraceFile:
    """The provider `trace`: replays a file or a bundled trace."""

    keys = frozenset({"file"})
    live = False

    def __init__(self, settings: CarbonSource, means: Means) -> None:
        self._replayed = open_trace(settings.file or BUNDLED, means.base, settings.zone or None)

    def read(self, now: datetime) -> Reading:
        return self._replayed.read(now)

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the trace in `[start, end)`: the same values as `read` showed, unless the file was revised."""
        history = self._replayed.read(end - timedelta(microseconds=1)).history.between(start, end)
        return Reading(history, None, self._replayed.provenance)

    def zones(self) -> Sequence[Zone]:
        return [Zone(BUNDLED, "a synthetic valley with much sun, bundled", "any date; works offline")]


Calendar = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def _calendar(trace: Trace) -> Calendar:
    """Return the days of a non-leap year, shape (365, slots per day). Raises `TraceError` if one is missing."""
    a_day, rest = divmod(DAY, trace.step)
    midnight = trace.start.replace(hour=0, minute=0, second=0, microsecond=0)
    before, off = divmod(trace.start - midnight, trace.step)
    if rest or off:
        raise TraceError(f"steps of {trace.step} from {trace.start:%H:%M:%S} UTC do not fill whole days")
    after = -(before + len(trace)) % a_day
    days = np.pad(trace.values, (before, after), constant_values=nan).reshape(-1, a_day)
    given = np.pad(np.ones(len(trace), dtype=bool), (before, after)).reshape(-1, a_day)
    calendar, filled = np.full((365, a_day), nan), np.zeros((365, a_day), dtype=bool)
    for number, (day, there) in enumerate(zip(days, given, strict=True)):
        row = _day_of_plain_year(midnight + number * DAY)
        if row is not None:
            fresh = there & ~filled[row]
            calendar[row, fresh] = day[fresh]
            filled[row] |= there
    if not filled.all():
        raise TraceError(f"a trace of {len(trace) * trace.step / DAY:.1f} days cannot repeat yearly: give a whole year")
    return calendar


def _day_of_plain_year(day: datetime) -> int | None:
    """Return 0 for 1 January to 364 for 31 December; None for a leap day."""
    if (day.month, day.day) == (2, 29):
        return None
    return (day.replace(year=2001) - datetime(2001, 1, 1, tzinfo=UTC)).days


def _years(calendar: Calendar, first: int, last: int) -> Trace:
    start, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last + 1, 1, 1, tzinfo=UTC)
    rows = [_day_of_plain_year(start + number * DAY) for number in range((end - start).days)]
    leap_day = 31 + 28 - 1
    values = calendar[[leap_day if row is None else row for row in rows]].ravel()
    values.setflags(write=False)
    return Trace(start, DAY / calendar.shape[1], values)
