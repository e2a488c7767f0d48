"""Confidence intervals of ranks: each experiment gets a range of places instead of one.

The lowest loss names a winner, but the first five of 21 experiments may lie closer together than their noise: then the
winner is a matter of chance, and a repeated sweep finds another. So an experiment is placed behind those that are
significantly better and before those that are significantly worse. Experiments that none significantly beats are tied
for the first place. Ties are not transitive: a with b and b with c says nothing about a with c, so ranges overlap.
After Mogstad, Romano, Shaikh and Wilhelm, Inference for Ranks (Review of Economic Studies, 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan, nan

from gridsweep.selection.many_differences import beaten
from gridsweep.selection.paired_differences import Difference, Measured, difference
from gridsweep.sweep.losses import Losses


@dataclass(frozen=True, slots=True)
class Place:
    """An experiment's range of places, `first` to `last`, from 1; `loss` in nats per token, NaN if it diverged."""

    experiment: str
    first: int
    last: int
    loss: float

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def places(scores: Mapping[str, Measured | None], confidence: float = 0.95, noise: float = 0.0) -> list[Place]:
    """Return every experiment with its range of places, best loss first.

    Each range contains the true place with this confidence, jointly over all comparisons (Bonferroni). A mean
    difference of at most `noise`, the effect of another seed, is not significant. Experiments without finite scores
    diverged and share the last places. Raise `ValueError` if scores cannot be paired.
    """
    losses, ranked = _ranked(scores)
    measured = {name: _scored(scores, name) for name in ranked}
    better, worse = beaten(measured, ranked, _each(confidence, len(ranked) - 1), noise)
    found = [
        Place(name, 1 + ahead, len(ranked) - behind, losses[name])
        for name, ahead, behind in zip(ranked, better, worse, strict=True)
    ]
    diverged = sorted(scores.keys() - set(ranked))
    return found + [Place(name, len(ranked) + 1, len(scores), nan) for name in diverged]


@dataclass(frozen=True, slots=True)
class BestAgainstLast:
    """The steps of the best and the last checkpoint, and the last one's loss minus the best's, nats per token."""

    best: int
    last: int
    difference: Difference
    confidence: float

    @property
    def overfitted(self) -> bool:
        """Whether the last checkpoint is significantly worse than the best."""
        return self.difference.interval(self.confidence)[0] > 0


def best_against_last(checkpoints: Mapping[int, Losses], confidence: float = 0.95) -> BestAgainstLast:
    """Compare the best with the last of an experiment's checkpoints, given by step.

    The best of many is partly luck, so the interval is widened for the number of comparisons (Bonferroni). Raise
    `ValueError` without a checkpoint, or if the last one is not finite.
    """
    if not checkpoints:
        raise ValueError("there is no checkpoint to compare")
    last = max(checkpoints)
    best = min((losses.mean if losses.finite else inf, step) for step, losses in checkpoints.items())[1]
    apart = difference(checkpoints[last], checkpoints[best])
    return BestAgainstLast(best, last, apart, _each(confidence, len(checkpoints) - 1))


def _ranked(scores: Mapping[str, Measured | None]) -> tuple[dict[str, float], list[str]]:
    """Return every experiment's loss, and the names of those that have one, best first."""
    losses = {name: _loss(measured) for name, measured in scores.items()}
    return losses, sorted((name for name in losses if not isnan(losses[name])), key=lambda name: (losses[name], name))


def _loss(measured: Measured | None) -> float:
    """Return the mean over an experiment's seeds; NaN if one diverged or there is none."""
    if measured is None:
        return nan
    repeats = [measured] if isinstance(measured, Losses) else list(measured.values())
    if not repeats or not all(losses.finite for losses in repeats):
        return nan
    return sum(losses.mean for losses in repeats) / len(repeats)


def _scored(scores: Mapping[str, Measured | None], name: str) -> Measured:
    measured = scores[name]
    assert measured is not None  # only experiments with a loss are ranked
    return measured


def _each(confidence: float, comparisons: int) -> float:
    """Return the confidence of each comparison such that all hold jointly (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, comparisons)
