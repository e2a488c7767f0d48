"""Never paused, jobs of one length on devices that are alike: one short dynamic programme for each device.

Let s_1 <= s_2 <= ... be the starts of a schedule on m devices, and L the length. No more than m jobs overlap exactly
when s_(i+m) >= s_i + L for all i. Where ready times and latest starts, sorted, go together, exchanging equal jobs puts
them in that order, so that job i starts i-th. Hence jobs i, i + m, i + 2m, ... are a chain whose only rules are its own
bounds and a distance of L; the m chains share nothing, and each is solved alone, one device for each.

Within a chain, costs are piecewise linear in the start. A block of runs without a gap can be moved, without loss, one
way or the other until one of its runs begins or ends at a slot's edge, or meets its ready time or its latest start. So
an optimum begins every run at such an instant plus or minus a whole number of lengths: a finite list, exact for any
real start. (Idle power changes nothing: the horizon is the end of a run, and moves with its block.)

A device that is taken until a moment is one whose chain began with a run that ends there, if that is no further off
than a length: so that it began first. Chains are dealt to devices in the order in which these are free.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import Column
from gridsweep.optima.problem import Problem, Run, Ticks, rounded, scale_of, too_much


def order(problem: Problem) -> npt.NDArray[np.intp] | None:
    """The jobs by ready time and latest start; None where the two do not go together, or a length differs.

    Neither where a device is taken for longer than a length.
    """
    if not problem.alike or (problem.lengths != problem.lengths[0, 0]).any():
        return None
    if problem.free.max() > problem.lengths[0, 0]:
        return None
    found = np.lexsort((problem.latest[:, 0], problem.ready))
    return found if (np.diff(problem.latest[found, 0]) >= 0).all() else None


def best(problem: Problem, ranked: npt.NDArray[np.intp], grid: int | None = None) -> list[Run]:
    """An optimal schedule of jobs `ranked` by `order`. With `grid` (ticks), starts are multiples of it.

    Raises `DeadlineError` where the jobs do not fit.
    """
    length = int(problem.lengths[0, 0])
    starts = instants(problem, -(-problem.jobs // problem.devices), length) if grid is None else lattice(problem, grid)
    scale = scale_of(problem)
    met = problem.exposure(starts + length) - problem.exposure(starts)
    costs = rounded((problem.power[0, 0] - problem.idle[0]) * met, scale)
    before = np.searchsorted(starts, starts - length, side="right") - 1
    devices = np.argsort(problem.free, kind="stable").tolist()

    chains = [tuple(ranked[k :: problem.devices].tolist()) for k in range(min(problem.devices, problem.jobs))]
    tables: dict[tuple[tuple[int, int], ...], list[Column]] = {}  # chains of the same bounds are solved once
    tabled = []
    for device, chain in zip(devices, chains, strict=False):
        free = int(problem.free[device])
        bounds = tuple((max(free, int(problem.ready[j])), int(problem.latest[j, 0])) for j in chain)
        if bounds not in tables:
            tables[bounds] = _table(starts, costs, before, bounds)
        tabled.append(tables[bounds])

    # The last run of every chain begins at or before one common instant: whose end is the horizon idle power sees.
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
    """Every instant a run of an optimum may begin at, for chains of up to `longest` runs."""
    anchors = np.unique(np.concatenate([problem.edges, problem.ready, problem.free, problem.latest[:, 0]]))
    moved = anchors[:, None] + np.arange(-longest, longest + 1, dtype=np.int64) * length
    found: Ticks = np.unique(moved[(moved >= problem.ready.min()) & (moved <= problem.latest.max())])
    return found


def lattice(problem: Problem, grid: int) -> Ticks:
    """The multiples of `grid` at which some job may start."""
    return np.arange(0, max(0, int(problem.latest.max())) + 1, grid, dtype=np.int64)


def _table(
    starts: Ticks, costs: Column, before: npt.NDArray[np.intp], bounds: tuple[tuple[int, int], ...]
) -> list[Column]:
    """For each run of a chain and each start: the least cost of it and of all before it; infinite where it may not."""
    table: list[Column] = []
    done: Column = np.zeros(len(starts))
    for ready, latest in bounds:
        after = np.where(before >= 0, done[before], np.inf) if table else done
        values = np.where((starts >= ready) & (starts <= latest), costs + after, np.inf)
        table.append(values)
        done = np.minimum.accumulate(values)
    return table
