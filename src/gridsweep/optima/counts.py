"""Optimum without pauses for any lengths and devices: exact by counting, if jobs are few or of few kinds.

Jobs with equal length, power and bounds are one kind; a state counts the completed jobs of each kind. For one device,
E[i, s] is the least cost of having completed s when free at instant i: wait, or start one more job. Devices share only
the jobs and, with idle power, the horizon. So the optimum is the minimum over all ways to divide the counts among the
devices, for each horizon, without relaxation or gap.

The starts are finite for the reason given in `streams`: a block of runs touches an anchor (an edge, a ready time, a
latest start), or ends with the horizon, which another device's block ties to an anchor. So each start is an anchor plus
or minus sums of lengths. If these are too many, the result is the best of a coarser list, and is not proven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import Column
from gridsweep.optima.problem import Problem, Run, Ticks, rounded, scale_of

Indices = npt.NDArray[np.intp]
STATES = 6_000
CELLS = 4_000_000
STEPS = 400_000
MERGES = 400_000_000
"""Limits on the search: states, states x instants, starts of all kinds on all devices, and divisions of counts."""
SUMS = 4_000


@dataclass(frozen=True, slots=True)
class Kinds:
    """Groups of equal jobs: `members[g]` are the jobs of kind g.

    A state is a number in mixed radix: one more completed job of kind g adds `stride[g]`.
    """

    members: list[list[int]]
    states: int
    stride: list[int]


def kinds_of(problem: Problem) -> Kinds:
    """Return the kinds of a problem's jobs, in order of their first job."""
    found: dict[bytes, list[int]] = {}
    for j in range(problem.jobs):
        row = (problem.lengths[j], problem.power[j], problem.latest[j], problem.allowed[j], problem.ready[j])
        found.setdefault(b"".join(part.tobytes() for part in row), []).append(j)
    members, stride, states = list(found.values()), [], 1
    for of in members:
        stride.append(states)
        states *= len(of) + 1
    return Kinds(members, states, stride)


def instants(problem: Problem, kinds: Kinds) -> list[Ticks] | None:
    """Return, for each device, every start that an optimum may need; None if there are too many."""
    sums = [_sums(problem.lengths[:, d], kinds) for d in range(problem.devices)]
    joint = np.unique(np.concatenate([s for s in sums if s is not None] or [np.empty(0, np.int64)]))
    edges = np.unique(np.concatenate([problem.edges, problem.ready, problem.free]))
    found = []
    for d, own in enumerate(sums):
        if own is None:
            return None
        # With idle power, another device's latest start may determine the horizon.
        bounds = problem.latest.ravel() if problem.idle.any() else problem.latest[:, d]
        anchors = np.unique(np.concatenate([edges, bounds]))
        if problem.idle.any() and len(joint) * len(own) * len(anchors) > STEPS * 20:
            return None
        offsets = np.unique(joint[:, None] - own) if problem.idle.any() else np.union1d(own, -own)
        if len(anchors) * len(offsets) > STEPS * 20:
            return None
        starts = np.unique(anchors[:, None] + offsets)
        found.append(starts[(starts >= problem.ready.min()) & (starts <= problem.latest[:, d].max())])
    return found


def coarse(problem: Problem, taken: Sequence[Run] = ()) -> list[Ticks]:
    """Return, for each device, the starts at most one job away from an anchor or from a fixed run in `taken`."""
    found = []
    for d in range(problem.devices):
        lengths = np.unique(problem.lengths[:, d])
        offsets = np.unique(np.concatenate([[0], lengths, -lengths, (-lengths[:, None] - lengths).ravel()]))
        own = [time for run in taken if run[1] == d for time in run[2:]]
        anchors = np.concatenate(
            [problem.edges, problem.ready, problem.free, problem.latest[:, d], np.array(own, np.int64)]
        )
        starts = np.unique(np.unique(anchors)[:, None] + offsets)
        found.append(starts[(starts >= problem.ready.min()) & (starts <= problem.latest[:, d].max())])
    return found


