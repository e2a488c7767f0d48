"""Who proposes points that join a running sweep: the rule that is built in, or Optuna."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from math import inf, isfinite
from typing import Any, Protocol

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import LoraParams
from gridsweep.sweep.search_space import edges, near_duplicates
from gridsweep.sweep.sweep import Sweep

BEYOND = 4.0
"""Optuna may propose learning rates so many times outside those that were tried."""


def proposers_for(sweep: Sweep) -> Proposers | None:
    """Who is asked for points, as the sweep says. Raises `SpecError` where Optuna is wanted and not installed."""
    if sweep.propose is None:
        return None
    if sweep.propose.by == "edge":
        return BeyondTheEdge
    if find_spec("optuna") is None:
        raise SpecError("propose: optuna needs the extra `optuna`: pip install 'gridsweep[optuna]', or propose: edge")
    return partial(OptunaProposer, seed=sweep.recipe.seed)


class OptunaProposer:
    """Optuna's sampler (TPE) through ask and tell, over the values that were tried and learning rates around them.

    Seeded: the same points told in the same order get the same proposals. Rank and alpha are among those tried;
    learning rate and dropout are drawn in between, to two digits.
    """

    def __init__(self, tried: Iterable[LoraParams], seed: int = 0):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._tried = optuna, sorted(tried)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
        self._study = optuna.create_study(direction="minimize", sampler=sampler)
        self._space = self._around()

    def ask(self) -> LoraParams | None:
        """A point that was not tried yet; None where none of some draws is new."""
        for _ in range(20):
            drawn = self._study.ask(self._space).params
            point = LoraParams(drawn["r"], drawn["alpha"], _two_digits(drawn["lr"]), round(drawn["dropout"], 2))
            if point not in self._tried:
                self._tried.append(point)
                return point
        return None

    def tell(self, params: LoraParams, value: float) -> None:
        """What became of a point; one that diverged counts as a failed trial."""
        trial = self._optuna.trial
        ended = trial.TrialState.COMPLETE if isfinite(value) else trial.TrialState.FAIL
        known = {name: getattr(params, name) for name in self._space}
        self._study.add_trial(
            trial.create_trial(
                state=ended,
                params=known,
                distributions=self._space,
                value=value if isfinite(value) else None,
            )
        )

    def _around(self) -> dict[str, Any]:
        kinds, tried = self._optuna.distributions, self._tried
        rates = [params.lr for params in tried]
        return {
            "r": kinds.CategoricalDistribution(sorted({params.r for params in tried})),
            "alpha": kinds.CategoricalDistribution(sorted({params.alpha for params in tried})),
            "lr": kinds.FloatDistribution(min(rates) / BEYOND, max(rates) * BEYOND, log=True),
            "dropout": kinds.FloatDistribution(0.0, max(0.01, *(params.dropout for params in tried))),
        }


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


Proposers = Callable[[Iterable[LoraParams]], Proposer]
"""Makes a proposer that knows which points were tried, and has been told of none yet."""


PREFERRED = ("lr", "alpha", "r", "dropout")
"""The learning rate first: it is what LoRA answers to most, and the rank matters little on small data."""


class Proposer(Protocol):
    """Proposes points of the space, one at a time."""

    def ask(self) -> LoraParams | None:
        """The next point to try, or None while there is none worth it."""

    def tell(self, params: LoraParams, value: float) -> None:
        """The value a point reached, the lower the better; NaN or infinite where it diverged."""


class BeyondTheEdge:
    """Proposes points beyond the edge of what was tried: the best point so far, one parameter further out.

    Nothing is drawn: the same points told, in whatever order, get the same proposals. A proposed point counts as tried
    from then on, so that several free places go different ways; one that nearly coincides with a tried point of its
    rank is passed over. Once the best point lies inside the space, there is nothing to propose.
    """

    def __init__(self, tried: Iterable[LoraParams] = ()):
        """`tried` are the sweep's points, told of already or not."""
        self._tried = set(tried)
        self._values: dict[LoraParams, list[float]] = {}

    def ask(self) -> LoraParams | None:
        best = self._best()
        if best is None:
            return None
        found = {edge.param: edge for edge in edges(best, sorted(self._tried))}
        for param in PREFERRED:
            if param in found:
                point = found[param].applied(best)
                if not self._known(point):
                    self._tried.add(point)
                    return point
        return None

    def tell(self, params: LoraParams, value: float) -> None:
        self._tried.add(params)
        self._values.setdefault(params, []).append(value)

    def _best(self) -> LoraParams | None:
        """The point with the least mean over its repeats; one of equal points, the first in order."""
        means = {params: _mean(values) for params, values in self._values.items()}
        best = min(means, key=lambda params: (means[params], params), default=None)
        return best if best is not None and means[best] < inf else None

    def _known(self, point: LoraParams) -> bool:
        return any(point == other or near_duplicates((point, other), same_rank=True) for other in self._tried)


def _mean(values: list[float]) -> float:
    """Infinite if one of them is: a point that diverged once is no winner. Sorted first, as sums depend on order."""
    return sum(sorted(values)) / len(values) if all(map(isfinite, values)) else inf
