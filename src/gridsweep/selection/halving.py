"""Successive halving: which experiments go on from a rung, and which stop there.

1. Synchronous (Jamieson and Talwalkar 2016): everybody alive is compared at the same step, on the same samples.
2. While a learning rate decays, a large one looks worse at half-time than it ends: the loss is noisy and settles only
   as the rate falls. Averaging the weights over some steps stands in for that decay, so under `cosine` and `linear` the
   loss with averaged weights decides. Under `constant` nothing settles and averages lag: there the raw loss does.
3. Whoever cannot be told from the last one kept is kept with it: to stop one of two by chance saves little and may
   cost the winner. On a plateau everybody is tied, therefore a rung keeps at most a quarter more than it should.
4. Whoever diverged is stopped, named or not: there are no weights left to go on from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isfinite
from statistics import median

from gridsweep.selection.paired_differences import difference
from gridsweep.sweep.losses import DECIDES, Losses, ScoreName

TIE_ERRORS = 2.0
"""Two are tied while their paired difference is within so many standard errors of 0 ..."""
TIE_SPREAD = 0.02
"""... and their scores within this share of what lies between the median and the best."""
TIE_ROOM = 0.25
"""Ties add at most this share of the places, rounded up, so that a last rung of 3 has room for one."""


def which_score(schedule: str) -> ScoreName:
    """The score that decides under a learning-rate schedule; raises `ValueError` for one that is not known."""
    if schedule not in DECIDES:
        raise ValueError(f"no learning-rate schedule {schedule!r}; there are {', '.join(DECIDES)}")
    return DECIDES[schedule]


@dataclass(frozen=True, slots=True)
class Score:
    """How an experiment stands at a rung: losses, nats a token, the lower the better.

    `value` is the primary score, the validation loss with averaged weights; `raw` that of the weights as they are, or a
    window of training losses on batches all share. None or not finite where it diverged. `samples` are the losses
    behind the score that decides, on samples all experiments share; without them only equal scores are tied.
    """

    value: float | None
    raw: float | None = None
    samples: Losses | None = None

    def known(self, by: ScoreName) -> float | None:
        """The one of the two by which is asked."""
        return self.value if by == "averaged" else self.raw

    def finite(self, by: ScoreName) -> float | None:
        """The same, None where it is no finite number."""
        found = self.known(by)
        return found if found is not None and isfinite(found) else None


@dataclass(frozen=True, slots=True)
class Cut:
    """What a rung decided; experiments that diverged are last, of the others the best come first.

    `tied` were kept beyond the number because they cannot be told from the last one kept; `diverged` are among
    `stopped`. `disagreed` counts those among the best by the score that decided that are not by the other one, None
    where that one is not known of everybody who did not diverge.
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
    """Keep the best `keep` of the experiments alive, whoever is tied with the last of them, and `always`.

    A tie needs both: a paired difference within two standard errors, and a score within 2 % of (median - best). Ties
    are taken in order and end at the first that can be told apart, so that nobody goes on while a better one is
    stopped; `room` is the share of `keep` they may add. Names in `always` count beyond `keep`. Equal scores are ordered
    by name. Raises `ValueError` for a `keep` below 1, a negative `room`, or samples that cannot be paired.
    """
    if keep < 1 or room < 0:
        raise ValueError(f"a rung keeps one experiment at least and room for ties is no debt: {keep}, {room:g}")
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


def promotable(
    reached: Sequence[Mapping[str, float | None]],
    promoted: Sequence[Collection[str]] = (),
    eta: float | Fraction = 3.0,
    always: Collection[str] = (),
) -> tuple[tuple[int, str], ...]:
    """Who may go on from which rung, where experiments do not reach it together: the highest rung first, best first.

    For uneven experiments only, of other lengths or started apart (ASHA, Li et al. 2020): judged by whoever came before
    them, the winner is lost more often than in `cut`. `reached[i]` holds the score of everybody who reached rung `i`,
    None or not finite where it diverged; `promoted[i]` names who went on from it already, as whoever has a score at
    the next rung did. Of n scores the best n / eta go on, rounded down, and so does whoever of `always` did not
    diverge. Raises `ValueError` for an `eta` of 1 or less.
    """
    if not eta > 1:
        raise ValueError(f"of {float(eta):g} experiments one goes on: eta has to be above 1")
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


def _inseparable(one: Score, other: Score, by: ScoreName) -> bool:
    """Whether two experiments' samples leave open which is better; without samples, whether the scores are equal."""
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
    """The best first, equal ones by name."""
    return sorted(values, key=lambda name: (values[name], name))
