"""How long work takes, and how sure that is: the spec's estimate, until the stints that have ended teach better."""

from __future__ import annotations

from datetime import timedelta
from math import sqrt
from statistics import fmean, median, stdev

from gridsweep.schedule.memo import kept_until
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, device_named

TAUGHT, LIKE = 2, 0.01
"""So many stints must have ended before they are believed over the estimate, and by so much they must differ."""
FIRST_STEPS = 10
"""So many steps of a stint that still runs are believed, until enough have ended."""
SURE = 2.0
"""So many standard deviations of the work that is left are kept free before the deadline."""


@kept_until("pace")
def scale(state: State) -> float:
    """How many times the spec's estimate stints are expected to take: 1 until some teach better.

    Those that have ended do; until enough have, so do the first steps of those that run. Where grid time follows the
    work, stints take what the estimate says: there is nothing to learn, and nothing measured may sway a decision.
    """
    if state.sweep.follows_work:
        return 1.0
    known = state.paces if len(state.paces) >= TAUGHT else [*state.paces, *_under_way(state)]
    if len(known) >= TAUGHT or len(known) > len(state.paces):
        learned = median(known)
        if abs(learned - 1) > LIKE:
            return learned
    return 1.0


def _under_way(state: State) -> list[float]:
    """How many times its estimate each running stint took for its steps since it first told of one.

    What came before that, an evaluation and trials of how many to take at a time, comes once.
    """
    sweep, found = state.sweep, []
    for attempt in state.active.values():
        if attempt.first_told is None or attempt.seen_at is None:
            continue
        step, at = attempt.first_told
        if attempt.step - step >= FIRST_STEPS and attempt.seen_at > at:
            speed = device_named(sweep.devices, attempt.device).speed
            expected = sweep.estimates.duration * sweep.estimates.share(len(attempt.stint.members))
            expected *= len(attempt.stint.members) * (attempt.step - step) / sweep.total_steps
            found.append((attempt.seen_at - at) * speed / expected)
    return found


def duration(state: State, steps: int, device: Device | None = None, members: int = 1) -> timedelta:
    """What so many steps of so many members together are expected to take."""
    return state.sweep.span(members, 0, steps) * scale(state) / (device.speed if device else 1.0)


def spread(state: State) -> float:
    """By which share of its duration one stint usually differs from the next; 0 until two have ended."""
    if len(state.paces) < TAUGHT:
        return 0.0
    found = stdev(state.paces) / fmean(state.paces)
    return found if found > LIKE else 0.0


def reserve(state: State) -> timedelta:
    """What is kept free before a deadline, so that it holds though lengths differ from what is expected.

    The stints that a device does one after another differ by the root of their number times what one does.
    """
    share = spread(state)
    if not share:
        return timedelta(0)
    chain = -(-state.left // len(state.sweep.devices))
    fastest = max(device.speed for device in state.sweep.devices)
    return SURE * share * sqrt(chain) * scale(state) * state.sweep.estimates.duration / fastest
