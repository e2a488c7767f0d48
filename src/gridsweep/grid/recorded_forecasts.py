"""Recorded forecasts of a provider, replayed from a file beside the actual values.

The file is CSV with the columns `issued,timestamp,forecast,actual` in any order: the intensity forecast for a slot at
the time of issue, and the actual one (both in gCO2eq/kWh, empty if unknown). Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np

from gridsweep.carbon.forecaster import bent, blend, from_history, with_past
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Reading
from gridsweep.carbon.traces import Column, Trace
from gridsweep.errors import SpecError
from gridsweep.grid.providers.trace import BUNDLED, TraceProvider, open_trace
from gridsweep.grid.trace_files.cells import amount_in, moment_of
from gridsweep.grid.trace_files.content import content_of, text_of
from gridsweep.grid.trace_files.problems import Problems, iso
from gridsweep.grid.trace_files.slots import LONGEST, SHORTEST
from gridsweep.sweep.sweep import CarbonSource

COLUMNS = ("issued", "timestamp", "forecast", "actual")
HORIZON = timedelta(hours=96)
EARLIER = 28
"""Number of preceding issues by which a forecast is judged."""


def open_replay(trace: str | None, forecast: str = "history", carbon: CarbonSource | None = None) -> ReplayProvider:
    """Return the provider of a backtest: a trace with its own forecasts, or `recorded:FILE` with those of a file.

    `trace` is a file or a bundled trace. With recorded forecasts it may be omitted; the actual values are then the
    file's `actual`. Without either, the trace is the one that `carbon`, the spec's source, names. Raises `TraceError`
    for a bad file, and `SpecError` for an unknown `forecast` or a missing trace.
    """
    word, colon, file = forecast.partition(":")
    if colon and word == "recorded" and file:
        return open_recorded(file, trace)
    if forecast not in ("history", "perfect"):
        raise SpecError(f"{forecast!r} is no forecast to replay; say history, perfect or recorded:FILE")
    if trace is None and carbon is not None and carbon.provider == "trace":
        return open_trace(carbon.file or BUNDLED, zone=carbon.zone or None)
    if trace is None:
        raise SpecError(f"a back-test with the forecast {forecast} needs a trace; name one with --trace")
    return open_trace(trace)


def open_recorded(file: str | Path, trace: str | None = None) -> Recorded:
    """Return the forecasts of a file, beside its own `actual` or another trace. Raises `TraceError` for a bad file."""
    path = Path(file).expanduser()
    actual, issues = read_forecasts(path)
    if trace is not None and Path(trace).expanduser() != path:
        given = open_trace(trace)
        return Recorded(given.trace, issues, given.provenance.zone, f"{given.provenance.title}, forecasts {path.name}")
    return Recorded(actual, issues, path.stem, path.name)


class Recorded:
    """A provider that shows the slots of a trace that have begun, with the last forecast issued by then.

    That forecast is bent to the known present and blended with our own by the past accuracy of both; after its end, our
    own forecast continues. Before the first issue, only our own is used.
    """

    def __init__(self, trace: Trace, issues: Sequence[Forecast], zone: str, title: str):
        self.trace = trace
        self._replayed = TraceProvider(trace, zone, title)
        self.provenance = self._replayed.provenance
        self._issues = sorted(issues, key=lambda issue: issue.issued_at)
        self._moments = [issue.issued_at for issue in self._issues]
        self._made: dict[tuple[int, int], Forecast | None] = {}

    def read(self, now: datetime) -> Reading:
        """Return the last 60 days up to the present slot, and the forecast of that moment."""
        reading = self._replayed.read(now)
        return Reading(reading.history, lambda: self._forecast(reading.history, now), reading.provenance)

    def _forecast(self, history: Trace, now: datetime) -> Forecast | None:
        """Return the forecast, cached per slot and issue, because many sweeps read the same slots."""
        last = bisect_right(self._moments, now) - 1
        key = (self.trace.index(now), last)
        if key not in self._made:
            self._made[key] = self._blended(history, now, last)
        return self._made[key]

    def _blended(self, history: Trace, now: datetime, last: int) -> Forecast | None:
        own = from_history(history, now, HORIZON)
        if last < 0:
            return own
        given = bent(self._issues[last], history)
        if own is None:
            return given
        return blend(own, with_past(given, self._issues[max(0, last - EARLIER) : last], history))


ReplayProvider = TraceProvider | Recorded


def read_forecasts(path: Path | str) -> tuple[Trace, list[Forecast]]:
    """Read the actual values, and the forecasts in order of issue, from a CSV file; all have the same step.

    Raises `TraceError` with the first ten problems of the file, each with its line, the problem and the remedy.
    """
    path = Path(path)
    problems = Problems(str(path))
    rows = csv.reader(io.StringIO(text_of(content_of(path, (".csv",)), problems), newline=""))
    told: dict[datetime, dict[datetime, float]] = {}
    came: dict[datetime, tuple[int, float]] = {}
    try:
        at = _places(rows, problems)
        for cells in rows:
            if any(map(str.strip, cells)):
                _take(cells, at, rows.line_num, told, came, problems)
    except csv.Error as error:
        raise problems.error(f"is no CSV ({error}); look for an open quote", rows.line_num) from None
    if not told and not problems.count:
        problems.add(1, "has no rows; add them")
    problems.check()
    step = _step(told, problems)
    _check_grid(came, step, problems)
    problems.check()
    start, values = _column({moment: value for moment, (_, value) in came.items()}, step)
    issues = []
    for issued in sorted(told):
        begin, expected = _column(told[issued], step)
        if np.isfinite(expected).any():
            issues.append(Forecast(issued, begin, step, expected[np.newaxis, :], path.name))
    return Trace(start, step, values), issues


def _places(rows: Iterator[list[str]], problems: Problems) -> dict[str, int]:
    """Return the index of each column."""
    names = [name.strip() for name in next((row for row in rows if any(map(str.strip, row))), [])]
    for name in COLUMNS:
        if names.count(name) != 1:
            how = "no column is" if name not in names else f"{names.count(name)} columns are"
            problems.add(1, f"{how} named `{name}`; write the header `{','.join(COLUMNS)}`")
    problems.check()
    return {name: names.index(name) for name in COLUMNS}


def _take(
    cells: list[str],
    at: Mapping[str, int],
    row: int,
    told: dict[datetime, dict[datetime, float]],
    came: dict[datetime, tuple[int, float]],
    problems: Problems,
) -> None:
    """Add one row of the file to `told` and `came`."""
    if len(cells) <= max(at.values()):
        problems.add(row, f"has {len(cells)} columns; complete the row or take it out")
        return
    issued, moment = (moment_of(cells[at[name]], row, problems) for name in ("issued", "timestamp"))
    expected, actual = (amount_in(cells[at[name]], None, row, problems) for name in ("forecast", "actual"))
    if issued is None or moment is None:
        return
    issue = told.setdefault(issued, {})
    if moment in issue:
        problems.add(row, f"{iso(moment)} as issued {iso(issued)} is there already; keep one")
        return
    issue[moment] = expected
    before = came.get(moment, (row, np.nan))
    if actual == actual and before[1] == before[1] and actual != before[1]:
        problems.add(row, f"the actual value of {iso(moment)} differs from that in line {before[0]}; correct one")
    elif actual == actual or moment not in came:
        came[moment] = (row, actual)


def _step(told: Mapping[datetime, Mapping[datetime, float]], problems: Problems) -> timedelta:
    """Return the most common distance between a forecast's slots."""
    steps = Counter(b - a for issue in told.values() for a, b in pairwise(sorted(issue)))
    if not steps:
        raise problems.error("no forecast has two slots, so their length is unknown; add rows")
    step = max(steps, key=lambda span: (steps[span], -span))
    if not SHORTEST <= step <= LONGEST:
        raise problems.error(f"its slots would last {step}; give slots of a minute to a day")
    return step


def _check_grid(came: Mapping[datetime, tuple[int, float]], step: timedelta, problems: Problems) -> None:
    """Report each slot that is not a whole number of steps after the first; slots without a row are unknown."""
    start = min(came)
    for moment, (row, _) in came.items():
        if (moment - start) % step:
            problems.add(row, f"{iso(moment)} is no whole number of steps of {step} after {iso(start)}; use one step")


def _column(by_moment: Mapping[datetime, float], step: timedelta) -> tuple[datetime, Column]:
    """Return the first moment and one value per slot, NaN for missing slots."""
    start = min(by_moment)
    values = np.full((max(by_moment) - start) // step + 1, np.nan)
    for moment, value in by_moment.items():
        values[(moment - start) // step] = value
    return start, values
