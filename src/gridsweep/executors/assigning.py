"""Assignments: what the worker of an attempt is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gridsweep.records.attempts import Assignment, Judging, Part
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.stints import Checkpoint, Device, Member, device_named
from gridsweep.sweep.sweep import Sweep


def assignment(state: State, attempt: Attempt) -> Assignment:
    """Return the assignment for an attempt's worker."""
    standings = [state.standings[member.experiment] for member in attempt.stint.members]
    made = assigned(
        state.constants.pinned(state.sweep),
        attempt.id,
        device_named(state.sweep.devices, attempt.device),
        [s.experiment for s in standings],
        attempt.stint.members,
        [s.checkpoint if m.from_step else None for s, m in zip(standings, attempt.stint.members, strict=True)],
    )
    return replace(
        made,
        encoding=state.constants.encoding,
        constants=state.constants.things,
        submitted=state.submitted_at,
    )


def assigned(
    sweep: Sweep,
    attempt: str,
    device: Device,
    experiments: Sequence[Experiment],
    members: Sequence[Member],
    saved: Sequence[Checkpoint | None],
) -> Assignment:
    """Return an attempt's assignment without what is only known once the sweep has begun.

    Members share their first one's base, number of steps, and what a stint has once; each has the rest of its recipe.
    """
    first = experiments[0]
    recipe = sweep.recipe_of(first)
    parts = []
    for experiment, member, checkpoint in zip(experiments, members, saved, strict=True):
        own = sweep.recipe_of(experiment)
        parts.append(
            Part(
                experiment.id,
                experiment.params,
                experiment.seed,
                member.from_step,
                member.to_step,
                checkpoint,
                None if own == recipe else own,
            )
        )
    return Assignment(
        attempt,
        sweep.model,
        sweep.dataset,
        recipe,
        sweep.total_of(first),
        device,
        tuple(parts),
        first.base,
        judging=Judging(sweep.decides, sweep.recipe.max_length) if sweep.varied else None,
    )
