"""A state without what a status does not need, as a value: folding goes on from it.

`thaw(freeze(state))` shows the same status as `state`, and so do both after the same further events: no fold reads what
is left out (the energy and the losses per sample, which are most of a journal; rankings, the sweep's own additions and
what the plan promised). A thawed state has a status only: no report, no decision and no run may be made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from gridsweep.carbon.readings import Provenance
from gridsweep.state.asks import Asks
from gridsweep.state.collected import Collected
from gridsweep.state.constants import Constants
from gridsweep.state.events import Added
from gridsweep.state.observed_grid import Grid, Marked
from gridsweep.state.standings import Attempt, Standing, Status
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked
from gridsweep.sweep.stints import Outcome
from gridsweep.sweep.sweep import Sweep

How: TypeAlias = Literal["done", "reached", "stopped", "paused", "failed"]


@dataclass(frozen=True, slots=True)
class FrozenStanding:
    """A standing by its experiment's id; of its outcome the status, the step and the validation loss."""

    id: str
    submitted_at: datetime
    ready_at: datetime
    status: Status
    step: int
    until: datetime | None
    why: str
    reason: str
    first_running_at: datetime | None
    ended_at: datetime | None
    fruitless: int
    attempts: tuple[str, ...]
    loss: float | None
    latest_start: datetime | None
    outcome: tuple[How, int, float | None] | None


@dataclass(frozen=True, slots=True)
class FrozenAsks:
    """What users have asked, each request once; the others are places in `requests`.

    A request names up to thousands of experiments, and each of them refers to it.
    """

    requests: tuple[Asked, ...]
    taken: tuple[tuple[str, int], ...]
    paused: tuple[tuple[str, int], ...]
    held: tuple[tuple[str, int], ...]
    soon: tuple[tuple[str, int], ...]
    cancelled: tuple[tuple[str, int], ...]
    stop: str


@dataclass(frozen=True, slots=True)
class Frozen:
    """A state, frozen. `standings` and `attempts` are in their order, `active` are ids of attempts."""

    sweep: Sweep
    submitted_at: datetime
    now: datetime | None
    folded: int
    epoch: int
    patience: timedelta | None
    stopping: str
    halted: str
    refused: bool
    constants: Constants
    standings: tuple[FrozenStanding, ...]
    attempts: tuple[Attempt, ...]
    active: tuple[str, ...]
    tries: dict[str, int]
    paces: tuple[float, ...]
    early_losses: tuple[tuple[tuple[str, ...], str], ...]
    asks: FrozenAsks
    additions: tuple[Added, ...]
    provenances: tuple[Provenance, ...]
    grid: Marked | None
    collected: Collected | None = None


def freeze(state: State) -> Frozen:
    """Return a state as a value."""
    return Frozen(
        sweep=state.sweep,
        submitted_at=state.submitted_at,
        now=state.now,
        folded=state.folded,
        epoch=state.epoch,
        patience=state.patience,
        stopping=state.stopping,
        halted=state.halted,
        refused=state.refused,
        constants=state.constants,
        standings=tuple(map(_stood, state.standings.values())),
        attempts=tuple(replace(attempt, energy=[]) for attempt in state.attempts.values()),
        active=tuple(state.active),
        tries=state.tries,
        paces=tuple(state.paces[:2]),  # of later ones only their number counts, and that only up to two
        early_losses=tuple(state.early_losses),
        asks=_asked(state.asks),
        additions=tuple(event for event in state.additions if event.request),
        provenances=tuple(state.grid.provenances),
        grid=state.grid.marked(),
        collected=state.collected,
    )


def thaw(frozen: Frozen) -> State:
    """Return the state of a value. Raise `LookupError`, `TypeError` or `ValueError` if it does not fit together."""
    state = State()
    state.sweep, state.submitted_at = frozen.sweep, frozen.submitted_at
    state.now, state.folded, state.epoch = frozen.now, frozen.folded, frozen.epoch
    state.patience, state.constants = frozen.patience, frozen.constants
    state.stopping, state.halted, state.refused = frozen.stopping, frozen.halted, frozen.refused
    experiments = {experiment.id: experiment for experiment in frozen.sweep.experiments}
    for stood in frozen.standings:
        standing = state.standings[stood.id] = Standing(experiments[stood.id], stood.submitted_at)
        standing.ready_at, standing.status, standing.step = stood.ready_at, stood.status, stood.step
        standing.until, standing.why, standing.reason = stood.until, stood.why, stood.reason
        standing.first_running_at, standing.ended_at = stood.first_running_at, stood.ended_at
        standing.fruitless, standing.attempts = stood.fruitless, list(stood.attempts)
        standing.loss, standing.latest_start = stood.loss, stood.latest_start
        if stood.outcome is not None:
            how, step, loss = stood.outcome
            standing.outcome = Outcome(stood.id, how, step, validation_loss=loss)
    state.attempts = {attempt.id: attempt for attempt in frozen.attempts}
    state.active = {id: state.attempts[id] for id in frozen.active}
    state.tries, state.paces = dict(frozen.tries), list(frozen.paces)
    state.early_losses = list(frozen.early_losses)
    state.asks, state.additions = _asks(frozen.asks), list(frozen.additions)
    state.collected = frozen.collected
    if frozen.grid is not None:
        state.grid = Grid.of(frozen.grid, frozen.provenances)
    return state


def _asked(asks: Asks) -> FrozenAsks:
    places: dict[int, int] = {}
    requests: list[Asked] = []

    def placed(found: Mapping[str, Asked]) -> tuple[tuple[str, int], ...]:
        for event in found.values():
            if id(event) not in places:
                places[id(event)] = len(requests)
                requests.append(event)
        return tuple((name, places[id(event)]) for name, event in found.items())

    taken, paused, held = placed(asks.taken), placed(asks.paused), placed(asks.held)
    soon, cancelled = placed(asks.soon), placed(asks.cancelled)
    return FrozenAsks(tuple(requests), taken, paused, held, soon, cancelled, asks.stop)


def _asks(frozen: FrozenAsks) -> Asks:
    def found(placed: tuple[tuple[str, int], ...]) -> dict[str, Asked]:
        return {name: frozen.requests[place] for name, place in placed}

    return Asks(
        found(frozen.taken),
        found(frozen.paused),
        found(frozen.held),
        found(frozen.soon),
        found(frozen.cancelled),
        frozen.stop,
    )


def _stood(standing: Standing) -> FrozenStanding:
    outcome = standing.outcome
    return FrozenStanding(
        id=standing.experiment.id,
        submitted_at=standing.submitted_at,
        ready_at=standing.ready_at,
        status=standing.status,
        step=standing.step,
        until=standing.until,
        why=standing.why,
        reason=standing.reason,
        first_running_at=standing.first_running_at,
        ended_at=standing.ended_at,
        fruitless=standing.fruitless,
        attempts=tuple(standing.attempts),
        loss=standing.loss,
        latest_start=standing.latest_start,
        outcome=(outcome.status, outcome.step, outcome.validation_loss) if outcome else None,
    )
