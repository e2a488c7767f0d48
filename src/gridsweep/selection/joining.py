"""Experiments added during a sweep: repeats of the best, and points proposed for the places that a rung has freed.

Additions are facts in the journal, with the step after which they were added, so a resumed run neither adds an
experiment twice nor asks a proposer again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from math import inf, isfinite

from gridsweep.selection.proposers import Proposers
from gridsweep.selection.rung_decisions import contenders, score
from gridsweep.selection.winners import winner
from gridsweep.state.events import Added
from gridsweep.state.standings import ALIVE, Standing
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment, LoraParams
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.sweep import Sweep


def added(state: State, now: datetime, proposers: Proposers | None = None) -> list[Added]:
    """Return the additions due now. Without `proposers` no points are proposed, as in a plan, which has no losses."""
    if state.foreseen is not None:
        return _as_before(state, now)
    if state.halted:
        return []
    if contenders(state):
        return _proposed(state, now, proposers)
    return _repeated(state, now) or _retrained(state, now)


def _as_before(state: State, now: datetime) -> list[Added]:
    """Return the additions of the past that a rehearsal replays: a user's at their time, others after their rung."""
    assert state.foreseen is not None
    decided = {event.step for event in state.rankings}
    made = {(event.after, event.request) for event in state.additions}
    over = not contenders(state)
    return [
        replace(event, at=now, why="as before")
        for event in state.foreseen
        if (event.after, event.request) not in made
        and (now >= event.at if event.request else event.after in decided or over)
    ]


# -- repeats


def _repeated(state: State, now: datetime) -> list[Added]:
    """Return the finalists with other seeds, once all experiments have ended."""
    sweep, wanted = state.sweep, state.sweep.repeats
    if wanted is None or any(e.repeats for e in sweep.experiments):
        return []
    done = [s for s in state.standings.values() if s.status == "done"]
    best = sorted(done, key=_last_loss)[: wanted.finalists]
    found = tuple(repeat(state, s.experiment, n) for n in range(1, wanted.seeds) for s in best)
    why = f"the best {len(best)} with {wanted.seeds} seeds each"
    return [Added(now, sweep.total_steps, found, why)] if found else []


def repeat(state: State, experiment: Experiment, n: int) -> Experiment:
    """Return an experiment's n-th repeat: other initial weights, another dropout mask, another order of the samples."""
    sweep, seed = state.sweep, experiment.seed + n
    return made(sweep, replace(experiment, seed=seed, reason=f"repeats {experiment.id}", repeats=experiment.id))


def _retrained(state: State, now: datetime) -> list[Added]:
    """Return the winner over the full base, if all experiments were ranked on a proxy."""
    sweep, over = state.sweep, not any(s.status in ALIVE for s in state.standings.values())
    if not sweep.proxied or sweep.retrained or not over:
        return []
    best = winner(state) or next((s.experiment.id for s in state.standings.values() if s.status == "done"), None)
    if best is None:
        return []
    won = state.standings[best].experiment
    again = made(sweep, replace(won, base="full", reason=f"{best} over the full base", repeats=best))
    return [Added(now, sweep.total_steps, (again,), f"the winner over the full base, ranked on the {won.base} proxy")]


def made(sweep: Sweep, like: Experiment) -> Experiment:
    """Return an experiment with the id of its values, not bound to a device."""
    id = experiment_id(like.params, like.seed, sweep.model, sweep.dataset, sweep.recipe, like.base)
    return replace(like, id=id, device=None)


def _last_loss(standing: Standing) -> float:
    """Return the last loss; infinite if unknown, so that a rehearsal keeps the order of the sweep."""
    loss = standing.outcome.validation_loss if standing.outcome else None
    return loss if loss is not None and isfinite(loss) else inf


# -- proposals


def _proposed(state: State, now: datetime, proposers: Proposers | None) -> list[Added]:
    """Return new points for the places that a rung has freed; an empty addition records a rung without proposals.

    The last rung gets no new points: no experiment would train beside them for comparison.
    """
    sweep, wanted = state.sweep, state.sweep.propose
    if proposers is None or wanted is None:
        return []
    asked = {event.after for event in state.additions}
    places = {step: 0 for step in sweep.stages[:-2] if step not in asked}
    for event in state.rankings:
        if event.step in places:
            places[event.step] += len(event.stopped)
    step, freed = next(((step, n) for step, n in places.items() if n), (0, 0))
    if not freed:
        return []
    left = wanted.most - sum(len(event.experiments) for event in state.additions if not event.request)
    tried = [e.params for e in sweep.experiments]
    proposer = proposers(tried)
    for point, value in told(state):
        proposer.tell(point, value)
    best = min((s.experiment for s in contenders(state)), key=lambda e: sweep.tier(e.tier).rank)
    found: list[Experiment] = []
    while len(found) < min(freed, left) and (params := proposer.ask()) is not None:
        reason = f"proposed by {wanted.by} after step {step}"
        new = made(sweep, replace(best, params=params, seed=sweep.recipe.seed, reason=reason))
        if new.id in state.standings or new in found:
            break  # the proposer repeats itself
        found.append(new)
    why = f"{len(found)} points by {wanted.by} in the {freed} places freed at step {step}"
    return [Added(now, step, tuple(found), why)]


def told(state: State) -> list[tuple[LoraParams, float]]:
    """Return each point that reached a rung with its distance to the best of its last rung; infinite if it diverged."""
    sweep, last = state.sweep, {}
    for standing in state.standings.values():
        if standing.scores and standing.experiment.repeats is None:
            step = int(sweep.level(standing.experiment, max(standing.scores)))
            value = score(sweep, standing, step, sweep.decides).finite(sweep.decides)
            last[standing.experiment] = step, inf if value is None else value
    best = {step: min(value for at, value in last.values() if at == step) for step, _ in last.values()}
    return [(e.params, value - best[step] if value < inf else inf) for e, (step, value) in last.items()]
