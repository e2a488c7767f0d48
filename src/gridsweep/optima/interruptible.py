"""Optimum with pauses for identical devices and jobs that are all ready together: an exact greedy algorithm.

Cut the window at every slot's edge and every deadline into segments of length l_i and level c_i. In a segment, m
devices provide m l_i, and one job uses at most l_i. By McNaughton's rule (1959), any shares of a segment within both
limits can be laid out on the devices without a job on two at once. So a schedule is a flow: job j (supply p_j) ->
segment i up to its deadline (capacity l_i) -> sink (capacity m l_i). The cost c_i is on the last arc only. The feasible
totals of the segments form a polymatroid (Megiddo 1974), on which the greedy algorithm is exact (Edmonds 1970): in
order of c_i, each segment takes as much as it can without taking from those before, u_i = F(first i) - F(first i - 1),
where F(S) is the maximum flow into the segments of S. Every S has a minimum cut that chooses the a_k longest jobs of
each deadline class k:

    F(S) = min over a of  (length of the jobs not chosen) + sum over i in S of l_i min(m, number chosen that may use i),

where the latter number A_q is the same for all segments between two deadlines. Between breakpoints, where the lengths
in a class change, the right side is concave in a, so its minimum is at breakpoints and few a are tried. All numbers
are whole ticks, so the result is exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import Column
from gridsweep.optima.layout import laid_out
from gridsweep.optima.problem import TICKS_PER_HOUR, Problem, Run, Ticks, too_much

SPLIT = 32
"""The number of parts into which a segment is divided repeatedly to find a horizon within it."""


class Segments:
    """The window cut at all edges and deadlines, in time order; `ranked` puts the cheapest first, ties by time."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.deadlines = np.unique(problem.ends)
        cuts = np.unique(np.concatenate([problem.edges, self.deadlines]))
        self.starts, self.ends = cuts[:-1], cuts[1:]
        slots = np.searchsorted(problem.edges, self.starts, side="right") - 1
        self.levels: Column = problem.levels[slots]
        # Running adds only the power above idle power, since idle power is drawn until the horizon anyway.
        self.extra_kw = float(problem.power[0, 0] - problem.idle[0])
        self.ranked = np.argsort(self.levels * self.extra_kw, kind="stable")
        self.interval = np.searchsorted(self.deadlines, self.ends[self.ranked])
        self._cuts = _Cuts(problem, self.deadlines)

    def shares(self, horizons: Ticks) -> Ticks:
        """Return device time in each ranked segment if all ends by each horizon: (horizons, segments), in ticks.

        A row sums to less than the work if the work does not fit.
        """
        ends = np.minimum(self.ends[self.ranked], horizons[:, None])
        lengths = np.maximum(0, ends - self.starts[self.ranked])
        flows = self._cuts.flows(lengths, self.interval)
        return np.diff(flows, axis=1, prepend=0)

    def emissions(self, horizons: Ticks, shares: Ticks) -> Column:
        """Return grams, idle power until the horizon included; infinite if the work does not fit."""
        run = shares @ (self.levels[self.ranked] * self.extra_kw) / TICKS_PER_HOUR
        whole = shares.sum(axis=1) == self.problem.lengths[:, 0].sum()
        return np.where(whole, run + self.problem.idle.sum() * self.problem.exposure(horizons), np.inf)

    def at(self, horizons: Ticks) -> Column:
        return self.emissions(horizons, self.shares(horizons))


def fits(problem: Problem) -> bool:
    """Whether the greedy algorithm applies to a problem."""
    return problem.alike and bool((problem.ready == problem.ready[0]).all() and problem.ready[0] == 0)


def best(problem: Problem) -> list[Run]:
    """Return an optimal schedule. Raises `DeadlineError` if the jobs do not fit."""
    segments = Segments(problem)
    horizon = _horizon(segments) if problem.idle.any() else int(segments.ends[-1])
    (shares,) = segments.shares(np.array([horizon]))
    if shares.sum() < problem.lengths[:, 0].sum():
        raise too_much(problem)
    used = np.zeros_like(shares)
    used[segments.ranked] = shares
    return laid_out(problem, segments.starts, np.minimum(segments.ends, horizon), used)


