"""What is decided at a rung: who goes on and who stops.

All wait for all, and are cut together; whoever was added later is judged, on its way, by those who came before. Where
rungs are not `together` that is how everybody is judged (ASHA, Li et al. 2020): the best of those who came so far go
on at once, and once nobody else can come the places that are left are filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction

from gridsweep.selection.halving import Cut, Score, cut, promotable, which_score
from gridsweep.state.events import Event, Ranked
from gridsweep.state.standings import ALIVE, Standing
from gridsweep.state.state import State
from gridsweep.sweep.losses import ScoreName
from gridsweep.sweep.rungs import Rungs

WORDS = {"averaged": "validation loss of the averaged weights", "raw": "training loss of the last steps"}


def ranked(state: State, now: datetime) -> list[Event]:
    """The decisions of rungs that can be made; none while somebody has to be waited for."""
    rungs = state.sweep.rungs
    if rungs is None:
        return []
    alive = contenders(state)
    decided = {event.step for event in state.rankings}
    events: list[Event] = []
    for step in sorted({s.step for s in alive if s.status == "reached"}):
        there = [s for s in alive if s.status == "reached" and s.step == step]
        last = all(s.step >= step for s in alive)  # nobody else will come
        if rungs.together and step not in decided:
            events += [_all_at_once(state, rungs, step, there, now)] if last else []
        else:
            events += _one_by_one(state, rungs, step, there, now, final=last or rungs.together)
    return events


def contenders(state: State) -> list[Standing]:
    """Who is alive and may be stopped by a rung."""
    return [s for s in state.standings.values() if s.status in ALIVE and s.experiment.repeats is None]


def _all_at_once(state: State, rungs: Rungs, step: int, there: Sequence[Standing], now: datetime) -> Ranked:
    """Everybody alive stands at this rung."""
    by = which_score(state.sweep.recipe.learning_rate_schedule)
    keep = rungs.keep[stage_of(state, step)]
    ids = [s.experiment.id for s in there]
    always = [id for id in rungs.keep_always if id in ids]
    if any(known(s, step, by) for s in there):
        made = cut({s.experiment.id: score(s, step, by) for s in there}, keep, always, by=by)
    else:  # a rehearsal knows no losses: the first in the order of the sweep go on, beside whoever always does
        chosen = {*[id for id in ids if id not in always][:keep], *always}
        kept, stopped = (tuple(id for id in ids if (id in chosen) == goes) for goes in (True, False))
        made = Cut(kept, stopped, (), (), None, by)
    why = f"stopped at step {step} of {state.sweep.total_steps}: {len(made.kept)} of {len(there)} go on, by the "
    return Ranked(now, step, made.stopped, why + WORDS[by], made.kept, made.tied, made.diverged, made.disagreed, by)


def _one_by_one(
    state: State, rungs: Rungs, step: int, there: Sequence[Standing], now: datetime, *, final: bool
) -> list[Ranked]:
    """These are judged by all who were here before; who is not among the best waits, unless this is `final`."""
    by = which_score(state.sweep.recipe.learning_rate_schedule)
    came = [s for s in state.standings.values() if step in s.scores and s.experiment.repeats is None]
    values = {s.experiment.id: score(s, step, by).finite(by) for s in came}
    if not any(known(s, step, by) for s in came):  # a rehearsal: who came first is taken for the better
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
    why = f"stopped at step {step} of {state.sweep.total_steps}: behind others who came there, by the {WORDS[by]}"
    diverged = tuple(id for id in stopped if values[id] is None)
    return [Ranked(now, step, tuple(stopped), why, tuple(going), diverged=diverged, by=by)]


def _promoted(
    state: State, rungs: Rungs, step: int, ids: Sequence[str], values: Mapping[str, float | None]
) -> list[str]:
    """Who of these is among the best of all who came to a rung so far."""
    rung = stage_of(state, step)
    keep, begun = rungs.keep[rung], len(state.standings) - sum(len(a.experiments) for a in state.additions)
    before = rungs.keep[rung - 1] if rung else begun
    if before <= keep:
        return [id for id in ids if values[id] is not None]
    gone = values.keys() - set(ids)
    found = promotable([values], [gone], Fraction(before, keep), [id for id in rungs.keep_always if id in ids])
    return [id for _, id in found]


def stage_of(state: State, step: int) -> int:
    """Which of the stages ends at a step."""
    return state.sweep.stages.index(step)


def known(standing: Standing, step: int, by: ScoreName) -> bool:
    """Whether the score that decides was measured."""
    return score(standing, step, by).known(by) is not None


def score(standing: Standing, step: int, by: ScoreName) -> Score:
    """How an experiment stood at a rung."""
    outcome = standing.scores.get(step)
    if outcome is None:
        return Score(None)
    losses = outcome.losses
    return Score(losses.mean if losses else None, outcome.train_loss, losses if by == "averaged" else None)
