"""How long work takes, and how sure that is: the spec's estimate, until the stints that have ended teach better."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import sqrt
from statistics import median, stdev

from gridsweep.state import State
from gridsweep.stint import Device

TAUGHT, LIKE = 2, 0.01
"""So many stints must have ended before they are believed over the estimate, and by so much they must differ."""
SURE = 2.0
"""So many standard deviations of the work that is left are kept free before the deadline."""
SECOND = timedelta(seconds=1)


def duration(state: State, steps: int, device: Device | None = None) -> timedelta:
    """What so many steps are expected to take."""
    if state.whole is None:
        state.whole = state.sweep.estimates.duration
        if len(state.paces) >= TAUGHT:
            learned = median(pace.total_seconds() for pace in state.paces) * state.sweep.total_steps * SECOND
            if abs(learned - state.whole) > LIKE * state.whole:
                state.whole = learned
    return state.whole * steps / state.sweep.total_steps / (device.speed if device else 1.0)


def spread(state: State) -> float:
    """By which share of its duration one stint usually differs from the next; 0 until two have ended."""
    if len(state.paces) < TAUGHT:
        return 0.0
    seconds = [pace.total_seconds() for pace in state.paces]
    usual = sum(seconds) / len(seconds)
    found = stdev(seconds) / usual if usual > 0 else 0.0
    return found if found > LIKE else 0.0


def deadline_for(state: State) -> datetime | None:
    """By when all should have ended, so that the sweep's deadline holds though lengths differ from what is expected.

    The stints that a device does one after another differ by the root of their number times what one does.
    """
    deadline = state.sweep.deadline(state.submitted_at)
    if deadline is None or not (share := spread(state)):
        return deadline
    left = sum(standing.status in ("waiting", "running") for standing in state.standings.values())
    chain = -(-left // len(state.sweep.devices))
    fastest = max(device.speed for device in state.sweep.devices)
    return deadline - SURE * share * sqrt(chain) * duration(state, state.sweep.total_steps) / fastest
