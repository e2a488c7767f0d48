"""Grid time that follows the work done: when attempts reach their steps, and how far the sweep's time may move.

On a replayed clock with `speed: auto`, an attempt that starts at `t` occupies `[t, t + span)` of the grid's time, where
`span` is the estimate for its stint (packs and partial runs included), as in a simulation. Its position inside that
span follows from the steps its worker has reported, never from the wall clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import RESTART, device_named

LOADING = 0.05
"""Share of a stint's span that passes before its first step: loading, and the evaluation of the base model."""
SCORING = 0.05
"""Share of a stint's span that passes after its last step: evaluation and saving."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """When an attempt reaches each of its steps, in grid time.

    The attempt starts at `start`, is loaded at `ready`, has made its steps from `first` to `last` at `trained`, and is
    scored at `end`. Each step takes the same time.
    """

    start: datetime
    ready: datetime
    trained: datetime
    end: datetime
    first: int
    last: int

    def at(self, step: int) -> datetime:
        """Return when an optimizer step is reached. Steps after `last` take as long as those before it."""
        return self.ready + (self.trained - self.ready) * (step - self.first) / max(1, self.last - self.first)

    def end_at(self, step: int) -> datetime:
        """Return when an attempt that ends after a step has been scored."""
        return self.at(step) + (self.end - self.trained)


def timetable(state: State, attempt: Attempt) -> Timetable:
    """Return the timetable of an attempt, by the sweep's estimates and the speed of its device.

    A stint that resumes from a checkpoint takes `RESTART` longer, as in a simulation.
    """
    first = min(member.from_step for member in attempt.stint.members)
    start = attempt.requested_at + (RESTART if first > 0 else timedelta(0))
    span = state.sweep.taken(attempt.stint.members) / device_named(state.sweep.devices, attempt.device).speed
    return Timetable(
        start=attempt.requested_at,
        ready=start + span * LOADING,
        trained=start + span * (1 - SCORING),
        end=start + span,
        first=first,
        last=max(member.to_step for member in attempt.stint.members),
    )


def reached(state: State, attempt: Attempt) -> datetime:
    """Return the grid time of a running attempt: its end if its worker is done, else that of the last reported step."""
    if attempt.over_at is not None:
        return attempt.over_at
    if attempt.running_at is None:
        return attempt.requested_at
    return timetable(state, attempt).at(attempt.step)


def next_moment(state: State, until: datetime) -> datetime | None:
    """Return the moment to which the sweep's time moves next; None until running attempts report steps beyond it.

    The moment is the earliest of `until` (the next wake-up) and the known ends. An attempt whose worker still runs
    must be beyond the moment, not at it, because it could end there. So all ends at a moment are known when the
    sweep's time reaches it, whichever worker was faster.
    """
    working = [attempt for attempt in state.active.values() if attempt.over_at is None]
    moment = min([until, *(a.over_at for a in state.active.values() if a.over_at is not None)])
    return moment if all(reached(state, attempt) > moment for attempt in working) else None
