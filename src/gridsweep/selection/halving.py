"""Successive halving: which experiments continue after a rung, and which stop there.

1. Synchronous (Jamieson and Talwalkar 2016): all active experiments are compared at the same step, on the same samples.
2. While the learning rate decays, a large rate looks worse halfway than at the end: the loss is noisy and settles only
   as the rate falls. Averaging the weights over some steps imitates that decay, so under `cosine` and `linear` the
   loss with averaged weights decides. Under `constant` the loss does not settle and averages lag: the raw loss decides.
3. Experiments tied with the last one kept are kept too: stopping one of two by chance saves little and may cost the
   winner. On a plateau all experiments are tied, so ties add at most a quarter of the places.
4. Places that are fixed stop too many where a sweep is flat, and too few where it is clear. `clear_cut` stops an
   experiment when it is clear that it will not win, and keeps at most a number.
5. Diverged experiments are stopped, even those in `always`: they have no usable weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, hypot, isfinite
from statistics import median

from gridsweep.selection.paired_differences import difference
from gridsweep.sweep.losses import Losses, ScoreName
from gridsweep.sweep.rungs import Rungs

TIE_ERRORS = 2.0
"""Two experiments are tied if their paired difference is within this many standard errors of 0 ..."""
TIE_SPREAD = 0.02
"""... and their scores are within this share of the distance between the median and the best."""
TIE_ROOM = 0.25
"""Ties add at most this share of the places, rounded up, so that a last rung of 3 has room for one."""
NEAR, ERRORS = 0.01, 1.645
"""An experiment is clearly behind where it is more than NEAR x (median - best) behind the best, by ERRORS errors."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of an experiment at a rung: losses in nats per token, lower is better.

    `value` is the primary score, the validation loss with averaged weights; `raw` is the loss of the raw weights, or a
    window of training losses on batches that all experiments share. None or not finite after divergence. `samples` are
    the losses behind the deciding score, on shared samples; without them only equal scores are tied.
    """

    value: float | None
    raw: float | None = None
    samples: Losses | None = None

    def known(self, by: ScoreName) -> float | None:
        """Return the score named `by`."""
        return self.value if by == "averaged" else self.raw

    def finite(self, by: ScoreName) -> float | None:
        """Return the score named `by`; None unless it is finite."""
        found = self.known(by)
        return found if found is not None and isfinite(found) else None


@dataclass(frozen=True, slots=True)
class Cut:
    """The decision at a rung; experiments are ordered best first, diverged ones last.

    `tied` were kept beyond the number because they are tied with the last one kept; `diverged` are among `stopped`.
    `disagreed` counts experiments among the best by the deciding score but not by the other one; None unless the other
    score is known for all that did not diverge.
    """

    kept: tuple[str, ...]
    stopped: tuple[str, ...]
    tied: tuple[str, ...]
    diverged: tuple[str, ...]
    disagreed: int | None
    decided_by: ScoreName


def cut(
    scores: Mapping[str, Score],
    keep: int,
    always: Collection[str] = (),
    *,
    by: ScoreName = "averaged",
    room: float = TIE_ROOM,
) -> Cut:
    """Keep the best `keep` of the active experiments, those tied with the last of them, and `always`.

    A tie requires a paired difference within two standard errors and a score within 2 % of (median - best). Ties are
    added in order up to the first distinct experiment, so no experiment continues while a better one is stopped;
    `room` is the share of `keep` that ties may add. Names in `always` count beyond `keep`. Equal scores are ordered by
    name. Raise `ValueError` for a `keep` below 1, a negative `room`, or samples that cannot be paired.
    """
    if keep < 1 or room < 0:
        raise ValueError(f"keep must be at least 1 and room for ties must not be negative, not {keep} and {room:g}")
    values = {name: found for name, score in scores.items() if (found := score.finite(by)) is not None}
    ranked = _ranked(values)
    best, tied = ranked[:keep], list[str]()
    if len(ranked) > keep:
        allowed = TIE_SPREAD * (median(values.values()) - values[ranked[0]])
        last = best[-1]
        for name in ranked[keep : keep + ceil(room * keep)]:
            if values[name] - values[last] > allowed or not _inseparable(scores[name], scores[last], by):
                break
            tied.append(name)
    chosen = {*best, *tied, *always}
    diverged = sorted(scores.keys() - values.keys())
    return Cut(
        kept=tuple(name for name in ranked if name in chosen),
        stopped=tuple(name for name in ranked if name not in chosen) + tuple(diverged),
        tied=tuple(tied),
        diverged=tuple(diverged),
        disagreed=_disagreed(scores, ranked, keep, "raw" if by == "averaged" else "averaged"),
        decided_by=by,
    )


def clear_cut(
    scores: Mapping[str, Score],
    most: int,
    always: Collection[str] = (),
    *,
    by: ScoreName = "averaged",
    drift: float,
    left: float,
    of: int,
) -> Cut:
    """Keep the experiments that may still win within 1 % of (median - best), at most the best `most`, and `always`.

    An experiment is stopped where its paired difference from the best, less 1 % of (median - best), exceeds 1.645 of
    its error: that of the samples, and `drift` x (median - best) x `left`, the share of all steps still to make, by
    which differences move on average until the end. Without samples the latter alone counts. The median is that of the
    `of` experiments with which the sweep began; those stopped earlier count as worse than all that are left. Raise
    `ValueError` for a `most` below 1, a negative `drift`, or samples that cannot be paired.
    """
    if most < 1 or not drift >= 0:
        raise ValueError(f"keep must be at least 1 and drift must not be negative, not {most} and {drift:g}")
    values = {name: found for name, score in scores.items() if (found := score.finite(by)) is not None}
    ranked = _ranked(values)
    kept: list[str] = []
    if ranked:
        spread = values[ranked[min((of - 1) // 2, len(ranked) - 1)]] - values[ranked[0]]
        moves = drift * spread * left
        for name in ranked[:most]:
            behind, error = _behind(scores[name], scores[ranked[0]], by)
            if behind - NEAR * spread <= ERRORS * hypot(error, moves):
                kept.append(name)
    chosen = {*kept, *always}
    diverged = sorted(scores.keys() - values.keys())
    return Cut(
        kept=tuple(name for name in ranked if name in chosen),
        stopped=tuple(name for name in ranked if name not in chosen) + tuple(diverged),
        tied=(),
        diverged=tuple(diverged),
        disagreed=_disagreed(scores, ranked, max(1, len(kept)), "raw" if by == "averaged" else "averaged"),
        decided_by=by,
    )


def at_rung(
    scores: Mapping[str, Score],
    rungs: Rungs,
    place: int,
    always: Collection[str] = (),
    *,
    by: ScoreName = "averaged",
    of: int,
) -> Cut:
    """Return the decision at the rung with this index, by the rule that `rungs` name, of a sweep of `of` experiments.

    Raise as `cut` and `clear_cut` do.
    """
    if rungs.drift is None:
        return cut(scores, rungs.keep[place], always, by=by)
    left = 1 - rungs.at[place]
    return clear_cut(scores, rungs.keep[place], always, by=by, drift=rungs.drift, left=left, of=of)


def promotable(
    reached: Sequence[Mapping[str, float | None]],
    promoted: Sequence[Collection[str]] = (),
    eta: float | Fraction = 3.0,
    always: Collection[str] = (),
) -> tuple[tuple[int, str], ...]:
    """Return the (rung, experiment) pairs that may continue at staggered rungs: highest rung first, best first.

    Use it only for experiments of unequal length or start (ASHA, Li et al. 2020): compared with earlier arrivals only,
    the winner is lost more often than in `cut`. `reached[i]` holds the score of each experiment that reached rung `i`,
    None or not finite after divergence; `promoted[i]` names those already promoted from it, and so does a score at the
    next rung. Of n scores the best n / eta continue, rounded down, and all of `always` that did not diverge. Raise
    `ValueError` for an `eta` of 1 or less.
    """
    if not eta > 1:
        raise ValueError(f"eta must be above 1, not {float(eta):g}: one of eta experiments continues")
    found: list[tuple[int, str]] = []
    for rung in reversed(range(len(reached))):
        gone = set(promoted[rung]) if rung < len(promoted) else set()
        if rung + 1 < len(reached):
            gone |= reached[rung + 1].keys()
        values = {name: score for name, score in reached[rung].items() if score is not None and isfinite(score)}
        ranked = _ranked(values)
        best = set(ranked[: floor(len(reached[rung]) / eta)]) | set(always)
        found += [(rung, name) for name in ranked if name in best - gone]
    return tuple(found)


def _behind(one: Score, best: Score, by: ScoreName) -> tuple[float, float]:
    """Return how far a score is behind the best, and the standard error of that; 0 without samples."""
    value, least = one.finite(by), best.finite(by)
    assert value is not None and least is not None  # only finite scores are ranked
    if one is best or one.samples is None or best.samples is None:
        return value - least, 0.0
    if not (one.samples.finite and best.samples.finite):
        return value - least, 0.0
    apart = difference(one.samples, best.samples)
    return apart.mean, apart.standard_error if isfinite(apart.standard_error) else 0.0


def _inseparable(one: Score, other: Score, by: ScoreName) -> bool:
    """Return whether two experiments are tied by their samples; without samples, whether their scores are equal."""
    if one.samples is None or other.samples is None or not (one.samples.finite and other.samples.finite):
        return one.finite(by) == other.finite(by)
    apart = difference(one.samples, other.samples)
    return abs(apart.mean) <= TIE_ERRORS * apart.standard_error


def _disagreed(scores: Mapping[str, Score], ranked: Sequence[str], keep: int, other: ScoreName) -> int | None:
    if any(scores[name].known(other) is None for name in ranked):
        return None
    finite = {name: found for name in ranked if (found := scores[name].finite(other)) is not None}
    return len(set(ranked[:keep]) - set(_ranked(finite)[:keep]))


def _ranked(values: Mapping[str, float]) -> list[str]:
    """Return the names, best first, equal ones by name."""
    return sorted(values, key=lambda name: (values[name], name))
