"""The results of a back-test by policy: means over the starts, compared with the bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon.traces import HOUR, Column
from gridsweep.optima import Optimum

SECOND = timedelta(seconds=1)


NEGLIGIBLE = 1e-6
"""If the optimum saves no larger share than this, no share of the bound is stated."""


@dataclass(frozen=True, slots=True)
class StartResult:
    """One sweep run from one start instant. `starts` are the starts of all attempts, in order of time.

    `late_starts` and `late_ends` count experiments that started after their latest start and ended after `finish_by`.
    `unknown_kwh` were used in hours of unknown intensity, which the emissions leave out.
    """

    emissions_g: float
    energy_kwh: float
    makespan_h: float
    late_starts: int
    pauses: int
    starts: tuple[datetime, ...]
    late_ends: int = 0
    unknown_kwh: float = 0.0

    @property
    def in_time(self) -> bool:
        """Whether all deadlines held."""
        return not (self.late_starts or self.late_ends)


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """The results of a policy over all starts; reductions are against `immediate` on the same devices.

    `late_starts` and `late_ends` count experiments over all starts. `bound_reduction` is the reduction of the optimum
    under the same rules (`pauses_mean` 0: without pauses). `share_of_bound` is the share of it that the policy reached
    over the starts at which it missed no deadline, since the optimum misses none. Both are None if no bound is known,
    the share also if the optimum is negligible or every start missed a deadline.
    `never_waited` is the share of starts at which the policy ran all work at once, `reduction_waited` the reduction
    over the others.
    """

    name: str
    emissions_g_mean: float
    reduction: float
    reduction_p10: float
    reduction_p50: float
    reduction_p90: float
    makespan_h_mean: float
    makespan_h_p90: float
    late_starts: int
    kwh_mean: float = 0.0
    pauses_mean: float = 0.0
    never_waited: float = 0.0
    reduction_waited: float | None = None
    bound_reduction: float | None = None
    share_of_bound: float | None = None
    late_ends: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """The optimum, as means over the `starts` at which all deadlines can be met.

    If not `proven`, the optimum may be a little lower for some starts; with rungs, a little higher.
    """

    starts: int
    emissions_g_mean: float
    reduction: float
    makespan_h_mean: float
    proven: bool


def compared(
    name: str, outcomes: Sequence[StartResult], atonce: Sequence[StartResult], best: Sequence[Optimum | None]
) -> PolicyResult:
    """Return a policy's results against running at once and the optimum; each sequence has one element per start."""
    emissions, base = _grams(outcomes), _grams(atonce)
    hours = np.array([outcome.makespan_h for outcome in outcomes])
    each = 1 - np.divide(emissions, base, out=np.ones_like(base), where=base > 0)
    p10, p50, p90 = (float(p) for p in np.percentile(each, (10, 50, 90)))
    waited = np.array([_waited(a.starts, b.starts) for a, b in zip(outcomes, atonce, strict=True)])
    known = np.array([found is not None for found in best])
    possible = _less(np.array([found.emissions_g for found in best if found]), base[known]) if known.any() else None
    return PolicyResult(
        name=name,
        emissions_g_mean=float(emissions.mean()),
        reduction=_less(emissions, base),
        reduction_p10=p10,
        reduction_p50=p50,
        reduction_p90=p90,
        makespan_h_mean=float(hours.mean()),
        makespan_h_p90=float(np.percentile(hours, 90)),
        late_starts=sum(outcome.late_starts for outcome in outcomes),
        kwh_mean=float(np.mean([outcome.energy_kwh for outcome in outcomes])),
        pauses_mean=float(np.mean([outcome.pauses for outcome in outcomes])),
        never_waited=float(1 - waited.mean()),
        reduction_waited=_less(emissions[waited], base[waited]) if waited.any() else None,
        bound_reduction=possible,
        share_of_bound=_share(outcomes, base, best),
        late_ends=sum(outcome.late_ends for outcome in outcomes),
    )


def _share(outcomes: Sequence[StartResult], base: Column, best: Sequence[Optimum | None]) -> float | None:
    """Return how much of the optimum's saving was reached over the starts whose deadlines held; None if negligible."""
    fair = [
        (each.emissions_g, found.emissions_g) if found and each.in_time else None
        for each, found in zip(outcomes, best, strict=True)
    ]
    kept = np.array([pair is not None for pair in fair])
    if not kept.any():
        return None
    emissions, least = np.array([pair for pair in fair if pair is not None]).T
    possible = _less(least, base[kept])
    return _less(emissions, base[kept]) / possible if possible > NEGLIGIBLE else None


def _bound(starts: Sequence[datetime], best: Sequence[Optimum | None], atonce: Sequence[StartResult]) -> Bound | None:
    found = [(start, of, plain) for start, of, plain in zip(starts, best, atonce, strict=True) if of is not None]
    if not found:
        return None
    emissions = np.array([of.emissions_g for _, of, _ in found])
    return Bound(
        starts=len(found),
        emissions_g_mean=float(emissions.mean()),
        reduction=_less(emissions, _grams([plain for *_, plain in found])),
        makespan_h_mean=float(np.mean([(of.finish - start) / HOUR for start, of, _ in found])),
        proven=all(of.proven for _, of, _ in found),
    )


def _grams(outcomes: Sequence[StartResult]) -> Column:
    return np.array([outcome.emissions_g for outcome in outcomes])


def _less(emissions: Column, base: Column) -> float:
    """Return the share by which one sum is below another; 0 if the other is 0."""
    total = float(base.sum())
    return 1 - float(emissions.sum()) / total if total > 0 else 0.0


def _waited(starts: Sequence[datetime], atonce: Sequence[datetime]) -> bool:
    """Return whether any start is later than when running at once."""
    return len(starts) != len(atonce) or any(a - b > SECOND for a, b in zip(starts, atonce, strict=True))
