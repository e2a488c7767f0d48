"""Assignments: what the worker of an attempt is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from gridsweep.records.attempts import Assignment, Judging, Part
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint, Device, Member, device_named
from gridsweep.sweep.sweep import Sweep


def assignment(state: State, attempt: Attempt) -> Assignment:
    """Return the assignment for an attempt's worker."""
    members = attempt.stint.members
    saved = {m.experiment: state.standings[m.experiment].checkpoint for m in members if m.from_step}
    device = device_named(state.sweep.devices, attempt.device)
    made = assigned(state.constants.pinned(state.sweep), attempt.id, device, members, saved)
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
    members: Sequence[Member],
    saved: Mapping[str, Checkpoint | None] = MappingProxyType({}),
) -> Assignment:
    """Return an attempt's assignment without what is only known once the sweep has begun.

    Members share their first one's base, number of steps, and what a stint has once; each has the rest of its recipe.
    `saved` holds the checkpoints that members go on from, by experiment.
    """
    first = sweep.experiment(members[0].experiment)
    recipe = sweep.recipe_of(first)
    parts = []
    for member in members:
        experiment = sweep.experiment(member.experiment)
        own = sweep.recipe_of(experiment)
        parts.append(
            Part(
                experiment.id,
                experiment.params,
                experiment.seed,
                member.from_step,
                member.to_step,
                saved.get(experiment.id),
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
