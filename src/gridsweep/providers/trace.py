"""A recorded trace as a provider, and its file format: CSV with the columns `timestamp,carbon_intensity`."""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path

import numpy as np

from gridsweep.carbon import HOUR, Reading, Trace, utc
from gridsweep.errors import TraceError
from gridsweep.forecast import repeat_last_day

TIME, VALUE = "timestamp", "carbon_intensity"
HIGHEST = 5000.0  # The dirtiest grids stay under 1,500 g/kWh: what is above this is in another unit.
LARGEST_FILE = 200_000_000
SHOWN = 10
BUNDLED = "solar-valley"

DAY = timedelta(days=1)
HISTORY = timedelta(days=28)
HORIZON = timedelta(hours=96)


def open_trace(file: str, base: Path | None = None, zone: str | None = None) -> TraceProvider:
    """The provider that `file` names: the bundled `solar-valley`, or a CSV file, relative to `base`.

    The zone of a file is its name without the ending, unless `zone` says better. Raises `TraceError`.
    """
    if file == BUNDLED:
        # Not a second provider but data, which happens to be a formula; made only where it is wanted.
        from gridsweep import solar_valley as bundled

        trace = bundled.solar_valley()
        return TraceProvider(trace, zone or bundled.ZONE, bundled.TITLE, bundled.QUALITY, yearly=True)
    path = (base or Path()) / Path(file).expanduser()
    if not path.exists() and difflib.get_close_matches(file, [BUNDLED], cutoff=0.7):
        raise TraceError(f"{path}: there is no such file; did you mean the bundled trace `{BUNDLED}`?")
    return TraceProvider(read_trace(path), zone or path.stem, path.name)


