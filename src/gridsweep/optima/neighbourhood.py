"""Heuristic without pauses, for too many kinds of jobs to count: a list schedule, improved a few jobs at a time.

The search begins with the best of: running at once, the cheapest place for each job in turn, and counting over few
starts. Then, until nothing improves, it removes a few jobs that are close together and reinserts them in the best way
around the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gridsweep.optima import counts
from gridsweep.optima.problem import Problem, Run, too_much

TOGETHER = 4
"""The number of jobs that are placed again together."""
ROUNDS = 12
"""The maximum number of passes over all neighbourhoods."""
BETTER = 1e-12
"""The smallest relative saving that counts as an improvement."""


def best(problem: Problem) -> list[Run]:
    """Return a schedule that emits no more than running at once. Raises `DeadlineError` if none was found."""
    first = (at_once(problem), at_once(problem, by_end=True), _counted(problem), *_inserted(problem))
    found = [runs for runs in first if runs is not None]
    if not found:
        raise too_much(problem, certain=False)
    runs = min(found, key=lambda runs: problem.emissions(runs)[0])
    least = problem.emissions(runs)[0]
    for _ in range(ROUNDS):
        before = least
        for jobs in _close(runs):
            again = _anew(problem, runs, jobs)
            if again is not None and (value := problem.emissions(again)[0]) < least:
                runs, least = again, value
        if least >= before - BETTER * abs(before):
            break
    return sorted(runs, key=lambda run: run[2:])


def at_once(problem: Problem, *, by_end: bool = False) -> list[Run] | None:
    """Run every job as early as possible, by latest start, on the first free device; None if a job is late.

    With `by_end`, each job runs on the device where it ends first.
    """
    free = problem.free.tolist()
    runs: list[Run] = []
    for j in sorted(range(problem.jobs), key=lambda j: (int(problem.ends[j] - problem.lengths[j].min()), j)):
        devices = [d for d in range(problem.devices) if problem.allowed[j, d]]
        starts = {d: max(free[d], int(problem.ready[j])) for d in devices}
        able = [d for d in devices if starts[d] <= problem.latest[j, d]]
        if not able:
            return None
        ends = {d: starts[d] + int(problem.lengths[j, d]) for d in able}
        d = min(able, key=lambda d: (ends[d] if by_end else starts[d], ends[d]))
        free[d] = starts[d] + int(problem.lengths[j, d])
        runs.append((j, d, starts[d], free[d]))
    return runs


def _counted(problem: Problem) -> list[Run] | None:
    """Return the best schedule over few starts; None if counting exceeds its limits or nothing fits."""
    kinds, starts = counts.kinds_of(problem), counts.coarse(problem)
    return counts.best(problem, kinds, starts) if counts.affordable(problem, kinds, starts) else None


def _inserted(problem: Problem) -> Iterator[list[Run] | None]:
    """Yield schedules with each job in turn at its cheapest place: the longest first, then the most urgent first."""
    longest = sorted(range(problem.jobs), key=lambda j: (-int(problem.lengths[j].max()), j))
    yield _each(problem, longest)
    yield _each(problem, sorted(longest, key=lambda j: int(problem.latest[j].max())))


def _each(problem: Problem, jobs: Sequence[int]) -> list[Run] | None:
    runs: list[Run] = []
    for j in jobs:
        again = _anew(problem, runs, [j])
        if again is None:
            return None
        runs = again
    return runs


def _close(runs: Sequence[Run]) -> Iterator[list[int]]:
    """Yield groups of jobs that are consecutive in time, over all devices and on each, and pairs of distant groups."""
    rows = [[run[0] for run in sorted(runs, key=lambda run: (run[2], run[1]))]]
    rows += [[run[0] for run in sorted(runs, key=lambda run: run[2]) if run[1] == d] for d in {run[1] for run in runs}]
    for row in rows:
        for i in range(max(1, len(row) - TOGETHER + 1)):
            yield row[i : i + TOGETHER]
    half = TOGETHER // 2
    row = rows[0]
    for i in range(0, len(row), half):
        for k in range(i + TOGETHER, len(row), half):
            yield row[i : i + half] + row[k : k + half]


def _anew(problem: Problem, runs: Sequence[Run], jobs: Sequence[int]) -> list[Run] | None:
    """Return the schedule with some jobs placed again in the best way around the others; None if they do not fit."""
    taken = [run for run in runs if run[0] not in jobs]
    part = problem.only(jobs)
    kinds = counts.kinds_of(part)
    placed = counts.best(part, kinds, counts.coarse(part, taken), taken)
    if placed is None:
        return None
    return taken + [(jobs[j], *rest) for j, *rest in placed]  # type: ignore[misc]  # `rest` keeps a run's length
