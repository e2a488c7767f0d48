"""Sentences on missed deadlines and on the plan's promise beside the outcome, the same in every format."""

from __future__ import annotations

from collections.abc import Sequence

from gridsweep.accounting.report import Report
from gridsweep.accounting.savings import Promise
from gridsweep.render import glance
from gridsweep.render.condensed import LATE, WHERE
from gridsweep.render.figures import grams, hours, percent
from gridsweep.state.glance import lateness
from gridsweep.state.overdue import Overdue


def overdue(found: Sequence[Overdue]) -> list[str]:
    """Return a sentence for each missed deadline, for the first `LATE` of them, and how many more there are."""
    more = [f"and {len(found) - LATE} more; {WHERE}"] if len(found) > LATE else []
    return [_missed(one) for one in found[:LATE]] + more


def _missed(one: Overdue) -> str:
    late, due = hours(one.late_h), f"{one.due:%Y-%m-%d %H:%M} UTC"
    if one.kind == "start":
        if one.at is None:
            return f"{one.id} has not started: {late} past its latest start, {due}"
        return f"{one.id} started {late} after its latest start, {due}"
    if one.at is None:
        return f"{one.id} has not ended: {late} past finish_by, {due}"
    return f"{one.id} ended {late} after finish_by, {due}"


def summary(found: Sequence[Overdue]) -> str:
    """Return all missed deadlines in one line; empty if there are none. Those that still wait are named apart."""
    return glance.late(lateness(found))


def late_starts(report: Report) -> dict[str, float]:
    """Return how late experiments started, or still have not, in hours by id; those in time are left out."""
    return {one.id: one.late_h for one in reversed(report.overdue) if one.kind == "start"}


def promise(report: Report) -> str:
    """Return the plan's promise, the outcome, and the causes of the difference; empty without a promise."""
    made = report.promise
    if made is None or made.promised is None:
        return ""
    text = f"{less(made.promised)} in {hours(made.promised_h)}{_mass(report, made.promised_g)}"
    if made.came is None:
        return text
    text += f"; outcome: {less(made.came)} in {hours(made.came_h)}{_mass(report, made.came_g)}"
    apart = _points(made.came - made.promised)
    if apart == _points(0.0):
        return text
    return f"{text}. Causes of the difference of {apart} points: {_causes(made)}"


def _mass(report: Report, emitted: float | None) -> str:
    """Return emissions in brackets; none on a replayed clock, whose hours of training are not those of the plan."""
    return "" if report.replay else f" ({grams(emitted)})"


def _causes(made: Promise) -> str:
    if made.durations is None:
        return f"unknown, {made.why}" if made.why else "unknown"
    times = "1.0" if made.length is None else f"{made.length:.1f}"
    length = "" if times == "1.0" else f" (the work took {times} times as long as planned)"
    lost = f", lost work and repeated loading {_points(made.lost)}" if made.lost else ""
    if made.grid is None:
        rest = f"everything else {_points(made.rest or 0.0)}; {made.why}"
        return f"durations and power {_points(made.durations)}{length}{lost}, {rest}"
    return (
        f"durations and power {_points(made.durations)}{length}, grid {_points(made.grid)}{lost}, "
        f"deadlines and decisions {_points(made.rest or 0.0)}"
    )


def less(share: float) -> str:
    """Return a reduction in words: `27.7 % less`, or `3.0 % more` for a share below 0."""
    return f"{percent(abs(share))} {'less' if share >= 0 else 'more'}"


def _points(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
