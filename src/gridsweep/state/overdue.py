"""Missed deadlines: by which experiment, and by how much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gridsweep.carbon.traces import HOUR
from gridsweep.state.standings import ALIVE
from gridsweep.state.state import State

MINUTE = timedelta(minutes=1)
"""A start this close to its deadline is in time, even where the sweep states a shorter `min_wait`."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """One missed deadline of one experiment.

    `kind` is "start" for the tier's `max_delay` and "end" for the sweep's `finish_by`; `due` is the deadline in UTC.
    `at` is when the experiment did start or end, None if it has not yet. `late_h` is the delay in hours up to `at`, or
    up to the last known moment.
    """

    id: str
    kind: Literal["start", "end"]
    due: datetime
    at: datetime | None
    late_h: float


def overdue(state: State) -> list[Overdue]:
    """Return every missed deadline: starts first, then ends, each by delay, the longest first.

    A start counts as late only if its delay exceeds `min_wait` (at least a minute), since shorter waits do not matter.
    """
    starts, ends = [], []
    limit = state.sweep.deadline(state.submitted_at)
    now = state.now or state.submitted_at
    for id, standing in state.standings.items():
        due, began = latest_start(state, id), state.start_of(id)
        late = (began or now) - due
        if late > tolerance(state) and (began or standing.status in ALIVE):
            starts.append(Overdue(id, "start", due, began, late / HOUR))
        late = (standing.ended_at or now) - limit if limit else timedelta(0)
        if limit and late > timedelta(0):
            ends.append(Overdue(id, "end", limit, standing.ended_at, late / HOUR))
    return [*sorted(starts, key=_latest_first), *sorted(ends, key=_latest_first)]


def latest_start(state: State, id: str) -> datetime:
    """Return the latest start of an experiment: its submission plus the `max_delay` of its tier.

    The tier counts as it was when the experiment started: a later change of the sweep does not make a start late.
    """
    standing = state.standings[id]
    if standing.latest_start is not None:
        return standing.latest_start
    return standing.submitted_at + state.sweep.tier(standing.experiment.tier).max_delay


def overdue_by(state: State, ids: Iterable[str], now: datetime) -> timedelta:
    """Return the longest delay of these experiments if started now; zero if all have started, or none is late."""
    late = [now - latest_start(state, id) for id in ids if state.start_of(id) is None]
    return max((span for span in late if span > tolerance(state)), default=timedelta(0))


def tolerance(state: State) -> timedelta:
    """Return how long after its deadline a start still counts as in time."""
    return max(state.sweep.min_wait, MINUTE)


def _latest_first(found: Overdue) -> tuple[float, str]:
    return -found.late_h, found.id
