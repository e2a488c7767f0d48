"""Proposer of points based on Optuna."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any  # optuna is imported on use

from gridsweep.sweep.experiments import PARAMS, LoraParams

BEYOND = 4.0
"""Optuna may propose learning rates outside the tried range by this factor."""


class OptunaProposer:
    """Optuna's sampler (TPE) through ask and tell, over the tried values and learning rates around them.

    Seeded: the same points told in the same order lead to the same proposals. Rank, alpha and what else is varied (as
    one choice of all of it) are among the tried values; learning rate and dropout are continuous, of two digits.
    """

    def __init__(self, tried: Iterable[LoraParams], seed: int = 0):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._tried = optuna, sorted(tried)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, constant_liar=True)
        self._study = optuna.create_study(direction="minimize", sampler=sampler)
        self._more = sorted({params.more for params in self._tried}) or [()]
        self._space = self._around()

    def ask(self) -> LoraParams | None:
        """Return an untried point; None if 20 draws are all known."""
        for _ in range(20):
            drawn = self._study.ask(self._space).params
            more = self._more[drawn.get("more", 0)]
            point = LoraParams(drawn["r"], drawn["alpha"], _two_digits(drawn["lr"]), round(drawn["dropout"], 2), more)
            if point not in self._tried:
                self._tried.append(point)
                return point
        return None

    def tell(self, params: LoraParams, value: float) -> None:
        """Record the value of a point; a diverged point counts as a failed trial."""
        trial = self._optuna.trial
        ended = trial.TrialState.COMPLETE if isfinite(value) else trial.TrialState.FAIL
        if params.more not in self._more:
            return  # an experiment of a user's, with values of its own
        known: dict[str, Any] = {name: getattr(params, name) for name in PARAMS}
        if "more" in self._space:
            known["more"] = self._more.index(params.more)
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
        found = {
            "r": kinds.CategoricalDistribution(sorted({params.r for params in tried})),
            "alpha": kinds.CategoricalDistribution(sorted({params.alpha for params in tried})),
            "lr": kinds.FloatDistribution(min(rates) / BEYOND, max(rates) * BEYOND, log=True),
            "dropout": kinds.FloatDistribution(0.0, max(0.01, *(params.dropout for params in tried))),
        }
        if len(self._more) > 1:
            found["more"] = kinds.CategoricalDistribution(range(len(self._more)))
        return found


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")
