"""The lowest emissions possible with perfect foresight: the reference for every reported saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from gridsweep.carbon.traces import Trace, utc
from gridsweep.optima import counts, interruptible, linear, neighbourhood, streams
from gridsweep.optima.problem import TICK, Job, Optimum, Piece, Problem, Run, problem_of, too_much
from gridsweep.sweep.stints import Device


def bound(
    jobs: Sequence[Job],
    devices: Sequence[Device],
    trace: Trace,
    start: datetime,
    *,
    pausing: bool = False,
    finish_by: datetime | None = None,
    grid: timedelta | None = None,
    free_at: Mapping[str, datetime] | None = None,
) -> Optimum:
    """Return the schedule of jobs on devices with the lowest emissions on a trace, from `start` to the last deadline.

    A job starts by its `latest_start`, and ends by `finish_by` and within the trace. With `pausing` it may be split
    into pieces; its latest end is that of a run begun at its latest start on the slowest device. Every device draws
    its idle power from `start` to the last end. With `grid`, jobs that never pause start at multiples of it after
    `start`; otherwise at any instant. Emissions are in gCO2eq. Raises `DeadlineError` if the jobs do not fit,
    `TraceError` if the trace is too short or has holes, `ValueError` for impossible jobs or devices, `SpecError` if
    pausing on unequal devices needs the missing `solver` extra.
    """
    start = utc(start)
    if not jobs:
        return Optimum(0.0, 0.0, (), start, start, True)
    problem = problem_of(jobs, devices, trace, start, finish_by, free_at)
    runs, proven = _paused(problem) if pausing else _whole(problem, None if grid is None else grid // TICK)
    emissions, idle = problem.emissions(runs)
    pieces = [
        Piece(jobs[j].name, devices[d].name, start + begun * TICK, start + end * TICK)
        for j, d, begun, end in sorted(runs, key=lambda run: (run[2], run[1]))
    ]
    finish = max(piece.end for piece in pieces)
    return Optimum(emissions, idle, tuple(pieces), finish, start + int(problem.edges[-1]) * TICK, proven)


def _paused(problem: Problem) -> tuple[list[Run], bool]:
    return (interruptible.best(problem) if interruptible.fits(problem) else linear.best(problem)), True


def _whole(problem: Problem, grid: int | None) -> tuple[list[Run], bool]:
    order = streams.order(problem)
    if order is not None:
        return streams.best(problem, order, grid), True
    kinds = counts.kinds_of(problem)
    if grid is None:
        starts = counts.instants(problem, kinds)
    else:
        starts = [streams.lattice(problem, grid)] * problem.devices
    if starts is not None and counts.affordable(problem, kinds, starts):
        runs = counts.best(problem, kinds, starts)
        if runs is None:
            raise too_much(problem)
        return runs, True
    return neighbourhood.best(problem), False
