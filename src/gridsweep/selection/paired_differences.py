"""The difference between two experiments' losses and its confidence interval, paired by sample.

Most noise of a validation loss comes from the samples: some are hard for every adapter. Two experiments evaluated on
the same samples share that noise, so their difference is more precise than either loss. A loss is a mean over tokens,
so the difference is a weighted mean: sum(t d) / sum(t), with `t` the tokens of a sample and `d` its difference. The
standard error is the jackknife's for a ratio (Cochran, Sampling Techniques, chapter 6): how far the mean moves when one
sample is left out. With samples of equal length this is the paired t-test, and one long sample cannot make it small.

With several seeds the pairs are also by seed. Samples and seeds both vary, and their variances are added; the noise of
one sample under one seed counts in both, so the interval is rather too wide. With one seed the interval is about these
adapters only: another seed may move them further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, sqrt
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

from gridsweep.carbon.traces import Column
from gridsweep.sweep.losses import Losses

NORMAL = 500.0
"""From this many degrees of freedom on, Student's t is approximated by a normal distribution."""


Measured: TypeAlias = Losses | Mapping[int, Losses]
"""One experiment's losses, or those of its repeats by seed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One loss minus another, negative if the first is better. `mean` and `standard_error` in nats per token.

    `dof` are the degrees of freedom of the standard error, not necessarily whole. `samples` and `seeds` count those
    common to both. The standard error is infinite with a single sample.
    """

    mean: float
    standard_error: float
    dof: float
    samples: int
    seeds: int = 1

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the confidence interval (low, high) of the true difference."""
        reach = student(confidence, self.dof) * self.standard_error if self.standard_error else 0.0
        return self.mean - reach, self.mean + reach

    def separable(self, confidence: float = 0.95) -> bool:
        """Return whether the difference is significant: 0 lies outside the interval."""
        low, high = self.interval(confidence)
        return low > 0 or high < 0


def separable(a: Measured, b: Measured, confidence: float = 0.95) -> bool:
    """Return whether two experiments differ significantly. Raise as `difference` does."""
    return difference(a, b).separable(confidence)


def difference(a: Measured, b: Measured) -> Difference:
    """Return the loss of `a` minus that of `b`, over common seeds and samples.

    Raise `ValueError` without a common seed, if the samples differ, or if a loss is not finite.
    """
    first, second = _by_seed(a), _by_seed(b)
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError(f"seeds {sorted(first)} and {sorted(second)} have none in common; losses are paired by seed")
    tokens = first[seeds[0]].tokens
    for losses in (side[seed] for side in (first, second) for seed in seeds):
        if losses.tokens != tokens:
            raise ValueError("losses of different samples, or in a different order, cannot be paired")
        if not losses.finite:
            raise ValueError("a diverged experiment has no difference from another")
    counts = np.asarray(tokens, dtype=np.float64)
    weights = counts[counts > 0] / counts.sum()
    pairs = np.array([_counted(first[seed], counts) - _counted(second[seed], counts) for seed in seeds])
    mean, variance, dof = _over_samples(pairs.mean(axis=0), weights)
    if len(seeds) > 1:
        between = float((pairs @ weights).var(ddof=1)) / len(seeds)
        variance, dof = _added(variance, dof, between, len(seeds) - 1)
    return Difference(mean, sqrt(variance), dof, len(weights), len(seeds))


def _by_seed(measured: Measured) -> Mapping[int, Losses]:
    return {0: measured} if isinstance(measured, Losses) else measured


def _counted(losses: Losses, counts: Column) -> Column:
    """Return the losses of the samples that have tokens; the others have no loss."""
    values: Column = np.asarray(losses.values, dtype=np.float64)[counts > 0]
    return values


def _over_samples(pairs: Column, weights: Column) -> tuple[float, float, float]:
    """Return the weighted mean of the samples' differences, its variance, and the degrees of freedom.

    The effective number of samples is Kish's 1 / sum(w^2).
    """
    mean = float(weights @ pairs)
    if len(weights) < 2:
        return mean, inf, 1.0
    moved = weights * (pairs - mean) / (1 - weights)
    variance = float(moved @ moved) * (len(weights) - 1) / len(weights)
    return mean, variance, max(1.0, 1 / float(weights @ weights) - 1)


def _added(one: float, dof_one: float, other: float, dof_other: float) -> tuple[float, float]:
    """Return the sum of two variances with its degrees of freedom, after Satterthwaite."""
    total = one + other
    if not 0 < total < inf:
        return total, dof_one
    return total, 1 / ((one / total) ** 2 / dof_one + (other / total) ** 2 / dof_other)


@lru_cache(maxsize=1024)  # the same for all experiments on the same samples
def student(confidence: float, dof: float) -> float:
    """Return the two-sided quantile of Student's t: the standard errors from the mean to each end of the interval.

    With t = sqrt(dof) tan(u) the density becomes cos(u)^(dof - 1), which is integrated from 0 and inverted. Raise
    `ValueError` for a confidence outside 0 to 1, or less than 1 degree of freedom.
    """
    if not 0 < confidence < 1 or not dof >= 1:
        raise ValueError(f"no interval of confidence {confidence:g} with {dof:g} degrees of freedom")
    if dof >= NORMAL:
        return NormalDist().inv_cdf((1 + confidence) / 2)
    angles = np.linspace(0, np.pi / 2, 2049)
    density = np.cos(angles) ** (dof - 1)
    below = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    return sqrt(dof) * float(np.tan(np.interp(confidence, below / below[-1], angles)))
