"""The leaderboard: experiments by loss, the cost of each, and the effect of each hyperparameter on the loss."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from math import inf, isfinite
from statistics import mean, stdev
from typing import Any  # values of any axis

from gridsweep.accounting.ledger import Account, Ledger
from gridsweep.carbon.traces import HOUR
from gridsweep.selection.paired_differences import Measured, difference
from gridsweep.selection.rank_intervals import Place, places
from gridsweep.selection.winners import _last, _least, _loss, _means, by_seed
from gridsweep.state.standings import Standing
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Base, LoraParams, Setting


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment. `difference` is its loss minus the reference's; `tied`: the best is not significantly better.

    `low` to `high` is the 95 % confidence interval of the difference for these adapters (another seed may move it
    further); `first` to `last` is the range of possible places, by paired differences and the stated noise. For an
    experiment stopped at a rung, `step` is the step of that rung and `saved_kwh` the estimated energy of the remaining
    steps. `averaged_loss` is the loss of the averaged weights. With `seeds` above 1, `loss` is the mean over the seeds,
    `spread` their standard deviation, and differences are also paired by seed. `repeats` names the experiment that
    this one repeats; a repeat has no place of its own. `more` are the values of further axes.
    """

    place: int | None
    experiment: str
    r: int
    alpha: float
    lr: float
    dropout: float
    tier: str
    tier_reason: str
    status: str
    loss: float | None
    difference: float | None
    tied: bool
    initial_loss: float | None
    energy_kwh: float
    mean_intensity: float | None
    emissions_g: float
    immediate_g: float | None
    unknown_kwh: float
    wait_h: float | None
    started_at: datetime | None
    ended_at: datetime | None
    device: str | None
    attempts: int
    why: str
    reason: str
    step: int = 0
    low: float | None = None
    high: float | None = None
    first: int | None = None
    last: int | None = None
    averaged_loss: float | None = None
    saved_kwh: float | None = None
    seeds: int = 1
    spread: float | None = None
    seed: int | None = None
    repeats: str | None = None
    base: Base = "full"
    more: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def params(self) -> LoraParams:
        """The point of the space."""
        return LoraParams(self.r, self.alpha, self.lr, self.dropout, tuple(sorted(self.more.items())))


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of one hyperparameter on the loss, over pairs of experiments equal in all others.

    On an axis of words, `low` and `high` are two of them in the order of the alphabet.
    """

    param: str
    low: Setting
    high: Setting
    pairs: int
    difference: float
    separable: bool | None


def ranked(state: State, book: Ledger, base: Ledger | None) -> tuple[Row, ...]:
    """Return the experiments by validation loss, then those stopped at a rung (furthest and best first), then the rest.

    Experiments with repeats come first: the best of many single losses is partly luck, so a mean over seeds is not
    compared with one. Repeats come after all other experiments with a loss.
    """
    losses = _losses(state)
    order = enumerate(losses.ordered(state), 1)
    return tuple(_row(state, losses, standing, place, book, base) for place, standing in order)


@dataclass(frozen=True, slots=True)
class _Losses:
    """The losses of a sweep, by experiment.

    `runs` are the runs with a loss, by seed; `means` the means over the seeds; `scores` the losses per sample; `places`
    the possible places. `first` is the experiment with the lowest mean; differences are to `reference`. `final` is the
    experiment retrained over the full base.
    """

    runs: Mapping[str, Mapping[int, Standing]]
    means: Mapping[str, float]
    scores: Mapping[str, Measured]
    places: Mapping[str, Place]
    first: str | None
    reference: str | None
    final: str | None

    def ordered(self, state: State) -> list[Standing]:
        """Return all experiments, best first."""
        return sorted(state.standings.values(), key=self.rank)

    def rank(self, standing: Standing) -> tuple[int, float, float]:
        """Return the sort key of an experiment; the one retrained over the full base comes first."""
        id = standing.experiment.id
        if id == self.final and _loss(standing) is not None:
            return -1, 0.0, 0.0
        if standing.experiment.repeats is not None:
            return (1, 0.0, 0.0) if _loss(standing) is not None else (3, 0.0, 0.0)
        if id in self.means:
            return 0, -len(self.runs[id]), self.means[id]
        if standing.status == "stopped" and standing.scores:
            step = max(standing.scores)
            losses = standing.scores[step].losses
            return 2, -step, losses.mean if losses else inf
        return 3, 0.0, 0.0

    def of(self, standing: Standing) -> float | None:
        """Return the loss to show: the mean over seeds, or a repeat's own loss."""
        return _loss(standing) if standing.experiment.repeats else self.means.get(standing.experiment.id)

    def seeds(self, id: str) -> list[float]:
        """Return the loss with each seed."""
        return [_last(standing) for standing in self.runs.get(id, {}).values()]

    def difference(self, loss: float | None) -> float | None:
        """Return a loss minus the reference's."""
        reference = self.means.get(self.reference or "")
        return loss - reference if loss is not None and reference is not None else None

    def tied(self, id: str) -> bool:
        """Return whether an experiment is tied with the best one."""
        place = self.places.get(id)
        return place is not None and place.first == self.places[self.first or id].first


