"""The experiments beside one another: by loss, with what each cost; and what a hyperparameter does to the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from math import inf, isfinite
from statistics import mean, stdev

from gridsweep.accounting.ledger import Account, Ledger
from gridsweep.carbon.traces import HOUR
from gridsweep.selection.paired_differences import Measured, difference
from gridsweep.selection.rank_intervals import Place, places
from gridsweep.selection.winners import _last, _least, _loss, _means, by_seed
from gridsweep.state.standings import Standing
from gridsweep.state.state import State
from gridsweep.sweep.experiments import PARAMS, Base


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment. `difference` is its loss less the reference's; `tied` says that the best is not surely better.

    95 of 100 such intervals, `low` to `high`, hold the true difference for these adapters (another seed may move it
    further); `first` to `last` are the places it may hold, by paired differences and the stated noise. Of an
    experiment that a rung stopped `step` says where, and `saved_kwh` what the steps it did not make would have drawn.
    `averaged_loss` is that of its averaged weights. With `seeds` above 1 `loss` is the mean over so many seeds,
    `spread` their standard deviation, and differences are paired by seed as well. `repeats` names the experiment that
    this one repeats; it has no place of its own.
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


@dataclass(frozen=True, slots=True)
class Effect:
    """What changing one hyperparameter does to the loss, over pairs of experiments alike in all others."""

    param: str
    low: float
    high: float
    pairs: int
    difference: float
    separable: bool | None


def ranked(state: State, book: Ledger, base: Ledger | None) -> tuple[Row, ...]:
    """The experiments by validation loss, then those that a rung stopped, furthest and best first, then the rest.

    Those repeated come first: a loss that was the best of many is partly luck, and a mean over seeds is not to be
    compared with it. Repeats come after whoever has a loss.
    """
    losses = _losses(state)
    order = enumerate(losses.ordered(state), 1)
    return tuple(_row(state, losses, standing, place, book, base) for place, standing in order)


@dataclass(frozen=True, slots=True)
class _Losses:
    """What is known of the losses of a sweep, by experiment.

    `runs` are those with a loss, by seed, `means` over the seeds, `scores` sample by sample, `places` those each may
    hold. `first` has the least mean; differences are to `reference`. `final` was trained over the full base in the end.
    """

    runs: Mapping[str, Mapping[int, Standing]]
    means: Mapping[str, float]
    scores: Mapping[str, Measured]
    places: Mapping[str, Place]
    first: str | None
    reference: str | None
    final: str | None

    def ordered(self, state: State) -> list[Standing]:
        """All experiments, the best first."""
        return sorted(state.standings.values(), key=self.rank)

    def rank(self, standing: Standing) -> tuple[int, float, float]:
        """The key that experiments are ordered by; the one trained over the full base in the end stands first."""
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
        """The loss to show: a mean over seeds, but a repeat's own."""
        return _loss(standing) if standing.experiment.repeats else self.means.get(standing.experiment.id)

    def seeds(self, id: str) -> list[float]:
        """The loss with each seed."""
        return [_last(standing) for standing in self.runs.get(id, {}).values()]

    def difference(self, loss: float | None) -> float | None:
        """A loss less the reference's."""
        reference = self.means.get(self.reference or "")
        return loss - reference if loss is not None and reference is not None else None

    def tied(self, id: str) -> bool:
        """Whether an experiment may hold the first place as well as the best one."""
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
    """One experiment's row; `place` is its position in the order."""
    experiment, outcome = standing.experiment, standing.outcome
    id, params = experiment.id, experiment.params
    loss, seeds, range_ = losses.of(standing), losses.seeds(id), losses.places.get(id)
    judged = None if experiment.repeats else loss  # the losses of another base are no match for it
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
        saved_kwh=_saved(standing, account, state.sweep.total_steps),
        seeds=max(1, len(seeds)),
        spread=stdev(seeds) if len(seeds) > 1 else None,
        seed=experiment.seed,
        repeats=experiment.repeats,
        base=experiment.base,
    )


def _samples(runs: Mapping[int, Standing]) -> Measured | None:
    """Losses sample by sample, by seed; None where they were not kept."""
    kept = {seed: s.outcome.losses for seed, s in runs.items() if s.outcome and s.outcome.losses}
    return kept if len(kept) == len(runs) else None


def _places(
    scores: Mapping[str, Measured], means: Mapping[str, float], order: Sequence[str], noise: float | None
) -> dict[str, Place]:
    """The places that experiments may hold, each around the place it is listed at.

    Two experiments are apart where their paired difference is sure and above the stated noise of the loss; without
    losses of the samples the noise alone decides. Empty where neither is known for all of them.
    """
    found: list[Place] = []
    if len(means) > 1 and scores.keys() == means.keys():
        try:
            found = places(scores, noise=noise or 0.0)
        except ValueError:
            found = []
    if not found and noise is not None:
        found = [_by_noise(id, means, noise) for id in means]
    listed = {id: place for place, id in enumerate(order, 1)}
    ahead = min((listed[id] for id in means), default=1) - 1  # the one trained again over the full base stands first
    return {
        place.experiment: replace(
            place,
            first=min(place.first + ahead, listed[place.experiment]),
            last=max(place.last + ahead, listed[place.experiment]),
        )
        for place in found
    }


def _by_noise(id: str, means: Mapping[str, float], noise: float) -> Place:
    """The places of one experiment where only a difference above the noise counts."""
    better = sum(means[id] - other > noise for other in means.values())
    worse = sum(other - means[id] > noise for other in means.values())
    return Place(id, 1 + better, len(means) - worse, means[id])


def _interval(scores: Mapping[str, Measured], id: str, other: str | None) -> tuple[float | None, float | None]:
    """That of a loss less another's."""
    if other is None or id == other or not {id, other} <= scores.keys():
        return None, None
    try:
        low, high = difference(scores[id], scores[other]).interval()
    except ValueError:
        return None, None
    return (low, high) if isfinite(low) and isfinite(high) else (None, None)


def _saved(standing: Standing, account: Account, total: int) -> float | None:
    """What the steps that a stopped experiment did not make would have drawn, by those it made."""
    if standing.status != "stopped" or not standing.step:
        return None
    return account.energy_kwh * (total - standing.step) / standing.step


def _known(account: Account | None) -> float | None:
    """Emissions in g, None where part of the energy met an unknown intensity."""
    return account.emissions_g if account and not account.unknown_kwh else None


@dataclass(frozen=True, slots=True)
class Parting:
    """The best's loss less the baseline's at the last rung that both came to, by the score of rungs: nats a token."""

    step: int
    difference: float
    low: float
    high: float


def parted(state: State, best: str | None) -> Parting | None:
    """How the best stood to a baseline that a rung stopped; None where it was not stopped, or nobody knows."""
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
    """For each hyperparameter and each pair of its values: the mean difference over otherwise equal experiments."""
    found = []
    done = {
        tuple(getattr(row, p) for p in PARAMS): row.loss for row in rows if row.loss is not None and row.repeats is None
    }
    for axis, param in enumerate(PARAMS):
        levels = sorted({point[axis] for point in done})
        for low, high in pairwise(levels):
            pairs = [
                loss - done[twin]
                for point, loss in done.items()
                if point[axis] == high and (twin := (*point[:axis], low, *point[axis + 1 :])) in done
            ]
            if pairs:
                change = mean(pairs)
                separable = None if noise is None else abs(change) > noise
                found.append(Effect(param, low, high, len(pairs), change, separable))
    return tuple(found)
