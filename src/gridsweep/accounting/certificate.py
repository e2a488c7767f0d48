"""The certificate beside every saving: what was possible, had the grid been known beforehand.

The same experiments, as long and with the same energy as they really had, on the same devices, under the same
deadlines, on the grid as observed. Two optima are told: for experiments never paused, and paused at will (for nothing).

- Pausing: the exact optimum where all draw the same power. Where they do not, power is cut into layers; each holds the
  experiments that draw at least so much, and is placed by itself. Nobody could have emitted less than their sum.
- Never pausing: exact where lengths and powers are equal. Where they differ by less than 5 % all count as their mean,
  and the result as no less than the pausing optimum. Where they differ more, the exact optimum takes seconds and is not
  proven: the pausing one, which lies below it, stands for both.
- Devices that differ: each experiment stays on the device it ran on, as in the comparison with running at once.
- Packs and rungs: what was trained in one go is one work; that a rung comes after the one before it is left out.
- A deadline that was missed counts as late as it really was, so that what happened is one of the choices.
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
"""So many experiments at most: more would keep the report waiting."""
ALIKE = 0.05
"""Lengths and powers that differ from their mean by less than this share of it are counted as the mean."""
NOTHING = 1e-4
"""A possible saving below this share of what running at once emits is none: there is no share of it to state."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was possible, in g. `share` of the possible saving was reached, `regret_g` was left; None: nobody can say.

    `optimum_g` is for experiments never paused, `pausing_g` for those paused at will; where the sweep paused none, and
    the first is known, it is the one that counts. `proven` says that nobody could have emitted less than the one that
    counts. No hour after `until` was looked at: the last deadline, or when the grid was last observed. `why` says how
    it was counted, or why it could not be.
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
        """The saving that was possible, g."""
        return None if self.regret_g is None else self.immediate_g - self.actual_g + self.regret_g


def certificate(state: State, found: Comparison, grid: Trace | None = None) -> Certificate | None:
    """Of what has ended in a state, beside its comparison with running at once. None before anything has ended.

    Hours after the sweep's end count as far as a `grid` knows them, or a settlement did.
    """
    immediate, actual = found.immediate_g, found.actual_g
    if immediate is None:
        return None
    nobody = Certificate(None, None, immediate, actual, None, None, False, None, "")
    if found.saving_g is None:
        return replace(nobody, why="not all of the energy met hours that were observed")
    case = _case(state, grid or _known(state))
    if not case.works:
        return replace(nobody, why="nothing that has ended took any time")
    if len(case.works) > MOST:
        why = f"{len(case.works)} experiments are too many to work it out beside a report; {MOST} are the most"
        return replace(nobody, why=why)
    try:
        pausing = min(case.pausing(), actual)  # what happened is one of the choices
    except GridsweepError as error:
        return replace(nobody, why=str(error))
    whole, exact = case.whole()
    paused = any(attempt.end == "paused" for attempt in state.attempts.values())
    if whole is not None:
        whole = max(whole, pausing) if paused else min(max(whole, pausing), actual)
    notes = case.notes
    if not paused and whole is None:
        notes.append("as lengths or powers differ, it is the optimum with pauses, below which nobody could come")
    elif not paused and not exact:
        notes.append(f"lengths and powers differ by less than {ALIKE:.0%} and count as their mean")
    best = pausing if paused or whole is None else whole
    possible = immediate - best
    share = min(1.0, found.saving_g / possible) if possible > NOTHING * immediate else None
    proven = paused or whole is None or exact
    return Certificate(whole, pausing, immediate, actual, share, actual - best, proven, case.until, "; ".join(notes))


def window_of(state: State) -> datetime:
    """When all had to have ended, by the tiers' delays and the sweep's deadline: as far as an optimum looks."""
    sweep, start = state.sweep, state.submitted_at
    slowest = min(device.speed for device in sweep.devices)
    latest = start + max(tier.max_delay for tier in sweep.tiers) + sweep.estimates.duration / slowest
    deadline = sweep.deadline(start)
    return latest if deadline is None else min(latest, deadline)


def _known(state: State) -> Trace:
    """The grid as it was observed, and then as it was settled."""
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
    """An ended experiment, or a pack of them, its pieces joined; power in W."""

    name: str
    device: str
    length: timedelta
    power_w: float
    latest_start: datetime


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be placed, on groups of equal devices, between `start` and `until`."""

    works: list[_Work]
    groups: list[tuple[list[_Work], list[Device]]]
    start: datetime
    until: datetime
    trace: Trace
    notes: list[str]

    def pausing(self) -> float:
        """The least for experiments paused at will, or a little less."""
        return sum(self._layered(works, devices) for works, devices in self.groups)

    def whole(self) -> tuple[float | None, bool]:
        """The least for experiments never paused, and whether that is exact; None where they differ too much."""
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
            except GridsweepError:  # longer by their mean, some no longer fit
                return None, False
        return total, exact

    def _layered(self, works: Sequence[_Work], devices: Sequence[Device]) -> float:
        """In layers of power; what a layer leaves over is charged at the cleanest intensity of all."""
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
    """What was trained in one go, its pieces together: the same members up to the same stage."""

    members: tuple[str, ...]
    from_step: int
    attempts: list[Attempt]
    ended_at: datetime


def _runs(state: State) -> list[_Run]:
    """Of all experiments that have ended."""
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
        else:  # it had to wait for its rung, and then for as long as everything may take
            latest = window_of(state) - profile.duration
        happened = max(run.attempts[0].requested_at, run.ended_at - profile.duration)
        late += happened - latest > sweep.min_wait
        last = max(last, run.ended_at)
        # Equal sums may differ in their last digits.
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
        notes.append(f"no hour counts after {grid.end:%Y-%m-%d %H:%M} UTC, when the grid was last observed")
    if late:
        notes.append(f"deadlines that were missed count as late as they were kept: {late}")
    alike = len({(d.speed, d.power_w, d.idle_power_w) for d in sweep.devices}) == 1
    if alike and all(work.device in {d.name for d in sweep.devices} for work in works):
        groups = [(works, [replace(device, speed=1.0) for device in sweep.devices])]
    else:
        names = dict.fromkeys(work.device for work in works)
        groups = [
            ([w for w in works if w.device == name], [replace(device_named(state.sweep.devices, name), speed=1.0)])
            for name in names
        ]
        notes.append("each experiment stays on the device it ran on, as the devices differ")
    return _Case(works, groups if works else [], start, min(wanted, grid.end), grid, notes)
