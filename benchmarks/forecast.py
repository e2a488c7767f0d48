"""How well the days ahead are forecast, on every trace of a folder.

    python benchmarks/forecast.py TRACES [--json]

On each `ZONE_YEAR.csv` (`timestamp,carbon_intensity`, hourly) a forecast of 96 h is issued at every hour from day 29,
from history alone, beside two naive ones: the last 24 h repeated, and the mean of the last 7 days at the same hour. On
each `*_forecast96h.csv` (`issued,timestamp,forecast,actual`) also the recorded forecast, and its blend with ours, which
knows how the recorded ones of the last 28 days came out; a day is issued when its first hour has not been seen yet.

MAPE is the mean of |error| / actual in percent over all hours of a day ahead; band is the share of actual values
within the 10-90 band, of every 25th issue where one is made every hour. Exits 1 where ours is beaten by a naive
forecast at any day ahead of a ZONE_YEAR trace, where it gains less than 5 percent on either on the first day, or where
a recorded forecast beats its blend by more than 0.05 points.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from gridsweep.carbon.forecaster import blend, from_history, with_past
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import HOUR, Column, Trace
from gridsweep.grid.trace_files import read_trace

DAYS = 4
HORIZON = timedelta(days=DAYS)
SLOTS = 24 * DAYS
FIRST = 28 * 24
HISTORY = timedelta(days=60)
EARLIER = 28
LEAST_GAIN = 0.05
TIE = 0.05
OURS, LAST_DAY, LAST_WEEK, RECORDED, BLEND = "history", "last 24 h", "7-day mean", "recorded", "blend"

Row = dict[str, object]


def issue(trace: Trace, present: int) -> Forecast:
    """Ours, by what was known when the slot `present` had begun."""
    now = trace.start + present * HOUR
    forecast = from_history(trace.between(now - HISTORY, now + HOUR), now, HORIZON)
    assert forecast is not None
    return forecast


def naive(values: Column, present: int) -> tuple[Column, Column]:
    """The last 24 h repeated, and the mean of the last 7 days at the same hour."""
    week = values[present + 1 - 7 * 24 : present + 1].reshape(7, 24)
    return np.resize(week[-1], SLOTS), np.resize(week.mean(axis=0), SLOTS)


def by_day(hits: list[Column]) -> list[float]:
    """The mean by day ahead, in percent."""
    return [100 * float(day) for day in np.nanmean(np.reshape(hits, (-1, DAYS, 24)), axis=(0, 2))]


class Scores:
    """Forecasts of one trace against what came."""

    def __init__(self) -> None:
        self.wrong: dict[str, list[Column]] = {}
        self.within: dict[str, list[Column]] = {}

    def point(self, name: str, expected: Column, came: Column) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(came > 0, np.abs(expected - came) / came, np.nan)
        self.wrong.setdefault(name, []).append(share)

    def band(self, name: str, forecast: Forecast, came: Column) -> None:
        low, high = (side.values[1 : 1 + SLOTS] for side in forecast.band())
        self.within.setdefault(name, []).append(np.where((low <= came) & (came <= high), 1.0, 0.0))

    def rows(self, trace: str, seconds: float) -> list[Row]:
        return [
            {
                "trace": trace,
                "forecast": name,
                "mape": by_day(wrong),
                "band": by_day(self.within[name]) if name in self.within else None,
                "seconds": seconds,
            }
            for name, wrong in self.wrong.items()
        ]


def year(path: Path) -> list[Row]:
    """A forecast at every hour of a trace."""
    trace, scores = read_trace(path), Scores()
    begun = time.perf_counter()
    for present in range(FIRST, len(trace) - SLOTS):
        came = trace.values[present + 1 : present + 1 + SLOTS]
        forecast = issue(trace, present)
        scores.point(OURS, forecast.mean.values[1 : 1 + SLOTS], came)
        if present % 25 == 0:
            scores.band(OURS, forecast, came)
    seconds = time.perf_counter() - begun
    for present in range(FIRST, len(trace) - SLOTS):
        came = trace.values[present + 1 : present + 1 + SLOTS]
        for name, expected in zip((LAST_DAY, LAST_WEEK), naive(trace.values, present), strict=True):
            scores.point(name, expected, came)
    return scores.rows(path.stem, seconds)


def recorded(path: Path) -> list[Row]:
    """A forecast a day, beside the one that was published then."""
    with path.open(newline="") as lines:
        table = list(csv.DictReader(lines))
    told = np.array([float(row["forecast"]) for row in table]).reshape(-1, SLOTS)
    came = np.array([float(row["actual"]) for row in table]).reshape(-1, SLOTS)
    start = datetime.fromisoformat(table[0]["issued"]).astimezone(UTC)
    trace = Trace(start, HOUR, np.concatenate([came[:, :24].ravel(), came[-1, 24:]]))
    issues = [start + timedelta(days=day) for day in range(len(told))]
    published = [Forecast(at, at, HOUR, row[np.newaxis, :], "recorded") for at, row in zip(issues, told, strict=True)]
    scores = Scores()
    begun = time.perf_counter()
    for day in range(FIRST // 24 + 1, len(told)):
        present = 24 * day - 1
        seen = trace.between(trace.start, issues[day])
        own = issue(trace, present)
        mixed = blend(own, with_past(published[day], published[day - EARLIER : day], seen))
        scores.point(RECORDED, told[day], came[day])
        for name, forecast in ((BLEND, mixed), (OURS, own)):
            scores.point(name, forecast.mean.values[1 : 1 + SLOTS], came[day])
            scores.band(name, forecast, came[day])
        for name, expected in zip((LAST_DAY, LAST_WEEK), naive(trace.values, present), strict=True):
            scores.point(name, expected, came[day])
    return scores.rows(path.stem, time.perf_counter() - begun)


def faults(rows: list[Row]) -> list[str]:
    """What the figures should not say."""
    mape: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        mape.setdefault(str(row["trace"]), {})[str(row["forecast"])] = row["mape"]  # type: ignore[assignment]
    found = []
    for trace, of in mape.items():
        ours, others = (of[BLEND], [RECORDED]) if RECORDED in of else (of[OURS], [LAST_DAY, LAST_WEEK])
        for other in others:
            for day, (mine, its) in enumerate(zip(ours, of[other], strict=True), 1):
                if mine > its + (TIE if other == RECORDED else 0):
                    found.append(f"{trace}: day {day}: {mine:.2f} % against {its:.2f} % of {other}")
            if RECORDED not in of and ours[0] > (1 - LEAST_GAIN) * of[other][0]:
                found.append(f"{trace}: day 1 gains less than {LEAST_GAIN:.0%} on {other}")
    return found


def main(folder: Path, as_json: bool) -> int:
    rows: list[Row] = []
    if not as_json:
        print(f"{'trace':<32}{'forecast':<12}{'MAPE % of day 1':>16}{'2':>7}{'3':>7}{'4':>7}", end="")
        print(f"{'in band %, 1':>15}{'2':>5}{'3':>5}{'4':>5}{'seconds':>9}")
    for path in sorted(folder.glob("*.csv")):
        if path.stem.endswith("_forecast96h"):
            found = recorded(path)
        elif re.fullmatch(r"[A-Z-]+_\d{4}", path.stem):
            found = year(path)
        else:
            continue
        rows += found
        for row in found if not as_json else ():
            first, *rest = row["mape"]  # type: ignore[misc]
            inside = row["band"] or []
            print(
                f"{row['trace']:<32}{row['forecast']:<12}{first:>16.2f}" + "".join(f"{x:>7.2f}" for x in rest), end=""
            )
            print("".join(f"{x:>{5 if i else 15}.0f}" for i, x in enumerate(inside)), end="")  # type: ignore[arg-type]
            print(f"{row['seconds']:>9.1f}" if row["forecast"] == OURS else "", flush=True)
    if not rows:
        print(f"{folder}: no ZONE_YEAR.csv and no *_forecast96h.csv in it", file=sys.stderr)
        return 2
    wrong = faults(rows)
    if as_json:
        print(json.dumps({"rows": rows, "faults": wrong}, indent=1))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    sys.exit(main(Path(arguments[0]), "--json" in sys.argv))
