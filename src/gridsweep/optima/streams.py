"""Optimum without pauses, for jobs of one length on identical devices: one dynamic programme per device.

Let s_1 <= s_2 <= ... be the starts of a schedule on m devices, and L the length. No more than m jobs overlap exactly
when s_(i+m) >= s_i + L for all i. If ready times and latest starts sort into the same order, exchanging equal jobs
yields a schedule in which job i starts i-th. Hence jobs i, i + m, i + 2m, ... form a chain, constrained only by its own
bounds and a distance of L. The m chains are independent; each is solved separately on its own device.

Within a chain, costs are piecewise linear in the start. A block of runs without a gap can be shifted, without loss, in
one of the two directions until one of its runs begins or ends at a slot's edge, or is at its ready time or its latest
start. So some optimum begins every run at such an instant plus or minus a whole number of lengths: a finite list, and
exact for real-valued starts. (Idle power changes nothing: the horizon is the end of a run, and moves with its block.)

A device taken until a moment counts as a chain that began with a run ending then, provided that the moment is at most
one length away. Chains are assigned to devices in the order in which the devices become free.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import Column
from gridsweep.optima.problem import Problem, Run, Ticks, rounded, scale_of, too_much


def order(problem: Problem) -> npt.NDArray[np.intp] | None:
    """Return the jobs in order of ready time and latest start, or None if this method does not apply.

    It does not apply if the two orders differ, lengths or devices differ, or a device is taken longer than a length.
    """
    if not problem.alike or (problem.lengths != problem.lengths[0, 0]).any():
        return None
    if problem.free.max() > problem.lengths[0, 0]:
        return None
    found = np.lexsort((problem.latest[:, 0], problem.ready))
    return found if (np.diff(problem.latest[found, 0]) >= 0).all() else None


def best(problem: Problem, ranked: npt.NDArray[np.intp], grid: int | None = None) -> list[Run]:
    """Return an optimal schedule of jobs `ranked` by `order`. With `grid` (ticks), starts are multiples of it.

    Raises `DeadlineError` if the jobs do not fit.
    """
    length = int(problem.lengths[0, 0])
    starts = instants(problem, -(-problem.jobs // problem.devices), length) if grid is None else lattice(problem, grid)
    scale = scale_of(problem)
    met = problem.exposure(starts + length) - problem.exposure(starts)
    costs = rounded((problem.power[0, 0] - problem.idle[0]) * met, scale)
    before = np.searchsorted(starts, starts - length, side="right") - 1
    devices = np.argsort(problem.free, kind="stable").tolist()

    chains = [tuple(ranked[k :: problem.devices].tolist()) for k in range(min(problem.devices, problem.jobs))]
    tables: dict[tuple[tuple[int, int], ...], list[Column]] = {}  # chains with the same bounds are solved once
    tabled = []
    for device, chain in zip(devices, chains, strict=False):
        free = int(problem.free[device])
        bounds = tuple((max(free, int(problem.ready[j])), int(problem.latest[j, 0])) for j in chain)
        if bounds not in tables:
            tables[bounds] = _table(starts, costs, before, bounds)
        tabled.append(tables[bounds])

    # The last run of every chain begins at or before a common instant; the end of a run begun then is the horizon.
    total = sum(np.minimum.accumulate(table[-1]) for table in tabled)
    ends = np.maximum(starts + length, problem.free.max())
    total = total + rounded(problem.idle.sum() * problem.exposure(ends), scale)
    last = int(np.argmin(total)) if len(starts) else 0
    if not len(starts) or not np.isfinite(total[last]):
        raise too_much(problem)
    runs = []
    for device, chain, table in zip(devices, chains, tabled, strict=False):
        at = last
        for job, values in zip(reversed(chain), reversed(table), strict=True):
            at = int(np.argmin(values[: at + 1]))
            runs.append((job, device, int(starts[at]), int(starts[at]) + length))
            at = int(before[at])
    return runs


def instants(problem: Problem, longest: int, length: int) -> Ticks:
    """Return every instant at which a run of an optimum may begin, for chains of up to `longest` runs."""
    anchors = np.unique(np.concatenate([problem.edges, problem.ready, problem.free, problem.latest[:, 0]]))
    moved = anchors[:, None] + np.arange(-longest, longest + 1, dtype=np.int64) * length
    found: Ticks = np.unique(moved[(moved >= problem.ready.min()) & (moved <= problem.latest.max())])
    return found


def lattice(problem: Problem, grid: int) -> Ticks:
    """Return the multiples of `grid` at which some job may start."""
    return np.arange(0, max(0, int(problem.latest.max())) + 1, grid, dtype=np.int64)


def _table(
    starts: Ticks, costs: Column, before: npt.NDArray[np.intp], bounds: tuple[tuple[int, int], ...]
) -> list[Column]:
    """Return, for each run of a chain and each start, the least cost up to that run; infinite if not allowed."""
    table: list[Column] = []
    done: Column = np.zeros(len(starts))
    for ready, latest in bounds:
        after = np.where(before >= 0, done[before], np.inf) if table else done
        values = np.where((starts >= ready) & (starts <= latest), costs + after, np.inf)
        table.append(values)
        done = np.minimum.accumulate(values)
    return table
