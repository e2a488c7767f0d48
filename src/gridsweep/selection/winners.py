"""The winner of a sweep, and means over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from gridsweep.state.standings import Standing
from gridsweep.state.state import State


def by_seed(state: State) -> dict[str, dict[int, Standing]]:
    """Return each experiment with a loss, with its repeats that have one, by seed; repeats are not keys."""
    found: dict[str, dict[int, Standing]] = {}
    final = state.sweep.retrained
    for standing in state.standings.values():
        experiment = standing.experiment
        if _loss(standing) is not None and (final is None or experiment.id != final.id):
            found.setdefault(experiment.repeats or experiment.id, {})[experiment.seed] = standing
    return {id: runs for id, runs in found.items() if _loss(state.standings[id]) is not None}


def winner(state: State) -> str | None:
    """Return the experiment with the lowest mean loss among those with the most seeds; None before any has a loss."""
    runs = by_seed(state)
    return _least(runs, _means(runs))


def _means(runs: Mapping[str, Mapping[int, Standing]]) -> dict[str, float]:
    """Return each experiment's mean loss over its seeds."""
    return {id: fmean(_last(s) for s in found.values()) for id, found in runs.items()}


def _least(runs: Mapping[str, Mapping[int, Standing]], means: Mapping[str, float]) -> str | None:
    return min(means, key=lambda id: (-len(runs[id]), means[id], id), default=None)


def _last(standing: Standing) -> float:
    loss = _loss(standing)
    assert loss is not None  # callers pass only experiments with a loss
    return loss


def _loss(standing: Standing | None) -> float | None:
    return standing.outcome.validation_loss if standing and standing.outcome and standing.status == "done" else None
