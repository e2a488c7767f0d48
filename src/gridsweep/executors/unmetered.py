"""Work whose energy its worker has not told: a file that is gone or cut would be a saving that nobody made.

An attempt that has ended well was made on some device for some time: the stated power of the device stands for what is
missing, as a figure that is called modelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gridsweep.carbon.spans import HOUR
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import UNTOLD, Ended, Event, Paused, Progressed, Segment
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import device_named

WATTS = 300.0
"""Where neither the device nor the estimates state a power."""


def completed(state: State, attempt: Attempt, folder: AttemptFolder, events: Sequence[Event]) -> list[Event]:
    """Return the events of one look, with the energy of steps that no line of energy reaches, if the attempt ends well.

    The missing share of its steps takes the same share of its wall time.
    """
    end = next((event for event in events if isinstance(event, Ended | Paused)), None)
    if end is None:
        return list(events)
    told = [event for event in events if isinstance(event, Progressed)]
    segments = [*attempt.energy, *(segment for event in told for segment in event.energy)]
    first = min(member.from_step for member in attempt.stint.members)
    reached = max(outcome.step for outcome in end.outcomes)
    metered = max((segment.step for segment in segments), default=first) if any(s.kwh for s in segments) else first
    if reached <= max(metered, first):
        return list(events)
    since = max((segment.end for segment in segments if segment.step > first), default=attempt.requested_at)
    device = device_named(state.sweep.devices, attempt.device)
    watts = device.power_w or state.sweep.estimates.power_w or WATTS
    took = _wall(state, attempt, folder, end.at) * ((reached - metered) / (reached - first))
    missing = Segment(min(since, end.at), end.at, watts * (took / HOUR) / 1000, UNTOLD, reached)
    last = told[-1] if told else None
    more = Progressed(
        end.at,
        attempt.id,
        (last.seq if last else attempt.seq) + 1,
        reached,
        energy=(missing,),
        cursor=last.cursor if last else attempt.cursor,
        over_at=last.over_at if last else attempt.over_at,
        clock=last.clock if last else attempt.clock,
    )
    at = list(events).index(end)
    return [*events[:at], more, *events[at:]]


def _wall(state: State, attempt: Attempt, folder: AttemptFolder, end: datetime) -> timedelta:
    """Return how long an attempt worked by the wall clock."""
    if state.sweep.follows_work:  # grid time says nothing of the wall time
        return max(folder.changed_at() - folder.prepared_at(), timedelta(0))
    return max(end - (attempt.running_at or attempt.requested_at), timedelta(0)) / state.sweep.clock_speed
