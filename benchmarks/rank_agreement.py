"""How far two rankings agree, and how much worse than the best the first of a ranking may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan

import numpy as np

from gridsweep.carbon.traces import Column
from gridsweep.selection.paired_differences import Measured, difference
from gridsweep.selection.rank_intervals import places


def regret_bound(scores: Mapping[str, Measured | None], confidence: float = 0.95) -> float:
    """How much worse than the truly best the one with the smallest loss may be, at most, nats a token.

    Holds with this probability, 0 for a single experiment. Raises `ValueError` if every experiment diverged.
    """
    ranked = [place.experiment for place in places(scores) if not isnan(place.loss)]
    if not ranked:
        raise ValueError("every experiment diverged; there is no best one")
    # The best one's comparisons with all others hold together (Bonferroni), and the truly best is among the others.
    each = 1 - (1 - confidence) / max(1, len(ranked) - 1)
    behind = (difference(scores[ranked[0]], scores[name]).interval(each)[1] for name in ranked[1:])
    return max((0.0, *behind))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation, -1 to 1; equal values share their mean rank, an infinite loss ranks last.

    NaN where one side does not vary. Raises `ValueError` for NaN values, other lengths, or fewer than two pairs.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{len(a)} and {len(b)} values: a correlation needs pairs, and two at least")
    if any(map(isnan, (*a, *b))):
        raise ValueError("NaN has no rank; write inf for an experiment that diverged")
    one, other = _ranks(a), _ranks(b)
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / scale if scale else nan


def _ranks(values: Sequence[float]) -> Column:
    """Mean ranks, less their mean."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks: Column = (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]
    ranks -= ranks.mean()
    return ranks
