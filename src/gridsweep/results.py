"""The experiments beside one another: by loss, with what each cost; and what a hyperparameter does to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import inf, isfinite
from statistics import mean

from gridsweep.carbon import HOUR
from gridsweep.differences import Measured, difference
from gridsweep.ledger import Account, Ledger
from gridsweep.ranking import Place, places
from gridsweep.state import Standing, State
from gridsweep.sweep import PARAMS, Base


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment. `difference` is its loss less the baseline's; `tied` says that the best is not surely better.

    95 of 100 such intervals, `low` to `high`, hold the true difference for these adapters (another seed may move it
    further); `first` to `last` are the places it may hold, by paired differences on the validation samples. Of an
    experiment that a rung stopped `step` says where, and `saved_kwh` what the steps it did not make would have drawn.
    `averaged_loss` is that of its averaged weights.
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
    """The experiments by validation loss, then those that a rung stopped, furthest and best first, then the rest."""
    sweep = state.sweep
    base_standing = state.standings.get(sweep.baseline or "")
    reference = _loss(base_standing)
    order = sorted(state.standings.values(), key=_rank)
    held = _places(order)
    best = _loss(order[0]) if order else None
    noise = sweep.estimates.loss_noise
    rows = []
    for place, standing in enumerate(order, 1):
        loss, id = _loss(standing), standing.experiment.id
        account, attempts = book.experiments[id], [state.attempts[a] for a in standing.attempts]
        params = standing.experiment.params
        began = standing.first_running_at
        low, high = _interval(standing, base_standing)
        place_of = held.get(id)
        near = noise is not None and loss is not None and best is not None and loss - best <= noise
        rows.append(
            Row(
                place=place if loss is not None else None,
                experiment=id,
                r=params.r,
                alpha=params.alpha,
                lr=params.lr,
                dropout=params.dropout,
                tier=standing.experiment.tier,
                tier_reason=standing.experiment.reason,
                status=standing.status,
                loss=loss,
                difference=loss - reference if loss is not None and reference is not None else None,
                tied=near or (place_of is not None and place_of.first == 1),
                initial_loss=standing.outcome.initial_validation_loss if standing.outcome else None,
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
                first=place_of.first if place_of else None,
                last=place_of.last if place_of else None,
                averaged_loss=standing.outcome.averaged_validation_loss if standing.outcome else None,
                saved_kwh=_saved(standing, account, sweep.total_steps),
                base=standing.experiment.base,
            )
        )
    return tuple(rows)


def _rank(standing: Standing) -> tuple[int, float, float]:
    loss = _loss(standing)
    if loss is not None:
        return 0, loss, 0.0
    if standing.status == "stopped" and standing.scores:
        step = max(standing.scores)
        losses = standing.scores[step].losses
        return 1, -step, losses.mean if losses else inf
    return 2, 0.0, 0.0


def _places(order: Sequence[Standing]) -> dict[str, Place]:
    """The places that experiments may hold; none where their samples were not kept, or do not belong together."""
    scores: dict[str, Measured | None] = {
        s.experiment.id: s.outcome.losses for s in order if _loss(s) is not None and s.outcome and s.outcome.losses
    }
    try:
        return {place.experiment: place for place in places(scores)} if len(scores) > 1 else {}
    except ValueError:
        return {}


def _interval(standing: Standing, other: Standing | None) -> tuple[float, float] | tuple[None, None]:
    """That of a loss less the baseline's."""
    mine, base = (s.outcome.losses if s and s.outcome and _loss(s) is not None else None for s in (standing, other))
    if mine is None or base is None or mine is base:
        return None, None
    try:
        low, high = difference(mine, base).interval()
    except ValueError:
        return None, None
    return (low, high) if isfinite(low) and isfinite(high) else (None, None)


def _saved(standing: Standing, account: Account, total: int) -> float | None:
    """What the steps that a stopped experiment did not make would have drawn, by those it made."""
    if standing.status != "stopped" or not standing.step:
        return None
    return account.energy_kwh * (total - standing.step) / standing.step


def _loss(standing: Standing | None) -> float | None:
    return standing.outcome.validation_loss if standing and standing.outcome and standing.status == "done" else None


def _known(account: Account | None) -> float | None:
    """Emissions in g, None where part of the energy met an unknown intensity."""
    return account.emissions_g if account and not account.unknown_kwh else None


def effects(rows: Sequence[Row], noise: float | None) -> tuple[Effect, ...]:
    """For each hyperparameter and each pair of its values: the mean difference over otherwise equal experiments."""
    found = []
    done = {tuple(getattr(row, p) for p in PARAMS): row.loss for row in rows if row.loss is not None}
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
