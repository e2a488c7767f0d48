"""Events about the grid: what a reading adds to a state."""

from __future__ import annotations

from datetime import datetime

from gridsweep.carbon.readings import Freshness, Reading
from gridsweep.carbon.traces import or_nones
from gridsweep.state.events import Answered, Event, Observed
from gridsweep.state.state import State


def observed(state: State, reading: Reading, now: datetime) -> list[Observed]:
    """Return the slots of a reading that are new to the state, or revised."""
    known, history = state.history, reading.history
    if not len(history):
        return []
    if not len(known):
        first = 0
    else:
        overlap = known.between(history.start, history.end).values
        offset = max(0, (known.start - history.start) // history.step)
        seen = history.values[offset : offset + len(overlap)]
        same = (seen == overlap) | (seen != seen)  # an unknown slot revises nothing
        first = offset + (len(overlap) if same.all() else int(same.argmin()))
        if first >= len(history):
            return []
    return facts(reading, first, now)


def facts(reading: Reading, first: int, now: datetime) -> list[Observed]:
    """Return the slots of a reading from the `first` on, one event for each stretch."""
    history = reading.history
    values = or_nones(history.values[first:])
    start = history.start + first * history.step
    if len(reading.stretches) == 1:
        return [Observed(now, start, history.step, values, reading.provenance)] if values else []
    found = []
    ends = [stretch.start for stretch in reading.stretches[1:]] + [history.end]
    for stretch, end in zip(reading.stretches, ends, strict=True):
        a, b = (max(0, (moment - start) // history.step) for moment in (stretch.start, end))
        if b > a:
            found.append(Observed(now, start + a * history.step, history.step, values[a:b], stretch.provenance))
    return found


def answered(state: State, reading: Reading, now: datetime) -> list[Event]:
    """Return an event if the freshness of answers has changed; a cached answer that is still valid counts as live."""
    freshness: Freshness = "live" if reading.freshness == "cached" else reading.freshness
    return [] if freshness == state.freshness else [Answered(now, freshness, reading.why)]
