"""How far a ranking can be trusted: places that a few samples and seeds cannot tell apart are one place.

The smallest loss names a winner, but of 21 experiments the first five may lie closer together than their noise: then
the winner's name is a draw, and who repeats the sweep finds another. So each experiment gets a range of places instead
of one: it lies behind those that are surely better and before those that are surely worse. Whom nobody surely beats is
in the tied set. "Tied" does not carry over, a with b and b with c says nothing of a with c: ranges overlap, and there
are no classes. After Mogstad, Romano, Shaikh and Wilhelm, Inference for Ranks (Review of Economic Studies, 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan

from gridsweep.selection.paired_differences import Difference, Measured, difference
from gridsweep.sweep.losses import Losses


@dataclass(frozen=True, slots=True)
class Place:
    """An experiment's places, `first` to `last`, both counted from 1; `loss` in nats a token, NaN if it diverged."""

    experiment: str
    first: int
    last: int
    loss: float

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def places(scores: Mapping[str, Measured | None], confidence: float = 0.95, noise: float = 0.0) -> list[Place]:
    """Every experiment with the places it may have, best loss first.

    Each range holds the experiment's true place with this probability: its comparisons with all others hold together
    (Bonferroni). A mean difference of at most `noise`, what another seed may move a loss by, separates nothing. An
    experiment without scores, or with one that is not finite, diverged: it shares the last places. Raises `ValueError`
    where scores cannot be paired.
    """
    losses, ranked = _ranked(scores)
    better = dict.fromkeys(ranked, 0)
    worse = dict.fromkeys(ranked, 0)
    for (name, other), apart in _differences(scores, ranked).items():
        if abs(apart.mean) > noise and apart.separable(_each(confidence, len(ranked) - 1)):
            ahead, behind = (name, other) if apart.mean < 0 else (other, name)
            better[behind] += 1
            worse[ahead] += 1
    found = [Place(name, 1 + better[name], len(ranked) - worse[name], losses[name]) for name in ranked]
    diverged = sorted(scores.keys() - set(ranked))
    return found + [Place(name, len(ranked) + 1, len(scores), nan) for name in diverged]


@dataclass(frozen=True, slots=True)
class BestAgainstLast:
    """The best checkpoint by its step, the last one, and the last one's loss less the best's, nats a token."""

    best: int
    last: int
    difference: Difference
    confidence: float

    @property
    def overfitted(self) -> bool:
        """Whether the last checkpoint is surely worse than the best."""
        return self.difference.interval(self.confidence)[0] > 0


def best_against_last(checkpoints: Mapping[int, Losses], confidence: float = 0.95) -> BestAgainstLast:
    """One experiment's checkpoints by step: its best against its last, and whether training on made it worse.

    The best of many is partly the luckiest: its own loss flatters it, and the interval is widened for as many looks
    (Bonferroni). Raises `ValueError` without a checkpoint, or where the last one is not finite.
    """
    if not checkpoints:
        raise ValueError("there is no checkpoint to compare")
    last = max(checkpoints)
    best = min((losses.mean if losses.finite else inf, step) for step, losses in checkpoints.items())[1]
    apart = difference(checkpoints[last], checkpoints[best])
    return BestAgainstLast(best, last, apart, _each(confidence, len(checkpoints) - 1))


def _ranked(scores: Mapping[str, Measured | None]) -> tuple[dict[str, float], list[str]]:
    """Every experiment's loss, and those that have one, best first."""
    losses = {name: _loss(measured) for name, measured in scores.items()}
    return losses, sorted((name for name in losses if not isnan(losses[name])), key=lambda name: (losses[name], name))


def _loss(measured: Measured | None) -> float:
    """The mean over an experiment's seeds; NaN if one diverged or there is none."""
    if measured is None:
        return nan
    repeats = [measured] if isinstance(measured, Losses) else list(measured.values())
    if not repeats or not all(losses.finite for losses in repeats):
        return nan
    return sum(losses.mean for losses in repeats) / len(repeats)


def _scored(scores: Mapping[str, Measured | None], name: str) -> Measured:
    measured = scores[name]
    assert measured is not None  # only what has a loss is ranked
    return measured


def _differences(scores: Mapping[str, Measured | None], ranked: Sequence[str]) -> dict[tuple[str, str], Difference]:
    """Each pair once, the one ranked before less the one behind it."""
    return {
        (name, other): difference(_scored(scores, name), _scored(scores, other))
        for i, name in enumerate(ranked)
        for other in ranked[i + 1 :]
    }


def _each(confidence: float, comparisons: int) -> float:
    """How sure each of several comparisons has to be so that all hold together."""
    return 1 - (1 - confidence) / max(1, comparisons)