class TraceProvider:
    """Replays a trace: shows the slots that have begun at the moment asked about, and never a later one.

    Outside the trace's time the present is unknown. `yearly` repeats a trace of a year or more on the same
    days of any year, 28 February again on the 29th; it raises `TraceError` where the trace holds no whole
    year.
    """

    def __init__(
        self,
        trace: Trace,
        zone: str,
        source: str,
        quality: str = "measured",
        history: timedelta = HISTORY,
        yearly: bool = False,
    ):
        self.trace = trace
        self.zone = zone
        self.source = source
        self.quality = quality
        self._slots = max(1, history // trace.step)
        self._calendar = _calendar(trace) if yearly else None
        self._year = 0
        self._shown = trace
        self._present: int | None = None
        self._history = trace

    def read(self, now: datetime) -> Reading:
        """The last 28 days up to the present slot, as a view; the last 24 hours repeated as the forecast."""
        if self._calendar is not None and (year := utc(now).year) != self._year:
            # Two years in one column, so that the history of early January is a view like any other.
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
        return Reading(history, lambda: repeat_last_day(history, now, HORIZON), self.source, self.quality)


Calendar = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def _calendar(trace: Trace) -> Calendar:
    """Days of a plain year, shape (365, slots a day). Raises `TraceError` where one is missing."""
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
    """0 for 1 January to 364 for 31 December; None for a leap day."""
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


def read_trace(path: Path | str) -> Trace:
    """Read `timestamp,carbon_intensity` rows: ISO 8601 with a zone, gCO2eq/kWh; an empty value is unknown.

    Other columns and blank lines are passed over; the step is the commonest distance between rows. Raises
    `TraceError` with the first ten problems of the file, each with its line, what is wrong and what to do.
    """
    path = Path(path)
    problems = _Problems(path)
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    lines: dict[datetime, int] = {}
    values: list[float] = []
    unsure: set[int] = set()
    try:
        width, time_at, value_at = _header(path, rows)
        latest, lost = datetime.min.replace(tzinfo=UTC), False
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            line = rows.line_num
            if len(row) <= max(time_at, value_at):
                problems.add(line, f"has {len(row)} of {width} columns; complete the row or take it out")
                lost = True
                continue
            value = _value(row[value_at], line, problems)
            moment = _moment(row[time_at], line, problems)
            if moment is None:
                lost = True
                continue
            if moment in lines:
                problems.add(line, f"{_iso(moment)} is there already, in line {lines[moment]}; keep one")
                continue
            if moment < latest:
                problems.add(line, f"{_iso(moment)} comes after {_iso(latest)}; order the rows by time")
            latest = max(latest, moment)
            lines[moment] = line
            values.append(value)
            if lost:
                unsure.add(line)
                lost = False
    except csv.Error as error:
        raise TraceError(f"{path}:{rows.line_num}: is no CSV ({error}); look for an open quote") from None
    step = _step(lines, unsure, problems)
    if not problems.count and not any(value == value for value in values):
        problems.add(min(lines.values()), f"no row has a `{VALUE}`; fill the column")
    problems.check()
    column = np.array(values)
    column.setflags(write=False)
    return Trace(next(iter(lines)), step, column)


class _Problems:
    """What is wrong with a file: the first ten are kept, all are counted."""

    def __init__(self, path: Path):
        self.path = path
        self.shown: list[tuple[int, str]] = []
        self.count = 0

    def add(self, line: int, what: str) -> None:
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append((line, what))

    def check(self) -> None:
        if self.count:
            texts = [f"{self.path}:{line}: {what}" for line, what in sorted(self.shown)]
            more = self.count - len(texts)
            raise TraceError("\n".join(texts + ([f"and {more} more problems"] if more else [])))


def _text(path: Path) -> str:
    if not path.exists():
        raise TraceError(f"{path}: there is no such file; give the path of a CSV file, or `{BUNDLED}`")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise TraceError(f"{path}: is {what}; give the path of a CSV file")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise TraceError(
                f"{path}: has {size / 1e6:,.0f} MB, and a trace may have {LARGEST_FILE / 1e6:,.0f} MB; "
                f"keep the columns `{TIME}` and `{VALUE}` and the years you need"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{path}:{line}: is not UTF-8; save the file as UTF-8 text") from None


def _header(path: Path, rows: Iterator[list[str]]) -> tuple[int, int, int]:
    """How many columns there are, and which hold the time and the value."""
    names = next((row for row in rows if any(map(str.strip, row))), None)
    if names is None:
        raise TraceError(f"{path}:1: is empty; write the header `{TIME},{VALUE}` and a row a slot")
    names = [name.strip() for name in names]
    wrong = []
    for wanted in (TIME, VALUE):
        if names.count(wanted) > 1:
            wrong.append(f"the column `{wanted}` is there {names.count(wanted)} times; keep one")
        elif wanted not in names:
            near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
            wrong.append(
                f"no column is named `{wanted}`; rename `{near[0]}`"
                if near
                else f"no column is named `{wanted}`; open the file with the header `{TIME},{VALUE}`"
            )
    if wrong and len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        wrong = [f"the header `{names[0]}` is one column; separate columns by commas"]
    if wrong:
        raise TraceError("\n".join(f"{path}:1: {what}" for what in wrong))
    return len(names), names.index(TIME), names.index(VALUE)


def _moment(cell: str, line: int, problems: _Problems) -> datetime | None:
    cell = cell.strip()
    try:
        moment = datetime.fromisoformat(cell)
        if moment.tzinfo is None:
            problems.add(line, f"`{cell}` has no time zone; add Z for UTC, or an offset such as +01:00")
            return None
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        problems.add(line, f"`{cell}` is no time; write it as 2024-05-01T13:00:00Z")
        return None
    if not 1970 <= moment.year < 2200:
        problems.add(line, f"`{cell}` is not between 1970 and 2200; correct the year")
        return None
    return moment


def _value(cell: str, line: int, problems: _Problems) -> float:
    cell = cell.strip()
    if not cell:
        return nan
    try:
        value = float("" if "_" in cell else cell)
    except ValueError:
        problems.add(line, f"`{cell}` is no number; write gCO2eq/kWh as 231.5, or nothing where unknown")
        return nan
    if not isfinite(value):
        problems.add(line, f"`{cell}` is no amount of carbon; leave the cell empty where it is unknown")
    elif value < 0:
        problems.add(line, f"{cell} is negative; leave the cell empty where it is unknown")
    elif value > HIGHEST:
        problems.add(line, f"{cell} is more than {HIGHEST:.0f}, so it is not gCO2eq/kWh; convert the column")
    return value


def _step(lines: dict[datetime, int], unsure: set[int], problems: _Problems) -> timedelta:
    """The commonest distance between rows; any other is a problem, unless a bad row lies between."""
    if len(lines) < 2:
        if not problems.count:
            what = "has no rows" if not lines else "has a single row, which does not say how long a slot is"
            problems.add(max(lines.values(), default=1), f"{what}; add rows")
        return HOUR
    moments = sorted(lines)
    steps = Counter(b - a for a, b in pairwise(moments))
    step = max(steps, key=lambda span: (steps[span], -span))
    if len(steps) == 1:
        return step
    for a, b in pairwise(moments):
        missing, rest = divmod(b - a, step)
        if b - a == step or lines[b] in unsure:
            continue
        if rest:
            problems.add(
                lines[b],
                f"{_iso(b)} is {b - a} after the row before, and most are {step} apart; use one step",
            )
        else:
            first, last = _iso(a + step), _iso(b - step)
            span = first if missing == 2 else f"{first} to {last}"
            problems.add(
                lines[b],
                f"{missing - 1} {'row is' if missing == 2 else 'rows are'} missing before it: {span}; "
                "add them, with an empty value where it is unknown",
            )
    return step


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M}Z" if not moment.second else f"{moment:%Y-%m-%dT%H:%M:%S}Z"