def _losses(state: State) -> _Losses:
    sweep, runs = state.sweep, by_seed(state)
    means = _means(runs)
    scores = {id: scored for id, found in runs.items() if (scored := _samples(found)) is not None}
    first = _least(runs, means)
    known = _Losses(
        runs=runs,
        means=means,
        scores=scores,
        places={},
        first=first,
        reference=sweep.baseline if sweep.baseline in means else first,
        final=sweep.retrained.id if sweep.retrained else None,
    )
    order = [standing.experiment.id for standing in known.ordered(state)]
    return replace(known, places=_places(scores, means, order, sweep.estimates.loss_noise))


def _row(state: State, losses: _Losses, standing: Standing, place: int, book: Ledger, base: Ledger | None) -> Row:
    """Return one experiment's row; `place` is its position in the order."""
    experiment, outcome = standing.experiment, standing.outcome
    id, params = experiment.id, experiment.params
    loss, seeds, range_ = losses.of(standing), losses.seeds(id), losses.places.get(id)
    judged = None if experiment.repeats else loss  # losses over another base are not comparable
    low, high = _interval(losses.scores, id, losses.reference)
    account, attempts = book.experiments[id], [state.attempts[a] for a in standing.attempts]
    began = state.start_of(id)
    return Row(
        place=place if judged is not None or (id == losses.final and loss is not None) else None,
        experiment=id,
        r=params.r,
        alpha=params.alpha,
        lr=params.lr,
        dropout=params.dropout,
        tier=experiment.tier,
        tier_reason=experiment.reason,
        status=standing.status,
        loss=loss,
        difference=losses.difference(judged),
        tied=losses.tied(id),
        initial_loss=outcome.initial_validation_loss if outcome else None,
        energy_kwh=account.energy_kwh,
        mean_intensity=account.mean_intensity,
        emissions_g=account.emissions_g,
        immediate_g=_known(base.experiments.get(id)) if base else None,
        unknown_kwh=account.unknown_kwh,
        wait_h=max(0.0, (began - state.submitted_at) / HOUR) if began else None,
        started_at=began,
        ended_at=standing.ended_at,
        device=attempts[-1].device if attempts else None,
        attempts=len(attempts),
        why=attempts[0].why if attempts else standing.why,
        reason=standing.reason,
        step=standing.step,
        low=low,
        high=high,
        first=range_.first if range_ else None,
        last=range_.last if range_ else None,
        averaged_loss=outcome.averaged_validation_loss if outcome else None,
        saved_kwh=_saved(standing, account, state.sweep.total_of(experiment)),
        seeds=max(1, len(seeds)),
        spread=stdev(seeds) if len(seeds) > 1 else None,
        seed=experiment.seed,
        repeats=experiment.repeats,
        base=experiment.base,
        more=dict(params.more),
    )


def _samples(runs: Mapping[int, Standing]) -> Measured | None:
    """Return the losses per sample, by seed; None if they were not kept."""
    kept = {seed: s.outcome.losses for seed, s in runs.items() if s.outcome and s.outcome.losses}
    return kept if len(kept) == len(runs) else None


