"""What a page shows of a sweep too large to be shown whole; `report.json` always holds all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from math import fsum

from gridsweep.accounting.leaderboard import Row
from gridsweep.accounting.report import Bar, Report
from gridsweep.sweep.counting import counted

MOST = 200
"""The most experiments that tables list and pictures draw, the best first."""
LATE = 100
"""The most missed deadlines that are listed, the longest first."""
SLOTS = 3000
"""The most slots of the grid that a picture draws; of more, several are drawn as their mean."""
STINTS = 100
"""The most stints that a picture draws of a sweep, and as many of the same work run at once."""
WHERE = "report.json holds all"


def listed(report: Report) -> tuple[Row, ...]:
    """Return the rows that are shown: the best `MOST`, and the baseline wherever it is."""
    rows = report.rows[:MOST]
    named = {report.baseline, report.reference}
    return (*rows, *(row for row in report.rows[MOST:] if row.experiment in named))


def drawn(report: Report) -> Report:
    """Return the report that pictures draw: stints of the experiments that are listed, and a coarser grid if needed.

    A stint is drawn with all its experiments. The rows stay, as they name the experiments of a stint.
    """
    values, step = report.intensity, report.intensity_step_h
    if (each := _together(report)) > 1:
        values = tuple(_mean(values[i : i + each]) for i in range(0, len(values), each))
    shown = {row.experiment for row in listed(report)}
    bars, other = _stints(report.bars, shown), _stints(report.immediate_bars, shown)
    return replace(report, bars=bars, immediate_bars=other, intensity=values, intensity_step_h=step * each)


def _stints(bars: Sequence[Bar], shown: set[str]) -> tuple[Bar, ...]:
    """Return all bars of the stints that trained an experiment that is shown; at most the first `STINTS` of them."""
    whole = {(bar.device, bar.start, bar.end, bar.how): None for bar in bars if bar.experiment in shown}
    kept = set(islice(whole, STINTS))
    return tuple(bar for bar in bars if (bar.device, bar.start, bar.end, bar.how) in kept)


def _together(report: Report) -> int:
    """Return how many slots of the grid are drawn as one."""
    return max(1, -(-len(report.intensity) // SLOTS))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def left_out(report: Report) -> str:
    """Return what tables and pictures leave out, in a sentence or two; empty if they show everything."""
    said = []
    rows, all_ = len(listed(report)), len(report.rows)
    if rows < all_:
        said.append(f"Of {all_} experiments, tables and pictures show {rows}, the best first; {WHERE}.")
    shown = drawn(report)
    for bars, of, what in (
        (shown.bars, report.bars, "the stints"),
        (shown.immediate_bars, report.immediate_bars, "run at once"),
    ):
        if len(bars) < len(of):
            said.append(f"The picture draws {len(bars)} of {counted(len(of), 'bar')} ({what}).")
    if (each := _together(report)) > 1:
        said.append(f"The intensity is drawn as means of {each} slots.")
    return " ".join(said)


def unlisted(report: Report) -> str:
    """Return how many experiments a table leaves out, as a sentence; empty if none."""
    more = len(report.rows) - len(listed(report))
    return f"and {counted(more, 'experiment')} more; {WHERE}" if more else ""
