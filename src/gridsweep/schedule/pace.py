"""How long work takes, and how certain that is: the spec's estimate, corrected by what stints have really taken.

What was learned is shrunk towards the estimate, which counts as much as `WEIGHT` stints that took what was estimated: a
few short stints that end first do not make all others look short. Lengths count by their mean, since one stint of eight
hours delays a device as much as eight of one hour. A stint that already runs longer than expected counts before it
ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import exp, log, sqrt

from gridsweep.schedule.memo import kept_until
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, device_named

WEIGHT = 2.0
"""The number of stints that the estimate counts for."""
TAUGHT = 2
"""Ended stints needed to know their spread; until then, the first steps of running stints tell their pace."""
BELIEVED = 6
"""Stints needed to believe that stints are shorter than estimated: the short ones end first."""
LIKE = 0.01
"""A smaller relative difference from the estimate, or a smaller relative spread, counts as none."""
FIRST_STEPS = 10
"""Steps of a running stint needed to use its pace."""
OVERRUN = 0.1
"""The share of its time so far that a stint beyond its expected end still takes at least."""
SURE = 4.0
"""Reserve before the deadline, in standard deviations of the remaining work."""
STATED, GUESSED = 3.0, 5.0
"""All stints may take so many times the estimate, at worst; the second for an estimate that is said to be a guess."""
APART = 0.5
"""The spread of lengths (a standard deviation of logarithms) that the worst case assumes at least."""
WIDEST = 4.0
"""The largest variance of logarithms: a bound that keeps an outlier of many thousand times the estimate finite."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The expected length of stints as a factor (`scale`) on the estimate, learned from `known` stints.

    `spread` is the relative standard deviation of the lengths, 0 until `TAUGHT` stints are known.
    """

    scale: float = 1.0
    spread: float = 0.0
    known: int = 0

    @property
    def longer(self) -> float:
        """The share of its time so far that a stint beyond its expected end is still expected to take."""
        return max(self.spread, OVERRUN)


def learned(factors: list[float]) -> Pace:
    """Return the pace that factors on the estimate teach: their mean, shrunk towards 1, and the spread about it.

    A mean below 1 counts only from `BELIEVED` stints on.
    The spread is taken from logarithms. Lengths are skewed, and a sample of short ones hides how long the longest are.
    """
    factors = [factor for factor in factors if factor > 0]
    count = len(factors)
    scale = (WEIGHT + sum(factors)) / (WEIGHT + count)
    if count < BELIEVED:
        scale = max(1.0, scale)
    spread = 0.0
    if count >= TAUGHT:
        variance = sum(log(factor / scale) ** 2 for factor in factors) / (count - 1)
        spread = sqrt(exp(min(variance, WIDEST)) - 1)
    return Pace(scale if abs(scale - 1) > LIKE else 1.0, spread if spread > LIKE else 0.0, count)


@kept_until("pace", "work")
def pace(state: State, now: datetime | None = None) -> Pace:
    """Return what stints have taught up to `now`; without a `now`, running stints that overrun teach nothing.

    If grid time follows the work, nothing is learned: stints take the estimate by definition, and no measurement may
    influence a decision.
    """
    if state.sweep.follows_work:
        return Pace()
    factors = [*state.paces]
    if len(factors) < TAUGHT:
        factors += _under_way(state)
    found = learned(factors)
    for taken in sorted(_so_far(state, now), reverse=True) if now else ():
        if taken <= found.scale * (1 + LIKE):
            break
        factors.append(taken * (1 + found.longer))
        found = learned(factors)
    return found


def _so_far(state: State, now: datetime) -> list[float]:
    """Return the time that each running stint has taken so far, as a factor on its whole estimate.

    A resumed stint also spent time loading, and one that is asked to pause will not be trained to its end.
    """
    found = []
    for attempt in state.active.values():
        expected = state.sweep.taken(attempt.stint.members)
        if attempt.running_at and not attempt.pausing_since and not attempt.first_step and expected > timedelta(0):
            speed = device_named(state.sweep.devices, attempt.device).speed
            found.append((now - attempt.running_at) * speed / expected)
    return found


def overruns(state: State, now: datetime) -> bool:
    """Whether a running stint has taken clearly longer than the spec's estimate."""
    return any(taken > 1 + OVERRUN for taken in _so_far(state, now))


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
            made = [replace(m, from_step=0, to_step=attempt.step - step) for m in attempt.stint.members]
            expected = sweep.taken(made, evaluated=False)
            found.append((attempt.seen_at - at) * speed / expected)
    return found


def scale(state: State, now: datetime | None = None) -> float:
    """Return the factor on the spec's estimate that stints are expected to take; 1 until measurements say otherwise."""
    return pace(state, now).scale


def spread(state: State, now: datetime | None = None) -> float:
    """Return the relative standard deviation of stint durations; 0 until two stints have taught it."""
    return pace(state, now).spread


def longest(state: State, steps: int, device: Device, members: int = 1) -> timedelta:
    """Return the time of `steps` steps of `members` experiments together, at the slowest pace seen so far.

    Nothing is shrunk here: a worker that is as slow as another one has been must not be taken for a silent one.
    """
    slowest = max([1.0, *state.paces, *_under_way(state)])
    return state.sweep.span(members, 0, steps) * slowest / device.speed


def expected_end(state: State, attempt: Attempt, now: datetime) -> datetime:
    """Return when a running attempt is expected to end, after `now` if it already runs longer than expected."""
    since, found = attempt.running_at or attempt.requested_at, pace(state, now)
    speed = device_named(state.sweep.devices, attempt.device).speed
    end = since + state.sweep.taken(attempt.stint.members) * found.scale / speed
    if end >= now or state.sweep.follows_work:
        return end
    return now + (now - since) * found.longer


def reserve(state: State, now: datetime | None = None) -> timedelta:
    """Return the time kept free before a deadline, so that it holds although durations vary.

    Two errors add up: the spread of a chain of stints on one device, which grows with the square root of their number,
    and that of the mean, learned from few stints, which grows with their number.
    """
    found = pace(state, now)
    if not found.spread:
        return timedelta(0)
    chain = -(-state.left // len(state.sweep.devices))
    fastest = max(device.speed for device in state.sweep.devices)
    errors = sqrt(chain + chain * state.left / (WEIGHT + found.known))
    return SURE * found.spread * errors * found.scale * state.sweep.estimates.duration / fastest


def at_worst(state: State, now: datetime | None = None) -> float:
    """Return the factor on the expected length of stints that must not be ruled out yet.

    Two standard deviations of the mean's logarithm: `STATED` or `GUESSED` at first, less with every stint known. Stints
    that were shorter than estimated do not lower the worst case, since the short ones end first.
    """
    found = pace(state, now)
    widest = log(GUESSED if state.sweep.estimates.guess else STATED) / 2
    apart = max(APART, sqrt(log(1 + found.spread**2)))
    return max(1.0, 1 / found.scale) * exp(2 / sqrt(1 / widest**2 + found.known / apart**2))