def _places(
    scores: Mapping[str, Measured], means: Mapping[str, float], order: Sequence[str], noise: float | None
) -> dict[str, Place]:
    """Return the possible places of each experiment; each range includes the place at which it is listed.

    Two experiments are distinct if their paired difference is significant and above the stated noise of the loss;
    without losses per sample the noise alone decides. Empty if neither is known for all of them.
    """
    found: list[Place] = []
    if len(means) > 1 and scores.keys() == means.keys():
        try:
            found = places(scores, noise=noise or 0.0)
        except ValueError:
            found = []
    if not found and noise is not None:
        found = _by_noise(means, noise)
    listed = {id: place for place, id in enumerate(order, 1)}
    ahead = min((listed[id] for id in means), default=1) - 1  # the experiment retrained over the full base comes first
    return {
        place.experiment: replace(
            place,
            first=min(place.first + ahead, listed[place.experiment]),
            last=max(place.last + ahead, listed[place.experiment]),
        )
        for place in found
    }


def _by_noise(means: Mapping[str, float], noise: float) -> list[Place]:
    """Return the possible places of the experiments if only differences above the noise count.

    The losses are sorted, so that those that differ enough from one begin (end) at a place found by bisection: a
    difference of floats never falls while its first number rises.
    """
    ordered = sorted(loss for loss in means.values() if loss == loss)
    return [
        Place(
            id,
            1 + bisect_left(ordered, True, key=lambda other: not loss - other > noise),
            len(means) - len(ordered) + bisect_left(ordered, True, key=lambda other: other - loss > noise),
            loss,
        )
        for id, loss in means.items()
    ]


def _interval(scores: Mapping[str, Measured], id: str, other: str | None) -> tuple[float | None, float | None]:
    """Return the confidence interval of the difference between two losses; None, None if unknown."""
    if other is None or id == other or not {id, other} <= scores.keys():
        return None, None
    try:
        low, high = difference(scores[id], scores[other]).interval()
    except ValueError:
        return None, None
    return (low, high) if isfinite(low) and isfinite(high) else (None, None)


def _saved(standing: Standing, account: Account, total: int) -> float | None:
    """Return the energy that a stopped experiment's remaining steps would have used, kWh, from the steps made."""
    if standing.status != "stopped" or not standing.step:
        return None
    return account.energy_kwh * (total - standing.step) / standing.step


def _known(account: Account | None) -> float | None:
    """Return emissions in g; None if part of the energy was used at unknown intensity."""
    return account.emissions_g if account and not account.unknown_kwh else None


@dataclass(frozen=True, slots=True)
class Parting:
    """The best's loss minus the baseline's at the last rung that both reached, by the rungs' score, nats per token."""

    step: int
    difference: float
    low: float
    high: float


def parted(state: State, best: str | None) -> Parting | None:
    """Return the difference between the best and a baseline stopped at a rung; None if not stopped, or unknown."""
    base, first = (state.standings.get(id or "") for id in (state.sweep.baseline, best))
    if base is None or first is None or base.status != "stopped":
        return None
    steps = [step for step in base.scores if step in first.scores]
    losses = [s.scores[max(steps)].losses for s in (first, base)] if steps else []
    if len(losses) < 2 or losses[0] is None or losses[1] is None or not (losses[0].finite and losses[1].finite):
        return None
    apart = difference(losses[0], losses[1])
    return Parting(max(steps), apart.mean, *apart.interval())


def effects(rows: Sequence[Row], noise: float | None) -> tuple[Effect, ...]:
    """Return, for each hyperparameter and adjacent values, the mean difference over otherwise equal experiments."""
    found = []
    done = {row.params: row.loss for row in rows if row.loss is not None and row.repeats is None}
    for param in dict.fromkeys(key for point in done for key in point.keys):
        levels: dict[Any, list[LoraParams]] = {}
        for point in done:
            if param in point.keys:
                levels.setdefault(point.value(param), []).append(point)
        for low, high in pairwise(sorted(levels)):
            pairs = [
                done[point] - done[twin] for point in levels[high] if (twin := point.having(**{param: low})) in done
            ]
            if pairs:
                change = mean(pairs)
                separable = None if noise is None else abs(change) > noise
                found.append(Effect(param, low, high, len(pairs), change, separable))
    return tuple(found)
