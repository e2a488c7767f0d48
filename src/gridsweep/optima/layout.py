"""Convert device time by segment into runs: no job on two devices at once, with few pieces if that is easy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gridsweep.optima.problem import Problem, Run, Ticks

Cell = tuple[int, int, int]
"""A stretch of device time to fill: device, start and end."""


def laid_out(problem: Problem, starts: Ticks, ends: Ticks, used: Ticks) -> list[Run]:
    """Return runs that use exactly `used` (segments,) of the devices' time, for jobs that are all ready at the start.

    `used` must be feasible as a flow, as the shares of the greedy algorithm are.
    """
    runs = _by_class(problem, starts, ends, used)
    if runs is None:
        runs = _levelled(problem, starts, ends, used)
    return joined(runs)


def _by_class(problem: Problem, starts: Ticks, ends: Ticks, used: Ticks) -> list[Run] | None:
    """Lay out deadline classes one after another, each wrapped around the devices; None if a job overlaps itself."""
    lengths, deadlines = problem.lengths[:, 0], problem.ends
    spans = ends - starts
    lanes = np.clip(used[:, None] - np.arange(problem.devices) * spans[:, None], 0, spans[:, None])
    begun = np.repeat(starts[:, None], problem.devices, axis=1)
    runs: list[Run] = []
    i = 0
    for deadline in np.unique(deadlines):
        members = np.flatnonzero(deadlines == deadline)
        need = int(lengths[members].sum())
        cells: list[Cell] = []
        while need > 0:
            have = lanes[i]
            take = have if have.sum() <= need else _prefix(have, need)
            cells += [(d, int(b), int(b + t)) for d, (b, t) in enumerate(zip(begun[i], take, strict=True)) if t > 0]
            need -= int(take.sum())
            begun[i] += take
            lanes[i] = have - take
            i += int(lanes[i].sum() == 0)
        cells.sort()
        runs += _filled(cells, [(int(j), int(lengths[j])) for j in members])
    return None if _meets_itself(runs) else runs


def _prefix(have: Ticks, need: int) -> Ticks:
    """Return the part of each lane before a common instant that adds up to `need`; the first get one tick more."""
    low, high = 0, int(have.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(have, middle).sum() <= need else (low, middle - 1)
    take = np.minimum(have, low)
    more = np.flatnonzero(have > low)[: need - int(take.sum())]
    take[more] += 1
    return take


def _filled(cells: list[Cell], shares: list[tuple[int, int]]) -> list[Run]:
    """Return the shares laid end to end into the cells."""
    runs: list[Run] = []
    room = iter(cells)
    device, start, end = 0, 0, 0
    for job, share in shares:
        while share > 0:
            if start == end:
                device, start, end = next(room)
            part = min(share, end - start)
            runs.append((job, device, start, start + part))
            start, share = start + part, share - part
    return runs


def _meets_itself(runs: list[Run]) -> bool:
    """Whether a job is on two devices at once."""
    last: dict[int, int] = {}
    for job, _, start, end in sorted(runs, key=lambda run: run[2]):
        if start < last.get(job, 0):
            return True
        last[job] = end
    return False


def _levelled(problem: Problem, starts: Ticks, ends: Ticks, used: Ticks) -> list[Run]:
    """Fill segments backwards in time, reducing the longest remainders to one level; then McNaughton's rule in each.

    Backwards, a deadline is a release time. Levelling leaves remaining lengths that are majorised by those of any other
    way to use the same time; a release adds the same to both; and the capacity of a segment is monotone in that order.
    So levelling uses all the time that a flow can use.
    """
    left = problem.lengths[:, 0].copy()
    runs: list[Run] = []
    for i in range(len(used) - 1, -1, -1):
        span, need = int(ends[i] - starts[i]), int(used[i])
        if need == 0:
            continue
        shares = _brought_down(np.where(problem.ends >= ends[i], left, 0), span, need)
        left -= shares
        cells = [(device, int(starts[i]), int(ends[i])) for device in range(problem.devices)]
        runs += _filled(cells, [(int(j), int(shares[j])) for j in np.flatnonzero(shares)])
    return runs


def _brought_down(left: Ticks, most: int, need: int) -> Ticks:
    """Return shares of at most `most` that add up to `need` and leave the largest remainder as small as possible."""

    def shares(level: int) -> npt.NDArray[np.int64]:
        return np.clip(left - level, 0, np.minimum(most, left))

    low, high = 0, int(left.max())
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shares(middle).sum() <= need else (middle + 1, high)
    found = shares(low)
    more = np.flatnonzero((shares(low - 1) > found) & (found < np.minimum(most, left)))[: need - int(found.sum())]
    found[more] += 1
    return found


def joined(runs: list[Run]) -> list[Run]:
    """Merge pieces of a job that follow one another on a device."""
    found: list[Run] = []
    for run in sorted(runs, key=lambda run: (run[1], run[2])):
        if found and found[-1][:2] == run[:2] and found[-1][3] == run[2]:
            found[-1] = (*run[:2], found[-1][2], run[3])
        else:
            found.append(run)
    return found
