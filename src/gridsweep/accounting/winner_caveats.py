"""The caveats of the winner: it lies on an edge of the space, or an experiment was trained for too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from gridsweep.accounting.leaderboard import Row
from gridsweep.selection.paired_differences import difference, student
from gridsweep.selection.rank_intervals import best_against_last
from gridsweep.state.standings import Standing
from gridsweep.state.state import State
from gridsweep.sweep.axes import whole
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.search_space import Edge, edges, quantity

CONFIDENCE = 0.95


def winner_caveats(state: State, rows: Sequence[Row]) -> list[str]:
    """Return caveats on edges of the space that matter and on overfitting; none before all experiments have ended."""
    if not rows or rows[0].loss is None or state.left:
        return []
    tried = [s.experiment.params for s in state.standings.values()]
    best = state.standings[rows[0].experiment].experiment.params
    said = [f"The winner is on the edge of the space: {edge}." for edge in edges(best, tried) if matters(state, edge)]
    return said + [text for row in rows if (text := _overfitted(state.standings[row.experiment]))]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The loss at an edge minus the loss one value further in; `error` is its standard error, None if unknown."""

    mean: float
    error: float | None
    dof: float


def matters(state: State, edge: Edge) -> bool:
    """Return whether the values at an edge beat the next values inwards by more than the noise.

    Pairs of otherwise equal experiments are compared at the last step that both reached. The noise is the stated noise
    and, if losses per sample are known, the 95 % confidence interval of the mean difference. False if no pair was
    trained or no noise is known: there is no evidence then that a value beyond the edge is better.
    """
    pairs = _pairs(state, edge)
    if not pairs:
        return False
    mean, noise = fmean(pair.mean for pair in pairs), state.sweep.estimates.loss_noise
    errors = [pair.error for pair in pairs if pair.error is not None]
    known = len(errors) == len(pairs)
    if mean >= 0 or (noise is None and not known):
        return False
    reach = noise or 0.0
    if known:
        error = sqrt(sum(error**2 for error in errors)) / len(errors)
        reach = max(reach, student(CONFIDENCE, min(pair.dof for pair in pairs)) * error if error else 0.0)
    return -mean > reach


def _pairs(state: State, edge: Edge) -> list[_Pair]:
    trained = [s for s in state.standings.values() if s.experiment.repeats is None]
    tried = [s.experiment.params for s in state.standings.values() if edge.param in s.experiment.params.keys]
    values = sorted({quantity(params, edge.param) for params in tried})
    inner = values[-2] if edge.side == "largest" else values[1]
    by_point = {(s.experiment.params, s.experiment.seed, s.experiment.base): s for s in trained}
    found = []
    for standing in trained:
        e = standing.experiment
        if edge.param not in e.params.keys or quantity(e.params, edge.param) != edge.value:
            continue
        inside = int(inner) if whole(edge.param) else inner
        twin = by_point.get((e.params.having(**{edge.param: inside}), e.seed, e.base))
        if twin is not None and (pair := _pair(state, standing, twin)) is not None:
            found.append(pair)
    return found


def _pair(state: State, at_edge: Standing, inside: Standing) -> _Pair | None:
    """Return the comparison at the last stage that both reached; None if no common one has known losses."""
    first, second = _curve(state, at_edge), _curve(state, inside)
    for step in sorted(first.keys() & second.keys(), reverse=True):
        try:
            apart = difference(first[step], second[step])
        except ValueError:  # one diverged, or the samples differ
            continue
        return _Pair(apart.mean, apart.standard_error, apart.dof)
    losses = [s.outcome.validation_loss if s.outcome and s.status == "done" else None for s in (at_edge, inside)]
    return None if losses[0] is None or losses[1] is None else _Pair(losses[0] - losses[1], None, 1.0)


def _curve(state: State, standing: Standing) -> dict[float, Losses]:
    """Return an experiment's losses per sample, at each rung and at its end, by the stage's name."""
    found = {step: outcome.losses for step, outcome in standing.scores.items() if outcome.losses}
    if standing.status == "done" and standing.outcome and standing.outcome.losses:
        found[standing.step] = standing.outcome.losses
    return {state.sweep.level(standing.experiment, step): losses for step, losses in found.items()}


def _overfitted(standing: Standing) -> str:
    """Return a caveat if an experiment was significantly better at a rung than at its end; else an empty text."""
    judged = standing.outcome.judged if standing.outcome else None
    earlier = {step: o.losses for step, o in standing.scores.items() if o.losses and o.losses.finite}
    if judged is None or not earlier or any(losses.tokens != judged.tokens for losses in earlier.values()):
        return ""
    found = best_against_last({**earlier, standing.step: judged})
    if not found.overfitted:
        return ""
    low, high = found.difference.interval(found.confidence)
    return (
        f"{standing.experiment.id} overfits: its loss was lower at step {found.best} than at its end, by "
        f"{found.difference.mean:.4f} ({low:.4f} to {high:.4f}, averaged weights). Train it for fewer steps."
    )
