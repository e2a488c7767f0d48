"""Who joins a sweep on the way: repeats of its best, and points proposed for the places that a rung has freed.

They are facts like any other: what was added, and after what, stands in the journal, so that a resumed run adds nothing
twice and asks nobody again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from math import inf, isfinite

from gridsweep.selection.halving import which_score
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
    """What is to join now. Without `proposers` nobody is asked, as in a plan, which knows no losses."""
    if state.foreseen is not None:
        return _as_before(state, now)
    if state.halted:
        return []
    if contenders(state):
        return _proposed(state, now, proposers)
    return _repeated(state, now) or _retrained(state, now)


def _as_before(state: State, now: datetime) -> list[Added]:
    """What was added in the past that a rehearsal replays, once what was decided before it is."""
    assert state.foreseen is not None
    decided = {event.step for event in state.rankings}
    made = {event.after for event in state.additions}
    over = not contenders(state)
    return [
        Added(now, step, experiments, "as before")
        for step, experiments in state.foreseen.items()
        if step not in made and (step in decided or over)
    ]


# -- repeats


def _repeated(state: State, now: datetime) -> list[Added]:
    """The finalists with other seeds, once everybody has ended."""
    sweep, wanted = state.sweep, state.sweep.repeats
    if wanted is None or any(e.repeats for e in sweep.experiments):
        return []
    done = [s for s in state.standings.values() if s.status == "done"]
    best = sorted(done, key=_last_loss)[: wanted.finalists]
    found = tuple(repeat(state, s.experiment, n) for n in range(1, wanted.seeds) for s in best)
    why = f"the best {len(best)} with {wanted.seeds} seeds each"
    return [Added(now, sweep.total_steps, found, why)] if found else []


def repeat(state: State, experiment: Experiment, n: int) -> Experiment:
    """An experiment's n-th repeat: other initial weights, other dropout, another order of the samples."""
    sweep, seed = state.sweep, experiment.seed + n
    return made(sweep, replace(experiment, seed=seed, reason=f"repeats {experiment.id}", repeats=experiment.id))


def _retrained(state: State, now: datetime) -> list[Added]:
    """The winner over the full base, where all were ranked over one that stands in for it."""
    sweep, over = state.sweep, not any(s.status in ALIVE for s in state.standings.values())
    if not sweep.proxied or sweep.retrained or not over:
        return []
    best = winner(state) or next((s.experiment.id for s in state.standings.values() if s.status == "done"), None)
    if best is None:
        return []
    won = state.standings[best].experiment
    again = made(sweep, replace(won, base="full", reason=f"{best} over the full base", repeats=best))
    return [Added(now, sweep.total_steps, (again,), f"the winner over the full base, after {won.base} stood in for it")]


def made(sweep: Sweep, like: Experiment) -> Experiment:
    """An experiment under the id that its values give it, bound to no device."""
    id = experiment_id(like.params, like.seed, sweep.model, sweep.dataset, sweep.recipe, like.base)
    return replace(like, id=id, device=None)


def _last_loss(standing: Standing) -> float:
    """Infinite where it is not known; a rehearsal then takes the order of the sweep."""
    loss = standing.outcome.validation_loss if standing.outcome else None
    return loss if loss is not None and isfinite(loss) else inf


# -- proposals


def _proposed(state: State, now: datetime, proposers: Proposers | None) -> list[Added]:
    """New points in the places that a rung has freed. A rung at which nobody proposed anything is noted, too.

    None for those of the last rung: whoever came then would be judged by nobody who trains beside it.
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
    left = wanted.most - sum(len(event.experiments) for event in state.additions)
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
            break  # it repeats itself
        found.append(new)
    why = f"{len(found)} points by {wanted.by} in the {freed} places freed at step {step}"
    return [Added(now, step, tuple(found), why)]


def told(state: State) -> list[tuple[LoraParams, float]]:
    """Every point that came to a rung: how far it was behind the best of its last one; infinite where it diverged."""
    by = which_score(state.sweep.recipe.learning_rate_schedule)
    last = {}
    for standing in state.standings.values():
        if standing.scores and standing.experiment.repeats is None:
            step = max(standing.scores)
            value = score(standing, step, by).finite(by)
            last[standing.experiment] = step, inf if value is None else value
    best = {step: min(value for at, value in last.values() if at == step) for step, _ in last.values()}
    return [(e.params, value - best[step] if value < inf else inf) for e, (step, value) in last.items()]