def _horizon(segments: Segments) -> int:
    """Return the best end. Within a segment, emissions are convex in it (right-hand side of a linear programme)."""
    ends = segments.ends
    values = segments.at(ends)
    at = int(np.argmin(values))
    best, least = int(ends[at]), float(values[at])
    if least == np.inf:
        raise too_much(segments.problem)
    for i in _worth_a_look(segments, values, least):
        low, high = int(segments.starts[i]), int(ends[i])
        while True:
            points = np.unique(np.linspace(low, high, SPLIT + 1).astype(np.int64))
            found = segments.at(points)
            at = int(np.argmin(found))
            if found[at] < least:
                best, least = int(points[at]), float(found[at])
            if len(points) == high - low + 1:
                break
            low, high = int(points[max(0, at - 1)]), int(points[min(len(points) - 1, at + 1)])
    return best


def _worth_a_look(segments: Segments, values: Column, least: float) -> Iterator[int]:
    """Yield the segments within which a horizon may emit less than one at any edge."""
    idle = segments.problem.idle.sum() * segments.problem.exposure(np.stack([segments.starts, segments.ends]))
    floor = values - (idle[1] - idle[0])  # lower bound: work as for its end, idle as for its start
    some = np.flatnonzero(floor < least)
    ends, spans = segments.ends[some], segments.ends[some] - segments.starts[some]
    before = segments.at(segments.starts[some])
    # A convex function lies above the lines through its first two and through its last two ticks.
    with np.errstate(invalid="ignore", divide="ignore"):
        down = segments.at(segments.starts[some] + 1) - before
        up = values[some] - segments.at(ends - 1)
        crossing = before + down * np.clip((values[some] - before - up * spans) / (down - up), 0, spans)
    # The slopes are differences of nearly equal numbers; this bounds the rounding error over the whole segment.
    rounding = 16 * np.finfo(np.float64).eps * np.abs(values[some]) * spans
    return (int(i) for i in some[~(crossing - rounding >= least)])


class _Cuts:
    """The candidate cuts; the smallest one equals the maximum flow."""

    def __init__(self, problem: Problem, deadlines: Ticks):
        self.devices = problem.devices
        lengths = problem.lengths[:, 0]
        self.left: list[Ticks] = []
        breaks: list[list[int]] = []
        for deadline in deadlines:
            longest = np.sort(lengths[problem.ends == deadline])[::-1]
            # left[a]: the total length of a class's jobs without its a longest.
            self.left.append(longest.sum() - np.concatenate(([0], np.cumsum(longest))))
            steps = np.flatnonzero(np.diff(longest)) + 1
            breaks.append([0, *(int(s) for s in steps), len(longest)])
        self.choices = self._choices(breaks)

    def _choices(self, breaks: list[list[int]]) -> list[list[int]]:
        """Return, for each class, the sums of breakpoints over it and all later classes, capped at m."""
        choices = [{0}]
        for steps in reversed(breaks):
            choices.append({min(self.devices, a + step) for a in choices[-1] for step in steps})
        return [sorted(found) for found in reversed(choices)]

    def flows(self, lengths: Ticks, interval: npt.NDArray[np.intp]) -> Ticks:
        """Return the maximum flow into the first i segments, for each i; `lengths` has shape (rows, segments)."""
        m = self.devices
        chosen: dict[int, Ticks] = {0: np.zeros_like(lengths)}
        for k in range(len(self.left) - 1, -1, -1):
            among, left = len(self.left[k]) - 1, self.left[k]
            usable = np.cumsum(np.where(interval == k, lengths, 0), axis=1)
            values: dict[int, Ticks] = {}
            for a in self.choices[k]:
                found: Ticks | None = None
                for later, cost in chosen.items():
                    more = a - later
                    if not 0 <= more <= among and a < m:
                        continue
                    if a == m:  # saturated: choosing more costs nothing, so all are chosen
                        if later + among < m:
                            continue
                        more = among
                    here = cost + left[more]
                    found = here if found is None else np.minimum(found, here)
                if found is not None:
                    values[a] = found + usable * a
            chosen = values
        least: Ticks = np.minimum.reduce(list(chosen.values()))
        return least
