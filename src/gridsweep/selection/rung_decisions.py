"""The decisions at rungs: which experiments continue and which stop.

With `together`, experiments wait for one another and are compared at once; those added later are compared with earlier
arrivals. Otherwise all experiments are compared with earlier arrivals (ASHA, Li et al. 2020): the best so far continue
at once, and when no more can arrive, the remaining places are filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction

from gridsweep.selection.halving import Cut, Score, at_rung, promotable
from gridsweep.state.events import Event, Ranked
from gridsweep.state.standings import ALIVE, Standing
from gridsweep.state.state import State
from gridsweep.sweep.losses import ScoreName
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.sweep import Sweep

WORDS = {"averaged": "validation loss of the averaged weights", "raw": "training loss of the last steps"}


def ranked(state: State, now: datetime) -> list[Event]:
    """Return the rung decisions that can be made; none while a rung still waits for experiments."""
    rungs = state.sweep.rungs
    if rungs is None:
        return []
    alive = contenders(state)
    decided = {event.step for event in state.rankings}
    events: list[Event] = []
    sweep, levels = state.sweep, {s.experiment.id: state.sweep.level(s.experiment, s.step) for s in alive}
    for step in sweep.stages:
        there = [s for s in alive if s.status == "reached" and levels[s.experiment.id] == step]
        if not there:
            continue
        last = all(level >= step for level in levels.values())  # no more experiments can arrive
        if rungs.together and step not in decided:
            events += [_all_at_once(state, rungs, step, there, now)] if last else []
        else:
            events += _one_by_one(state, rungs, step, there, now, final=last or rungs.together)
    return events


def contenders(state: State) -> list[Standing]:
    """Return the active experiments that a rung may stop."""
    return [s for s in state.standings.values() if s.status in ALIVE and s.experiment.repeats is None]


def _all_at_once(state: State, rungs: Rungs, step: int, there: Sequence[Standing], now: datetime) -> Ranked:
    """Return the decision of a rung that all active experiments have reached."""
    by = state.sweep.decides
    keep = rungs.keep[stage_of(state, step)]
    ids = [s.experiment.id for s in there]
    always = [id for id in rungs.keep_always if id in ids]
    if any(known(state.sweep, s, step, by) for s in there):
        scores = {s.experiment.id: score(state.sweep, s, step, by) for s in there}
        of = sum(e.repeats is None for e in state.sweep.experiments)
        made = at_rung(scores, rungs, stage_of(state, step), always, by=by, of=of)
    else:  # a rehearsal has no losses: the first in the sweep's order continue, and those always kept
        chosen = {*[id for id in ids if id not in always][:keep], *always}
        kept, stopped = (tuple(id for id in ids if (id in chosen) == goes) for goes in (True, False))
        made = Cut(kept, stopped, (), (), None, by)
    why = f"stopped at step {step} of {state.sweep.total_steps}: {len(made.kept)} of {len(there)} continue, by the "
    return Ranked(now, step, made.stopped, why + WORDS[by], made.kept, made.tied, made.diverged, made.disagreed, by)


def _one_by_one(
    state: State, rungs: Rungs, step: int, there: Sequence[Standing], now: datetime, *, final: bool
) -> list[Ranked]:
    """Compare experiments with all that arrived before; those not among the best wait, unless this is `final`."""
    sweep, by = state.sweep, state.sweep.decides
    came = [
        s
        for s in state.standings.values()
        if s.experiment.repeats is None and sweep.own_step(s.experiment, step) in s.scores
    ]
    values = {s.experiment.id: score(sweep, s, step, by).finite(by) for s in came}
    if not any(known(sweep, s, step, by) for s in came):  # a rehearsal has no losses: earlier arrivals count as better
        values = {id: float(order) for order, id in enumerate(values)}
    ids = [s.experiment.id for s in there]
    going = _promoted(state, rungs, step, ids, values)
    rest = sorted((id for id in ids if id not in going), key=lambda id: (values[id] is None, values[id], id))
    stopped: list[str] = []
    if final:
        gone = {id for event in state.rankings if event.step == step for id in event.kept} | set(going)
        places = 0 if rungs.together else max(0, rungs.keep[stage_of(state, step)] - len(gone - {*rungs.keep_always}))
        fill = [id for id in rest if values[id] is not None][:places]
        going, stopped = [*going, *fill], [id for id in rest if id not in fill]
    if not going and not stopped:
        return []
    why = f"stopped at step {step} of {state.sweep.total_steps}: behind others at this rung, by the {WORDS[by]}"
    diverged = tuple(id for id in stopped if values[id] is None)
    return [Ranked(now, step, tuple(stopped), why, tuple(going), diverged=diverged, by=by)]


def _promoted(
    state: State, rungs: Rungs, step: int, ids: Sequence[str], values: Mapping[str, float | None]
) -> list[str]:
    """Return those of `ids` that are among the best of all arrivals at a rung so far."""
    rung = stage_of(state, step)
    later = sum(len(event.experiments) for event in state.additions if not event.request)
    keep, begun = rungs.keep[rung], len(state.standings) - later
    before = rungs.keep[rung - 1] if rung else begun
    if before <= keep:
        return [id for id in ids if values[id] is not None]
    gone = values.keys() - set(ids)
    found = promotable([values], [gone], Fraction(before, keep), [id for id in rungs.keep_always if id in ids])
    return [id for _, id in found]


def stage_of(state: State, step: int) -> int:
    """Return the index of the stage that ends at a step."""
    return state.sweep.stages.index(step)


def known(sweep: Sweep, standing: Standing, step: int, by: ScoreName) -> bool:
    """Return whether the deciding score was measured."""
    return score(sweep, standing, step, by).known(by) is not None


def score(sweep: Sweep, standing: Standing, step: int, by: ScoreName) -> Score:
    """Return the score of an experiment at the rung of that name."""
    outcome = standing.scores.get(sweep.own_step(standing.experiment, step))
    if outcome is None:
        return Score(None)
    losses = outcome.losses
    return Score(losses.mean if losses else None, outcome.train_loss, losses if by == "averaged" else None)
