"""What is decided at a rung: who goes on and who stops, when all who are left stand there."""

from __future__ import annotations

from datetime import datetime

from gridsweep.events import Event, Ranked
from gridsweep.halving import Cut, Score, ScoreName, cut, which_score
from gridsweep.state import ALIVE, Standing, State

WORDS = {"averaged": "validation loss of the averaged weights", "raw": "training loss of the last steps"}


def ranked(state: State, now: datetime) -> list[Event]:
    """The decision of the rung that all experiments alive have reached; nothing while one is still on its way."""
    sweep = state.sweep
    if sweep.rungs is None:
        return []
    alive = [s for s in state.standings.values() if s.status in ALIVE]
    if not alive or any(s.status != "reached" for s in alive):
        return []
    step = max(s.step for s in alive)
    rung = sweep.stages.index(step)
    keep = sweep.rungs.keep[rung]
    ids = [s.experiment.id for s in alive]
    always = [id for id in sweep.rungs.keep_always if id in ids]
    by = which_score(sweep.recipe.learning_rate_schedule)
    if any(known(s, step, by) for s in alive):
        made = cut({s.experiment.id: score(s, step, by) for s in alive}, keep, always, by=by)
    else:  # a rehearsal knows no losses: the first in the order of the sweep go on, beside whoever always does
        chosen = {*[id for id in ids if id not in always][:keep], *always}
        kept, stopped = (tuple(id for id in ids if (id in chosen) == goes) for goes in (True, False))
        made = Cut(kept, stopped, (), (), None, by)
    why = f"stopped at step {step} of {sweep.total_steps}: {len(made.kept)} of {len(alive)} go on, by the {WORDS[by]}"
    return [Ranked(now, step, made.stopped, why, made.kept, made.tied, made.diverged, made.disagreed, by)]


def known(standing: Standing, step: int, by: ScoreName) -> bool:
    """Whether the score that decides was measured."""
    found = score(standing, step, by)
    return (found.value if by == "averaged" else found.raw) is not None


def score(standing: Standing, step: int, by: ScoreName) -> Score:
    """How an experiment stood at a rung."""
    outcome = standing.scores.get(step)
    if outcome is None:
        return Score(None)
    losses = outcome.losses
    return Score(losses.mean if losses else None, outcome.train_loss, losses if by == "averaged" else None)