def affordable(problem: Problem, kinds: Kinds, starts: Sequence[Ticks]) -> bool:
    """Whether the search is within its limits."""
    times = sum(len(s) * (1 + len(kinds.members) * bool(problem.idle.any())) for s in starts)
    deals = (kinds.states**2 if problem.devices > 2 else kinds.states) * problem.devices
    return (
        kinds.states <= STATES
        and kinds.states * times <= CELLS
        and sum(map(len, starts)) * len(kinds.members) <= STEPS
        and deals * (times if problem.idle.any() else 20) <= MERGES
    )


def best(problem: Problem, kinds: Kinds, starts: Sequence[Ticks], taken: Sequence[Run] = ()) -> list[Run] | None:
    """Return the best schedule with these starts around the fixed runs in `taken`; None if nothing fits."""
    scale = scale_of(problem)
    lanes = [
        _Lane(problem, kinds, d, starts[d], [r for r in taken if r[1] == d], scale) for d in range(problem.devices)
    ]
    horizons = np.unique(np.concatenate([lane.times for lane in lanes]))
    horizons = horizons[horizons >= max([int(problem.free.max()), *(run[3] for run in taken)])]
    if not len(horizons):
        return None
    idle = rounded(problem.idle.sum() * problem.exposure(horizons), scale)
    if problem.idle.any():
        at = int(np.argmin(_least([lane.upto(horizons) for lane in lanes], kinds) + idle))
    else:  # costs fall with the horizon: find the earliest one of the least cost
        low, high = 0, len(horizons) - 1
        least = _least([lane.upto(horizons[high:]) for lane in lanes], kinds)[0]
        while low < high:
            middle = (low + high) // 2
            enough = _least([lane.upto(horizons[middle : middle + 1]) for lane in lanes], kinds)[0] <= least
            low, high = (low, middle) if enough else (middle + 1, high)
        at = low
    tables = [lane.upto(horizons[at : at + 1])[0] for lane in lanes]
    if not np.isfinite(_least([table[None] for table in tables], kinds)[0]):
        return None
    unused = [list(reversed(of)) for of in kinds.members]
    runs: list[Run] = []
    for lane, state in zip(lanes, _dealt(tables, kinds), strict=True):
        runs += [(unused[g].pop(), lane.device, start, end) for g, start, end in lane.path(state, int(horizons[at]))]
    return runs


class _Lane:
    """One device: `table[s, i]` is the least cost of having completed s with no run after `times[i]`."""

    def __init__(self, problem: Problem, kinds: Kinds, device: int, starts: Ticks, taken: Sequence[Run], scale: float):
        self.device, self.kinds = device, kinds
        firsts = [of[0] for of in kinds.members]
        self.lengths = [int(problem.lengths[j, device]) for j in firsts]
        self.begins = [_free(problem, j, device, starts, taken) for j in firsts]
        met = [problem.exposure(b + n) - problem.exposure(b) for b, n in zip(self.begins, self.lengths, strict=True)]
        extra = problem.power[firsts, device] - problem.idle[device]
        self.costs = [rounded(kw * of, scale) for kw, of in zip(extra, met, strict=True)]
        ends = [begins + length for begins, length in zip(self.begins, self.lengths, strict=True)]
        self.times = np.unique(np.concatenate([np.array([0, problem.edges[-1]]), *self.begins, *ends]))
        self._begun = [np.searchsorted(self.times, begins) for begins in self.begins]
        self._ended = [np.searchsorted(self.times, times) for times in ends]
        self.table: Column = np.full((kinds.states, len(self.times)), np.inf)
        self.table[0] = 0.0
        for state in range(1, kinds.states):
            row = self.table[state]
            for g in self._last(state):
                before = self.table[state - kinds.stride[g], self._begun[g]]
                row[self._ended[g]] = np.minimum(row[self._ended[g]], before + self.costs[g])
            np.minimum.accumulate(row, out=row)

    def upto(self, horizons: Ticks) -> Column:
        """Return the table at each horizon, shape (horizons, states)."""
        return self.table[:, np.searchsorted(self.times, horizons, side="right") - 1].T

    def path(self, state: int, horizon: int) -> list[tuple[int, int, int]]:
        """Return runs of the least cost, backwards from a horizon: kind, start, end."""
        i = int(np.searchsorted(self.times, horizon, side="right")) - 1
        found = []
        while state:
            value = self.table[state, i]
            i = int(np.argmax(self.table[state] == value))  # the earliest instant, since rows never rise
            for g in self._last(state):
                at = int(np.searchsorted(self._ended[g], i))
                if at == len(self._ended[g]) or self._ended[g][at] != i:
                    continue
                if self.table[state - self.kinds.stride[g], self._begun[g][at]] + self.costs[g][at] == value:
                    break
            found.append((g, int(self.begins[g][at]), int(self.times[i])))
            i, state = int(self._begun[g][at]), state - self.kinds.stride[g]
        return found

    def _last(self, state: int) -> list[int]:
        """Return the kinds of which a state has completed at least one job."""
        return [
            g
            for g, (of, stride) in enumerate(zip(self.kinds.members, self.kinds.stride, strict=True))
            if state // stride % (len(of) + 1)
        ]


