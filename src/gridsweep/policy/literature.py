"""Published scheduling rules as policies, for comparison or for use.

All rules trust the forecast's mean and know how long work takes. As published, a rule decides for one job alone, as if
capacity were unlimited: all jobs choose the same window, and jobs without a free device queue and start as soon as a
device is free. With `capacity_aware`, jobs are placed one after another (tier rank, age, id) on the capacity that
earlier ones left. The latest start follows from the tier, or from the sweep's deadline.

The papers decide once, when a job is submitted. Here the rule is evaluated again at every tick, with the observed
intensity of the hours since; if the forecast comes true, the answer is the same. The fourth well-known rule, a gate at
a quantile of the recent past, is `Threshold` with percentiles as limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from math import inf

import numpy as np

from gridsweep.carbon.traces import Column
from gridsweep.policy.situation import NO_DEVICE, Busy, Decision, Pause, Situation, Wait, Work, place
from gridsweep.policy.windows import AN_HOUR, MOMENT, Calendar, Course, Moments, ticks
from gridsweep.sweep.tiers import Tier

BEGINS = "its chosen window starts now"
LATER = "a better window is forecast"
DUE = "latest start reached"
UNKNOWN = "no forecast for the hours ahead"
DEARER = "cleaner slots are forecast"
CLEAN = "the current slot is among its cleanest"


@dataclass(frozen=True, slots=True)
class LowestWindow:
    """GAIA's Lowest-Window: among starts up to the latest, the window of the job's length with the lowest emissions.

    W. A. Hanafy et al., "Going Green for Less Green: Optimizing the Cost of Reducing Cloud Carbon Emissions",
    ASPLOS 2024, with a known length (a mean in the paper). Of equal windows, the first.
    """

    capacity_aware: bool = False

    def decide(self, situation: Situation) -> Sequence[Decision]:
        return _contiguous(situation, _mean, self.capacity_aware)


@dataclass(frozen=True, slots=True)
class CarbonTime:
    """GAIA's Carbon-Time: the start with the highest carbon saving per hour until completion.

    Both the saving and the time to completion are relative to running as soon as the job was ready. W. A. Hanafy et
    al., ASPLOS 2024, as above. If no remaining start saves anything, the start that loses least.
    """

    capacity_aware: bool = False

    def decide(self, situation: Situation) -> Sequence[Decision]:
        return _contiguous(situation, _loss_per_hour, self.capacity_aware)


@dataclass(frozen=True, slots=True)
class LetsWaitAwhile:
    """Let's Wait Awhile: the best window before the deadline or, if `interrupting`, the cleanest slots before it.

    P. Wiesner et al., "Let's Wait Awhile: How Temporal Workload Shifting Can Reduce Carbon Emissions in the Cloud",
    Middleware 2021. Slots are ticks; a job pauses in between, which this rule takes to be free. Without
    `capacity_aware`, a job that got no device in one of its slots takes the cleanest remaining slot instead. The
    deadline is the submission plus the tier's longest delay plus the job's length; a pause does not move it.
    """

    interrupting: bool = False
    capacity_aware: bool = False

    def decide(self, situation: Situation) -> Sequence[Decision]:
        if self.interrupting:
            return _interrupting(situation, self.capacity_aware)
        return _contiguous(situation, _mean, self.capacity_aware)


# Arguments, for all starts since the job was ready: exposure (gCO2eq/kWh x h), wait and length in hours.
# Returns gCO2eq/kWh; the lowest value is best.
Rule = Callable[[Column, Column, float], Column]


def _mean(met: Column, waits: Column, length: float) -> Column:
    return met / length


def _loss_per_hour(met: Column, waits: Column, length: float) -> Column:
    loss = met - met[0]
    return np.asarray(loss / np.where(loss < 0, waits + length, length))


def _contiguous(situation: Situation, rule: Rule, capacity_aware: bool) -> Sequence[Decision]:
    waiting = situation.waiting
    if not waiting or not situation.free:
        return [Wait(work.experiment, work.latest_start, NO_DEVICE) for work in waiting]
    choice = _Choice(situation, rule)
    if not choice.course.known:
        return place(situation, waiting, lambda work: UNKNOWN)
    soon = max(1, situation.min_wait // MOMENT)
    able: list[Work] = []
    decisions: list[Decision] = []
    for work, start in zip(waiting, choice.together() if capacity_aware else choice.alone(), strict=True):
        if start < soon:
            able.append(work)
        else:
            decisions.append(Wait(work.experiment, situation.now + start * MOMENT, LATER))
    return decisions + place(situation, able, lambda work: DUE if situation.due(work) else BEGINS)


class _Choice:
    """The preferred start of each waiting job, in moments from now; 0 or less means as soon as possible."""

    def __init__(self, situation: Situation, rule: Rule):
        self.situation, self.rule = situation, rule
        now, waiting = situation.now, situation.waiting
        slowest = min(device.speed for device in situation.devices)
        self.lengths = {work.duration: max(1, work.duration / slowest // MOMENT) for work in waiting}
        since = min(min(work.ready_at for work in waiting), now)
        last = max(max(work.latest_start for work in waiting), now)
        until = last + max(self.lengths.values()) * MOMENT
        self.course = _course(situation, since, until)
        moments = {(m - now) // MOMENT for work in waiting for m in (work.ready_at, work.latest_start)}
        starts = ticks(now, situation.tick, since, last, moments)
        self.starts: Moments = starts[starts >= min(0, self.course.first)]
        self.met = {length: self.course.met(self.starts, self.starts + length) for length in self.lengths.values()}
        self.present = int(np.searchsorted(self.starts, 0))
        self.known: dict[tuple[datetime, datetime, timedelta], tuple[slice, Column]] = {}

    def _windows(self, work: Work) -> tuple[slice, Column]:
        """Return the starts open to a job, past ones included, and the rule's value of each."""
        key = work.ready_at, work.latest_start, work.duration
        if key not in self.known:
            now, length = self.situation.now, self.lengths[work.duration]
            first = int(np.searchsorted(self.starts, (work.ready_at - now) // MOMENT))
            last = int(np.searchsorted(self.starts, (work.latest_start - now) // MOMENT, side="right"))
            begins, met = self.starts[first:last], self.met[length][first:last]
            worth = self.rule(met, (begins - begins[0]) / AN_HOUR, length / AN_HOUR) if len(begins) else met
            self.known[key] = slice(first, last), worth + self.course.tilt(len(begins))
        return self.known[key]

    def alone(self) -> list[int]:
        found = []
        for work in self.situation.waiting:
            open_, worth = self._windows(work)
            due = self.situation.due(work) or not len(worth)
            found.append(0 if due else int(self.starts[open_.start + int(worth.argmin())]))
        return found

    def together(self) -> list[int]:
        seen, now = self.situation, self.situation.now
        taken = [max(0, (busy.expected_end - now) // MOMENT) for busy in seen.running]
        lengths = sorted(set(self.lengths.values()))
        calendar = Calendar(len(seen.devices), self.starts[self.present :], lengths, taken)
        found = [0] * len(seen.waiting)
        hurried = {i for i, work in enumerate(seen.waiting) if seen.due(work)}
        for i in hurried:
            calendar.fill(self.lengths[seen.waiting[i].duration], 0)
        before: tuple[datetime, datetime, timedelta] | None = None
        start, full = None, False
        for i, work in enumerate(seen.waiting):
            if i in hurried:
                continue
            length = self.lengths[work.duration]
            key = work.ready_at, work.latest_start, work.duration
            if key != before or full:  # an identical job still prefers the start that the previous one took
                open_, worth = self._windows(work)
                ahead = slice(max(0, open_.start - self.present), max(0, open_.stop - self.present))
                left = np.where(calendar.free(length, ahead), worth[max(0, self.present - open_.start) :], inf)
                best = int(left.argmin()) if len(left) else 0
                # With no window left the job is late in any case, so it starts as soon as possible.
                start = ahead.start + best if len(left) and left[best] < inf else None
            before, full = key, calendar.fill(length, start or 0)
            found[i] = 0 if start is None else int(self.starts[self.present + start])
        return found


@dataclass(frozen=True, slots=True)
class _Job:
    """The remaining part of a job, waiting or running, at the speed of the slowest device."""

    rank: int
    latest_end: datetime
    left: timedelta
    which: Work | Busy


def _interrupting(situation: Situation, capacity_aware: bool) -> Sequence[Decision]:
    now, jobs = situation.now, _jobs(situation)
    if not jobs:
        return []
    until = max(max(job.latest_end for job in jobs), now + situation.tick)
    course = _course(situation, now, until)
    if not course.known:
        return place(situation, situation.waiting, lambda work: UNKNOWN)
    claims = _claims(situation, jobs, course, until, len(situation.devices) if capacity_aware else len(jobs))
    runs = list(claims)
    if capacity_aware:  # running jobs go on rather than pause for a job that has time
        busy = [i for i, job in enumerate(jobs) if isinstance(job.which, Busy)]
        runs = list(dict.fromkeys([*(i for i in claims if claims[i]), *busy, *claims]))[: len(claims)]
    decisions: list[Decision] = []
    able: list[Work] = []
    for i, job in enumerate(jobs):
        if isinstance(job.which, Work):
            if i in runs or situation.due(job.which):
                able.append(job.which)
            else:
                decisions.append(Wait(job.which.experiment, job.which.latest_start, LATER))
        elif i not in runs and job.which.since < now:  # a job that just began is not paused, or it would never advance
            decisions.append(Pause(job.which.attempt, DEARER))
    return decisions + place(situation, able, lambda work: DUE if situation.due(work) else CLEAN)


def _jobs(situation: Situation) -> list[_Job]:
    """Return all jobs that are not forced to run, by tier rank, latest end and remaining length."""
    slowest = min(device.speed for device in situation.devices)
    whole = max((work.duration for work in situation.submitted), default=timedelta(0))

    def job(tier: Tier, renewed: datetime, left: timedelta, which: Work | Busy) -> _Job:
        """A pause does not extend the deadline if the submission time is known."""
        end = situation.submitted_at + tier.max_delay + whole if situation.submitted_at else renewed
        return _Job(tier.rank, min(end, situation.deadline or end), left, which)

    found = [job(w.tier, w.latest_start + w.duration, w.training / slowest, w) for w in situation.waiting]
    for busy in situation.running:
        if _may_pause(busy):
            left = max(busy.expected_end - situation.now, MOMENT)
            found.append(job(busy.tier, busy.expected_end + busy.tier.max_delay, left, busy))
    return sorted(found, key=_turn)


def _claims(
    situation: Situation, jobs: Sequence[_Job], course: Course, until: datetime, places: int
) -> dict[int, bool]:
    """Return the jobs that claim the current slot, and for each whether it has no time left to wait.

    Each job takes the cleanest remaining slots before its latest end.
    """
    now = situation.now
    edges = ticks(now, situation.tick, now, until)
    begins, ends = edges[:-1], edges[1:]
    worth = course.met(begins, ends) / ((ends - begins) / AN_HOUR) + course.tilt(len(begins))
    order: list[int] = np.argsort(worth, kind="stable").tolist()
    length: list[int] = (ends - begins).tolist()
    room = [places] * len(length)
    for busy in situation.running:
        if not _may_pause(busy):
            for slot in range(int(np.searchsorted(begins, (busy.expected_end - now) // MOMENT))):
                room[slot] -= 1
    found: dict[int, bool] = {}
    for (_, latest_end, left), alike in groupby(range(len(jobs)), key=lambda i: _turn(jobs[i])):
        last = int(np.searchsorted(ends, (latest_end - now) // MOMENT, side="right"))
        open_ = [slot for slot in order if slot < last]
        late = latest_end - now - left < situation.tick
        for i in alike:
            open_ = [slot for slot in open_ if room[slot] > 0]
            need, claims = left // MOMENT, False
            for slot in open_:
                room[slot] -= 1
                claims = claims or slot == 0
                need -= length[slot]
                if need <= 0:
                    break
            which = jobs[i].which
            pressed = late or (isinstance(which, Work) and situation.due(which))
            if claims or (pressed and room[0] > 0):
                room[0] -= not claims
                found[i] = pressed
    return found


def _may_pause(busy: Busy) -> bool:
    return not (busy.due or busy.pausing)


def _turn(job: _Job) -> tuple[int, datetime, timedelta]:
    return job.rank, job.latest_end, job.left


def _course(situation: Situation, since: datetime, until: datetime) -> Course:
    forecast = situation.forecast
    path = forecast.mean if forecast else situation.history.between(situation.now, situation.now)
    return Course(situation.history, path, situation.now, since, until)
