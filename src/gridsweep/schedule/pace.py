"""How long work takes, and how certain that is: the spec's estimate, until completed stints give better figures."""

from __future__ import annotations

from datetime import timedelta
from math import sqrt
from statistics import fmean, median, stdev

from gridsweep.schedule.memo import kept_until
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, device_named

TAUGHT, LIKE = 2, 0.01
"""Completed stints needed to replace the estimate, and the smallest relative difference that does."""
FIRST_STEPS = 10
"""Steps of a running stint needed to use its pace, until enough stints have completed."""
SURE = 2.0
"""Reserve before the deadline, in standard deviations of the remaining work."""


@kept_until("pace")
def scale(state: State) -> float:
    """Return the factor on the spec's estimate that stints are expected to take; 1 until measurements say otherwise.

    Completed stints count; until there are enough, so do the first steps of running ones. If grid time follows the
    work, the factor is 1: stints take the estimate by definition, and no measurement may influence a decision.
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
    """Return the factor on its estimate for each running stint, over the steps since its first report.

    The time before the first report (evaluation, batch-size trials) is a one-time cost and is left out.
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
    """Return the expected time of `steps` steps of `members` experiments trained together."""
    return state.sweep.span(members, 0, steps) * scale(state) / (device.speed if device else 1.0)


def spread(state: State) -> float:
    """Return the relative standard deviation of stint durations; 0 until two stints have completed."""
    if len(state.paces) < TAUGHT:
        return 0.0
    found = stdev(state.paces) / fmean(state.paces)
    return found if found > LIKE else 0.0


def reserve(state: State) -> timedelta:
    """Return the time kept free before a deadline, so that it holds although durations vary.

    The spread of a chain of stints on one device grows with the square root of their number.
    """
    share = spread(state)
    if not share:
        return timedelta(0)
    chain = -(-state.left // len(state.sweep.devices))
    fastest = max(device.speed for device in state.sweep.devices)
    return SURE * share * sqrt(chain) * scale(state) * state.sweep.estimates.duration / fastest