def _free(problem: Problem, job: int, device: int, starts: Ticks, taken: Sequence[Run]) -> Ticks:
    """Return the starts at which a job may run on a device beside its fixed runs."""
    length, begin = int(problem.lengths[job, device]), max(problem.ready[job], problem.free[device])
    able = (starts >= begin) & (starts <= problem.latest[job, device]) & problem.allowed[job, device]
    for _, _, start, end in taken:
        able &= (starts + length <= start) | (starts >= end)
    free: Ticks = starts[able]
    return free


def _least(tables: Sequence[Column], kinds: Kinds) -> Column:
    """Return the least cost of all jobs, divided among the devices: tables (horizons, states) -> (horizons,)."""
    merged = tables[0]
    for table in tables[1:-1]:
        merged = _merged(merged, table, kinds)
    # The jobs that one device leaves are the complement, which in mixed radix is the reversed order.
    return (merged + tables[-1][:, ::-1]).min(axis=1) if len(tables) > 1 else merged[:, -1]


def _merged(one: Column, other: Column, kinds: Kinds) -> Column:
    """Return the least costs of both devices together, shape (horizons, states) like each table."""
    found = np.full_like(one, np.inf)
    for state in np.flatnonzero(np.isfinite(one).any(axis=0)):
        beside = _within(kinds.states - 1 - int(state), kinds)
        found[:, beside + state] = np.minimum(found[:, beside + state], one[:, state, None] + other[:, beside])
    return found


def _within(state: int, kinds: Kinds) -> Indices:
    """Return the states that have no more jobs of any kind."""
    found = np.zeros(1, dtype=np.intp)
    for of, stride in zip(kinds.members, kinds.stride, strict=True):
        found = (found[:, None] + np.arange(state // stride % (len(of) + 1) + 1) * stride).ravel()
    return found


def _dealt(tables: Sequence[Column], kinds: Kinds) -> list[int]:
    """Return each device's state in a cheapest division of all jobs; tables have shape (states,)."""
    ahead = list(tables[:1]) if len(tables) > 1 else []
    for table in tables[1:-1]:
        ahead.append(_merged(ahead[-1][None], table[None], kinds)[0])
    states: list[int] = []
    target = kinds.states - 1
    for before, table in zip(reversed(ahead), reversed(tables[1:]), strict=True):
        own = _within(target, kinds)
        state = int(own[np.argmin(before[target - own] + table[own])])
        states.append(state)
        target -= state
    return [target, *reversed(states)]


def _sums(lengths: Ticks, kinds: Kinds) -> Ticks | None:
    """Return every sum of some jobs' lengths, 0 included; None if there are too many."""
    found = np.zeros(1, dtype=np.int64)
    for of in kinds.members:
        found = np.unique(found[:, None] + np.arange(len(of) + 1, dtype=np.int64) * lengths[of[0]])
        if len(found) > SUMS:
            return None
    return found
