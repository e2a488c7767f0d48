"""Optimum with pauses for different devices, powers or ready times: a linear programme (HiGHS, through scipy).

x[j, d, i] is the hours of job j on device d in segment i. The hours per device and per job in a segment are at most the
segment's length; any such shares can be laid out without a job on two devices at once (preemptive open shop: Gonzalez
and Sahni 1976, by Birkhoff's theorem), so the programme is exact. With idle power, the horizon is one more variable
within the last segment, and each segment that can still improve the result is tried as the last one.
"""

from __future__ import annotations

from typing import Any  # scipy has no types

import numpy as np

from gridsweep.carbon.traces import Column
from gridsweep.errors import SpecError
from gridsweep.optima.layout import joined
from gridsweep.optima.problem import TICKS_PER_HOUR, Problem, Run, Ticks, too_much

SMALL = 1e-9
"""Hours below this are rounding errors."""


def best(problem: Problem) -> list[Run]:
    """Return an optimal schedule. Raises `DeadlineError` if the jobs do not fit, `SpecError` without scipy."""
    cuts = np.unique(np.concatenate([problem.edges, problem.ends, problem.ready]))
    cuts = cuts[cuts <= problem.edges[-1]]
    least, hours = _solved(problem, cuts, False)
    if hours is None:
        raise too_much(problem)
    if not problem.idle.any():
        return _laid_out(problem, cuts, hours)
    idle = problem.idle.sum() * problem.exposure(cuts)
    found, shares, ends = np.inf, hours, cuts
    for i in range(len(cuts) - 1):
        if least + idle[i] >= found:
            break
        value, some = _solved(problem, cuts[: i + 2], True)
        if some is not None and value + idle[i] < found:
            found, shares, ends = value + idle[i], some, cuts[: i + 2]
    return _laid_out(problem, ends, shares)


def _solved(problem: Problem, cuts: Ticks, horizon: bool) -> tuple[float, Column | None]:
    """Return grams without idle power before the last segment, and hours (jobs, devices, segments) or None."""
    optimize = _optimize()
    from scipy.sparse import coo_matrix, vstack

    jobs, devices, segments = problem.jobs, problem.devices, len(cuts) - 1
    spans = np.diff(cuts) / TICKS_PER_HOUR
    levels = problem.levels[np.searchsorted(problem.edges, cuts[:-1], side="right") - 1]
    shape = (jobs, devices, segments)
    able = np.broadcast_to(problem.allowed[:, :, None], shape)
    able = able & ((cuts[:-1] >= problem.ready[:, None]) & (cuts[1:] <= _ends(problem, cuts, horizon)))[:, None, :]
    j, d, i = np.nonzero(able)
    size = len(j)
    extra = problem.power - problem.idle
    cost = np.append(extra[j, d] * levels[i], problem.idle.sum() * levels[-1] if horizon else 0.0)
    ones, column = np.ones(size), np.arange(size)
    rows = [
        coo_matrix((ones, (d * segments + i, column)), shape=(devices * segments, size + 1)),
        coo_matrix((ones, (j * segments + i, column)), shape=(jobs * segments, size + 1)),
    ]
    limits = np.concatenate([np.tile(spans, devices), np.tile(spans, jobs)])
    upper = vstack(rows).tolil()
    if horizon:
        last = np.flatnonzero(np.arange(len(limits)) % segments == segments - 1)
        upper[last, size] = -1.0
        limits[last] = 0.0
    speed = 1.0 / (problem.lengths / TICKS_PER_HOUR)
    whole = coo_matrix((speed[j, d], (j, column)), shape=(jobs, size + 1))
    solved = optimize.linprog(
        cost,
        A_ub=upper.tocsr(),
        b_ub=limits,
        A_eq=whole.tocsr(),
        b_eq=np.ones(jobs),
        bounds=np.column_stack([np.zeros(size + 1), np.append(np.full(size, np.inf), spans[-1])]),
        method="highs",
    )
    if solved.x is None:
        return np.inf, None
    hours = np.zeros(shape)
    hours[j, d, i] = np.where(solved.x[:-1] > SMALL, solved.x[:-1], 0.0)
    return float(solved.fun), hours


def _ends(problem: Problem, cuts: Ticks, horizon: bool) -> Ticks:
    """Return deadlines per job for these segments: a deadline after the last segment is no constraint."""
    return np.where(problem.ends >= cuts[-1], cuts[-1], problem.ends)[:, None]


def _laid_out(problem: Problem, cuts: Ticks, hours: Column) -> list[Run]:
    """Convert hours in segments into runs, by removing one matching of jobs and devices after another."""
    runs: list[Run] = []
    for i in range(len(cuts) - 1):
        if not hours[:, :, i].any():
            continue
        at = float(cuts[i])
        for span, pairs in _matchings(hours[:, :, i]):
            end = at + span * TICKS_PER_HOUR
            runs += [(j, d, round(at), round(end)) for j, d in pairs if round(end) > round(at)]
            at = end
    return joined(runs)


def _matchings(shares: Column) -> list[tuple[float, list[tuple[int, int]]]]:
    """Split shares (jobs, devices) into matchings, in total as long as the largest row or column sum."""
    assign = _optimize().linear_sum_assignment
    jobs, devices = shares.shape
    span = max(shares.sum(axis=0).max(), shares.sum(axis=1).max())
    # With equal row and column sums, a matrix is a sum of matchings: [[x, spare job], [spare device, x transposed]].
    square = np.zeros((jobs + devices, jobs + devices))
    square[:jobs, :devices], square[jobs:, devices:] = shares, shares.T
    square[:jobs, devices:] = np.diag(span - shares.sum(axis=1))
    square[jobs:, :devices] = np.diag(span - shares.sum(axis=0))
    found = []
    while span > SMALL:
        row, column = assign(square <= SMALL / 10)
        length = min(span, float(square[row, column].min()))
        if length <= SMALL / 10:
            break
        square[row, column] -= length
        span -= length
        found.append((length, [(int(j), int(d)) for j, d in zip(row, column, strict=True) if j < jobs and d < devices]))
    return found


def _optimize() -> Any:
    try:
        from scipy import optimize
    except ImportError as error:
        raise SpecError(
            "the optimum with pauses on unequal devices needs scipy; run pip install 'gridsweep[solver]'"
        ) from error
    return optimize
