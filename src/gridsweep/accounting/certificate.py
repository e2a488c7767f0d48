"""The certificate of a saving: the saving that was achievable had the grid been known in advance.

The certificate places the same experiments, with their real durations and energy, on the same devices, under the same
deadlines, on the observed grid. There are two optima: without pauses, and with any number of free pauses.

- With pauses: the exact optimum if all experiments draw the same power. Otherwise power is cut into layers; each layer
  holds the experiments that draw at least that power and is placed alone. The sum is a lower bound on the emissions.
- Without pauses: exact if durations and powers are equal. If they differ by less than 5 %, all count as their mean,
  and the result is at least the optimum with pauses. If they differ by more, the exact optimum would take seconds and
  stay unproven: the optimum with pauses, which is lower, is used for both.
- Unequal devices: each experiment stays on the device on which it ran, as in the comparison with running at once.
- Packs and rungs: each uninterrupted training run is one job; the order of rungs is ignored.
- A missed deadline is relaxed to the real start or end, so that the real schedule is one of the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean

import numpy as np

from gridsweep.accounting.pieces import joined
from gridsweep.accounting.savings import Comparison
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import GridsweepError
from gridsweep.optima import Job, bound
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, device_named

MOST = 200
"""The most jobs that are placed: more would delay the report."""
ALIKE = 0.05
"""Durations and powers that differ from their mean by less than this share of it count as the mean."""
NOTHING = 1e-4
"""An achievable saving below this share of the immediate emissions counts as zero, and no share of it is stated."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The lowest achievable emissions, g, and the share of the achievable saving that the sweep reached.

    `optimum_g` is the optimum without pauses, `pausing_g` with any number of pauses; `optimum_g` counts if the sweep
    paused nothing and the value is known, else `pausing_g`. `share` of the achievable saving was reached, `regret_g`
    was missed; None if unknown. `proven` says that the value that counts is a lower bound. Hours after `until` (the
    last deadline, or the last observation of the grid) are not used. `why` explains the count, or why there is none.
    """

    optimum_g: float | None
    pausing_g: float | None
    immediate_g: float
    actual_g: float
    share: float | None
    regret_g: float | None
    proven: bool
    until: datetime | None
    why: str

    @property
    def possible_g(self) -> float | None:
        """The achievable saving, g."""
        return None if self.regret_g is None else self.immediate_g - self.actual_g + self.regret_g


def certificate(state: State, found: Comparison, grid: Trace | None = None) -> Certificate | None:
    """Return the certificate of the ended experiments; None before any has ended.

    `found` is their comparison with running at once. Hours after the sweep's end count if `grid` or a settlement
    covers them.
    """
    immediate, actual = found.immediate_g, found.actual_g
    if immediate is None:
        return None
    unknown = Certificate(None, None, immediate, actual, None, None, False, None, "")
    if found.saving_g is None:
        return replace(unknown, why="part of the energy was used in hours without observed intensity")
    case = _case(state, grid or _known(state))
    if not case.works:
        return replace(unknown, why="no ended experiment took any time")
    if len(case.works) > MOST:
        why = f"{len(case.works)} experiments are too many for the optimum in a report; the limit is {MOST}"
        return replace(unknown, why=why)
    try:
        pausing = min(case.pausing(), actual)  # the real schedule is one of the choices
    except GridsweepError as error:
        return replace(unknown, why=str(error))
    whole, exact = case.whole()
    paused = any(attempt.end == "paused" for attempt in state.attempts.values())
    if whole is not None:
        whole = max(whole, pausing) if paused else min(max(whole, pausing), actual)
    notes = case.notes
    if not paused and whole is None:
        notes.append("durations or powers differ, so the optimum with pauses is used, a lower bound")
    elif not paused and not exact:
        notes.append(f"durations and powers differ by less than {ALIKE:.0%} and count as their mean")
    best = pausing if paused or whole is None else whole
    possible = immediate - best
    share = min(1.0, found.saving_g / possible) if possible > NOTHING * immediate else None
    proven = paused or whole is None or exact
    return Certificate(whole, pausing, immediate, actual, share, actual - best, proven, case.until, "; ".join(notes))


def window_of(state: State) -> datetime:
    """Return the last deadline, by the tiers' delays and the sweep's deadline: the horizon of the optimum."""
    sweep, start = state.sweep, state.submitted_at
    slowest = min(device.speed for device in sweep.devices)
    latest = start + max(tier.max_delay for tier in sweep.tiers) + sweep.estimates.duration / slowest
    deadline = sweep.deadline(start)
    return latest if deadline is None else min(latest, deadline)


def _known(state: State) -> Trace:
    """Return the grid as observed, continued by the settled grid."""
    history = state.history
    if state.settled is None:
        return history
    later = state.settled.trace(state.submitted_at)
    if later.step != history.step or later.end <= history.end:
        return history
    after = later.between(history.end, later.end)
    if after.start != history.end:
        return history
    return Trace(history.start, history.step, np.concatenate([history.values, after.values]))


@dataclass(frozen=True, slots=True)
class _Work:
    """An ended experiment or pack, its attempts joined; power in W."""

    name: str
    device: str
    length: timedelta
    power_w: float
    latest_start: datetime


@dataclass(frozen=True, slots=True)
class _Case:
    """The works to place, on groups of equal devices, between `start` and `until`."""

    works: list[_Work]
    groups: list[tuple[list[_Work], list[Device]]]
    start: datetime
    until: datetime
    trace: Trace
    notes: list[str]

    def pausing(self) -> float:
        """Return the least emissions with any number of pauses, g, or a slightly lower bound."""
        return sum(self._layered(works, devices) for works, devices in self.groups)

    def whole(self) -> tuple[float | None, bool]:
        """Return the least emissions without pauses, g, and whether they are exact; None if works differ too much."""
        total, exact = 0.0, True
        for works, devices in self.groups:
            hours, watts = [work.length / HOUR for work in works], [work.power_w for work in works]
            for values in (hours, watts):
                if max(values) - min(values) > 1e-9 * max(values):
                    exact = False
                if max(abs(value - fmean(values)) for value in values) > ALIKE * fmean(values):
                    return None, False
            length = fmean(hours) * HOUR
            power = sum(h * w for h, w in zip(hours, watts, strict=True)) / sum(hours)
            try:
                total += self._bound(works, devices, power, length)
            except GridsweepError:  # with the mean duration, some works no longer fit
                return None, False
        return total, exact

    def _layered(self, works: Sequence[_Work], devices: Sequence[Device]) -> float:
        """Return the bound over layers of power, g; power between layers is charged at the cleanest intensity."""
        watts = np.array([work.power_w for work in works])
        levels = np.unique(watts)
        if len(levels) > (most := max(2, min(16, 300 // len(works)))):
            levels = np.unique(np.quantile(levels, np.linspace(0, 1, most, endpoint=False), method="lower"))
        total = self._bound(works, devices, float(levels[0]), pausing=True)
        for below, level in pairwise(levels):
            layer = [work for work in works if work.power_w >= level]
            unpowered = [replace(device, idle_power_w=0.0) for device in devices]
            total += self._bound(layer, unpowered, float(level - below), pausing=True)
        over = watts - levels[np.searchsorted(levels, watts, side="right") - 1]
        kwh: float = sum(w / 1000 * (work.length / HOUR) for w, work in zip(over.tolist(), works, strict=True))
        cleanest = float(self.trace.between(self.start, self.until).values.min())
        return total + kwh * cleanest

    def _bound(
        self,
        works: Sequence[_Work],
        devices: Sequence[Device],
        power_w: float,
        length: timedelta | None = None,
        *,
        pausing: bool = False,
    ) -> float:
        jobs = [Job(work.name, length or work.length, work.latest_start, power_w=power_w) for work in works]
        return bound(jobs, devices, self.trace, self.start, pausing=pausing, finish_by=self.until).emissions_g


@dataclass(frozen=True, slots=True)
class _Run:
    """The attempts of the same members up to the same stage: one training run with its interruptions."""

    members: tuple[str, ...]
    from_step: int
    attempts: list[Attempt]
    ended_at: datetime


def _runs(state: State) -> list[_Run]:
    """Return the runs of all ended experiments."""
    found: dict[tuple[tuple[str, ...], int], list[Attempt]] = {}
    for attempt in state.attempts.values():
        members = tuple(member.experiment for member in attempt.stint.members)
        if all(state.standings[id].ended_at is not None for id in members):
            found.setdefault((members, max(member.to_step for member in attempt.stint.members)), []).append(attempt)
    runs = []
    for (members, _), attempts in found.items():
        first = min(member.from_step for attempt in attempts for member in attempt.stint.members)
        ended = max(attempt.ended_at for attempt in attempts if attempt.ended_at is not None)
        runs.append(_Run(members, first, attempts, ended))
    return runs


def _case(state: State, grid: Trace) -> _Case:
    sweep, start = state.sweep, state.submitted_at
    works: list[_Work] = []
    late, last = 0, start
    for run in _runs(state):
        profile, members = joined(run.attempts), len(run.members)
        if profile.duration <= timedelta(0):
            continue
        watts = 1000 * members * sum(kwh for _, _, kwh in profile.segments) / (profile.duration / HOUR)
        if run.from_step == 0:
            delays = [sweep.tier(state.standings[id].experiment.tier).max_delay for id in run.members]
            latest = start + min(delays)
        else:  # a later stage waits for its rung, and then has until the end of the window
            latest = window_of(state) - profile.duration
        happened = max(run.attempts[0].requested_at, run.ended_at - profile.duration)
        late += happened - latest > sweep.min_wait
        last = max(last, run.ended_at)
        # power is rounded, as equal sums may differ in their last digits
        name = run.attempts[-1].id
        works.append(
            _Work(name, run.attempts[-1].device, profile.duration, float(f"{watts:.9g}"), max(latest, happened))
        )
    notes = []
    wanted = max((work.latest_start + work.length for work in works), default=start)
    deadline = sweep.deadline(start)
    if deadline is not None:
        late += deadline < last
        wanted = min(wanted, max(deadline, last))
    if wanted > grid.end:
        notes.append(f"hours after {grid.end:%Y-%m-%d %H:%M} UTC, the last observation of the grid, are not used")
    if late:
        notes.append(f"missed deadlines, relaxed to the real times: {late}")
    alike = len({(d.speed, d.power_w, d.idle_power_w) for d in sweep.devices}) == 1
    if alike and all(work.device in {d.name for d in sweep.devices} for work in works):
        groups = [(works, [replace(device, speed=1.0) for device in sweep.devices])]
    else:
        names = dict.fromkeys(work.device for work in works)
        groups = [
            ([w for w in works if w.device == name], [replace(device_named(state.sweep.devices, name), speed=1.0)])
            for name in names
        ]
        notes.append("devices differ, so each experiment stays on the device on which it ran")
    return _Case(works, groups if works else [], start, min(wanted, grid.end), grid, notes)
