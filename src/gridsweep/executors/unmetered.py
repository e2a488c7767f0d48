"""Work whose energy its worker has not told: what is missing in its files would be a saving that nobody made.

An attempt was made on some device for some time: the stated power of the device stands for the time that no line of
energy covers, as a figure that is called modelled. Lines that a meter wrote which reads nothing cover nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from gridsweep.carbon.spans import HOUR
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import UNTOLD, Ended, Event, Lost, Paused, Progressed, Running, Segment
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import device_named

WATTS = 300.0
"""Where neither the device nor the estimates state a power."""
READS_NOTHING = 1e-3
"""A meter that tells fewer watts than these reads nothing: a core that only waits draws a thousand times as much."""
APART = timedelta(seconds=0.5)
"""Lines of energy that are further apart have lost something between them: each begins where the last one ended."""
BETWEEN = timedelta(seconds=2)
"""In all, so much of an attempt's wall time may lie between its lines, and half of a shorter one."""
AT_WORK = 0.1
"""Share of the usual pace below which no work was done between two lines: the machine slept."""


def completed(state: State, attempt: Attempt, folder: AttemptFolder, events: Sequence[Event]) -> list[Event]:
    """Return the events of one look, with the energy of work that no line of energy covers, if the attempt ends in it.

    Where grid time follows the work, only steps after the last line are missed: there lines have no times.
    """
    end = next((event for event in events if isinstance(event, Ended | Paused | Lost)), None)
    if end is None:
        return list(events)
    told = [event for event in events if isinstance(event, Progressed)]
    last = told[-1] if told else None
    segments = [*attempt.energy, *(segment for event in told for segment in event.energy)]
    first = attempt.first_step
    saved = end.checkpoints if isinstance(end, Lost) else end.outcomes
    proven = max([attempt.step, *(event.step for event in told), *(s.step for s in segments)])
    reached = max([proven, *(one.step for one in saved)]) if isinstance(end, Lost) else max(o.step for o in saved)
    if isinstance(end, Lost) and reached <= first:
        return list(events)  # nothing proves a step
    if state.sweep.follows_work:
        missing = _by_step(state, attempt, folder, segments, reached, end.at)
    else:
        told_at = last.at if last else attempt.seen_at
        until = min(told_at, end.at) if isinstance(end, Lost) and reached == proven and told_at else end.at
        begun = next((event.at for event in events if isinstance(event, Running)), attempt.running_at)
        missing = _by_clock(
            state, attempt, segments, (begun or attempt.started_at or attempt.requested_at, until), reached
        )
    if not missing:
        return list(events)
    more = Progressed(
        end.at,
        attempt.id,
        (last.seq if last else attempt.seq) + 1,
        reached,
        energy=tuple(missing),
        cursor=last.cursor if last else attempt.cursor,
        over_at=last.over_at if last else attempt.over_at,
        clock=last.clock if last else attempt.clock,
    )
    at = list(events).index(end)
    return [*events[:at], more, *events[at:]]


def reads_nothing(kwh: float, seconds: float) -> bool:
    """Return whether a meter that tells so much energy of some seconds reads nothing."""
    return kwh * 3.6e6 <= READS_NOTHING * seconds


def _by_step(
    state: State, attempt: Attempt, folder: AttemptFolder, segments: Sequence[Segment], reached: int, end: datetime
) -> list[Segment]:
    """Return the energy of the steps after the last line; their share of the steps takes that of the wall time."""
    first = attempt.first_step
    metered = max((s.step for s in segments), default=first) if any(s.kwh for s in segments) else first
    if reached <= max(metered, first):
        return []
    since = max((s.end for s in segments if s.step > first), default=attempt.requested_at)
    wall = max(folder.changed_at() - folder.prepared_at(), timedelta(0))
    took = wall * ((reached - metered) / (reached - first))
    return [Segment(min(since, end), end, _kwh(state, attempt, took), UNTOLD, reached)]


def _by_clock(
    state: State, attempt: Attempt, segments: Sequence[Segment], span: tuple[datetime, datetime], reached: int
) -> list[Segment]:
    """Return the energy of the time in a span, `(begin, end)` in grid time, that no line of energy covers."""
    speed = state.sweep.clock_speed
    live = [s for s in segments if not reads_nothing(s.kwh, (s.end - s.start) / timedelta(seconds=1) / speed)]
    holes = list(_holes(live, span, reached, APART * speed if live else timedelta(0)))
    allowed = min(BETWEEN * speed, (span[1] - span[0]) / 2)
    if sum((hole.end - hole.start for hole in holes), timedelta(0)) <= allowed:
        return []
    charged = []
    for hole in holes:
        kwh = _kwh(state, attempt, (hole.end - hole.start) / speed)
        charged.append(Segment(hole.start, hole.end, kwh, UNTOLD, hole.step))
    return charged


def _holes(
    segments: Sequence[Segment], span: tuple[datetime, datetime], reached: int, apart: timedelta
) -> Iterator[Segment]:
    """Yield the parts of a span that no segment covers, each with the step made by its end, without energy.

    A part between two segments in which far fewer steps were made than usual is left out.
    """
    begin, end = span
    ordered = sorted(segments, key=lambda s: s.start)
    close = [(a, b) for a, b in pairwise(ordered) if b.start - a.end <= apart and b.step > a.step and b.end > b.start]
    took = sum((b.end - b.start for _, b in close), timedelta(0)) / timedelta(seconds=1)
    pace = sum(b.step - a.step for a, b in close) / took if took else None
    covered, before = begin, None
    for segment in ordered:
        gap = segment.start - covered
        if gap > apart and covered < end and not (before and _slept(before, segment, gap, pace)):
            yield Segment(covered, min(segment.start, end), 0.0, UNTOLD, segment.step)
        if segment.end > covered:
            covered, before = segment.end, segment
    if end - covered > apart:
        yield Segment(covered, end, 0.0, UNTOLD, reached)


def _slept(before: Segment, after: Segment, gap: timedelta, pace: float | None) -> bool:
    """Return whether hardly a step was made between two segments; `pace` in steps a second, None if unknown."""
    if pace is None:
        return False
    own = pace * ((after.end - after.start) / timedelta(seconds=1))
    return after.step - before.step - own < AT_WORK * pace * (gap / timedelta(seconds=1))


def _kwh(state: State, attempt: Attempt, took: timedelta) -> float:
    watts = device_named(state.sweep.devices, attempt.device).power_w or state.sweep.estimates.power_w or WATTS
    return watts * (took / HOUR) / 1000
