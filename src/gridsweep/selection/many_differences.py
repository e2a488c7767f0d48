"""Which experiments differ significantly, for thousands of them: the verdicts of `paired_differences`, pair by pair.

Of 5,000 experiments 12.5 million pairs are compared. A pair's mean and variance are sums over samples, so one product
of matrices gives those of all pairs at once, to about ten digits. Where a verdict is closer than that, the pair is
compared exactly, sample by sample. So every verdict is that of `difference`, and only the time differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any  # floats or whole numbers

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.traces import Column
from gridsweep.selection.paired_differences import Measured, _by_seed, difference, student
from gridsweep.sweep.losses import Losses

BLOCK = 256
"""Rows of pairs that are computed at a time, which bounds the memory."""
DOUBT = 1e-9
"""Relative to the sums it is the difference of, a figure this close to its limit is computed exactly."""

Flags = npt.NDArray[np.bool_]


def beaten(
    scores: Mapping[str, Measured], ranked: Sequence[str], confidence: float, noise: float
) -> tuple[list[int], list[int]]:
    """Return for each experiment by how many it is beaten, and how many it beats, in the order of `ranked`.

    `ranked` are the experiments by loss, best first. A difference counts if it is significant at this confidence and
    its mean exceeds `noise`. Raise `ValueError` if losses cannot be paired.
    """
    better, worse = np.zeros(len(ranked), dtype=np.int64), np.zeros(len(ranked), dtype=np.int64)
    for i, behind, ahead in _verdicts(scores, ranked, confidence, noise):
        rows = slice(i, i + len(behind))
        better[i:] += behind.sum(axis=0)
        worse[rows] += behind.sum(axis=1)
        better[rows] += ahead.sum(axis=1)
        worse[i:] += ahead.sum(axis=0)
    return better.tolist(), worse.tolist()


def _verdicts(
    scores: Mapping[str, Measured], ranked: Sequence[str], confidence: float, noise: float
) -> Iterator[tuple[int, Flags, Flags]]:
    """Yield blocks of rows: the first, whether each experiment from there on is worse than the row's, whether better.

    Only experiments after the row's are compared with it.
    """
    count = len(ranked)
    if count < 2:
        return
    seed = _common_seed([scores[name] for name in ranked])
    table = None if seed is None else _Table([_at(scores[name], seed) for name in ranked], confidence, noise)
    several = np.array([len(_by_seed(scores[name])) > 1 for name in ranked])
    for first in range(0, count, BLOCK):
        last = min(count, first + BLOCK)
        later = np.arange(first, count)[None, :] > np.arange(first, last)[:, None]
        if table is None:
            doubt, worse, better = later, np.zeros_like(later), np.zeros_like(later)
        else:
            worse, better, doubt = table.compared(first, last)
            doubt |= several[first:last, None] & several[None, first:]  # they may have other seeds in common
            worse, better, doubt = worse & later & ~doubt, better & later & ~doubt, doubt & later
        for row, other in zip(*np.nonzero(doubt), strict=True):
            apart = difference(scores[ranked[first + row]], scores[ranked[first + other]])
            if abs(apart.mean) > noise and apart.separable(confidence):
                (worse if apart.mean < 0 else better)[row, other] = True
        yield first, worse, better


class _Table:
    """The losses of many experiments under one seed, on the same samples."""

    def __init__(self, losses: Sequence[Losses], confidence: float, noise: float):
        tokens = losses[0].tokens
        if any(one.tokens != tokens for one in losses):
            raise ValueError("losses of different samples, or in a different order, cannot be paired")
        counts = np.asarray(tokens, dtype=np.float64)
        self.weights: Column = counts[counts > 0] / counts.sum()
        self.noise = noise
        values = np.array([one.values for one in losses], dtype=np.float64)[:, counts > 0]
        self.values = values - values.mean(axis=0)  # smaller numbers, more digits
        self.same = np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
        self.means = self.values @ self.weights
        if (samples := len(self.weights)) < 2:
            self.reach2 = np.inf
            return
        lever = self.weights / (1 - self.weights)
        self.scaled = self.values * lever
        self.squares = (self.scaled**2).sum(axis=1)
        self.crossed = self.scaled @ lever
        self.lever2 = float(lever @ lever)
        reach = student(confidence, max(1.0, 1 / float(self.weights @ self.weights) - 1))
        self.reach2 = reach**2 * (samples - 1) / samples

    def compared(self, first: int, last: int) -> tuple[Flags, Flags, Flags]:
        """Return for a block of rows whether each experiment from the first on is worse, better, and if in doubt."""
        rows, columns = slice(first, last), slice(first, None)

        def paired(figures: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return figures[rows, None], figures[None, columns]

        means = np.subtract(*paired(self.means))
        if self.reach2 == np.inf:  # a single sample separates nothing
            nothing = np.zeros(means.shape, dtype=bool)
            return nothing, nothing, nothing.copy()
        size = np.add(*paired(self.squares))
        variance = size - 2 * (self.scaled[rows] @ self.scaled[columns].T)
        crossed = np.subtract(*paired(self.crossed))
        square = means * means
        variance += square * self.lever2 - 2 * means * crossed
        size += square * self.lever2 + 2 * np.abs(means * crossed)
        limit = self.reach2 * variance
        apart = (square > limit) & (np.abs(means) > self.noise)
        doubt = np.abs(square - limit) <= DOUBT * (self.reach2 * size + square)
        doubt |= np.abs(np.abs(means) - self.noise) <= DOUBT * (1 + self.noise)
        differ = np.not_equal(*paired(self.same))  # where nothing differs there is no doubt either
        return apart & (means < 0) & differ, apart & (means > 0) & differ, doubt & differ


def _common_seed(measured: Sequence[Measured]) -> int | None:
    """Return a seed that all experiments have; None if there is none."""
    common = set.intersection(*(set(_by_seed(one)) for one in measured))
    return min(common, default=None)


def _at(measured: Measured, seed: int) -> Losses:
    return _by_seed(measured)[seed]
