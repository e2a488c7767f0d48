"""Detection of workers that are silent for too long, and of repeated identical failures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import takewhile

from gridsweep.schedule.pace import longest
from gridsweep.state.events import Event, Pausing
from gridsweep.state.state import State
from gridsweep.sweep.stints import device_named

LOADING_PATIENCE = 6
"""Factor on the patience for a worker that has not begun to train, since it may be downloading a model."""


SILENT_STEPS = 10
"""A worker may be silent for the estimated time of this many steps, if that is longer than the patience."""


GRACE = 0.1
"""The time a worker has to react to a pause before it is killed, as a share of the patience."""


IDENTICAL_FAILURES = 3
"""This many attempts lost in a row, each in its first minute and for the same reason, stop the sweep."""


BEFORE_FIRST_STEP, BEFORE_FIRST_STEP_ROUNDED = 1e-4, 1e-3
"""Largest relative difference of two losses before the first step: in float32, and in shorter data types."""


def _silent(state: State, now: datetime, silences: Mapping[str, timedelta] | None) -> list[Event]:
    """Ask workers that are silent for too long to stop, and kill workers that do not react.

    Without `silences` both are judged by grid time. `silences` are on another clock, on which steps have no estimated
    length; the limit is then the patience of the submission.
    """
    events: list[Event] = []
    if state.patience is None:
        return events
    for attempt in state.active.values():
        if attempt.held:
            continue  # the silence comes from an outside hold or a lost connection, not from the worker
        if attempt.over_at is not None:
            continue  # the worker is done; its end waits for the sweep's time
        silent = now - (attempt.pausing_since or attempt.seen_at or attempt.requested_at)
        if silences is not None:
            silent = silences.get(attempt.id, timedelta(0))
        if attempt.pausing_since is not None:
            if not attempt.killed and silent > state.patience * GRACE:
                events.append(Pausing(now, attempt.id, attempt.reason, kill=True))
            continue
        device, members = device_named(state.sweep.devices, attempt.device), len(attempt.stint.members)
        limit = state.patience
        if silences is None:
            first = state.standings[attempt.stint.members[0].experiment].experiment
            limit = max(limit, longest(state, SILENT_STEPS, device, members) * state.sweep.work_of_a_step(first))
        if attempt.running_at is None:
            limit = state.patience * LOADING_PATIENCE
        if silent > limit:
            events.append(Pausing(now, attempt.id, f"no progress for {limit}"))
    return events


def _mixed(state: State) -> str:
    """Return why the sweep should halt: losses before the first step differ, though base and data are one; else ''.

    An adapter starts as nothing, so experiments over one base have the same loss before their first step.
    """
    if state.constants.encoding < 2:
        return ""  # a folder of before, whose constants nothing has compared
    allowed = BEFORE_FIRST_STEP if state.facts.get("dtype", "float32") == "float32" else BEFORE_FIRST_STEP_ROUNDED
    first: dict[str, tuple[str, float]] = {}
    for id, standing in state.standings.items():
        for outcome in (*standing.scores.values(), standing.outcome):
            loss = outcome.initial_validation_loss if outcome else None
            if loss is None:
                continue
            other, expected = first.setdefault(standing.experiment.base, (id, loss))
            if abs(loss - expected) > allowed * abs(expected):
                return (
                    f"the losses before the first step differ: {expected:.6g} for {other}, {loss:.6g} for {id}; "
                    "their base or data are not the same, so they cannot be compared: a bug, please report it"
                )
    return ""


def _all_alike(state: State) -> str:
    """Return why the sweep should halt: its last losses were early, identical and of several experiments; else ''."""
    why = state.early_losses[-1][1] if state.early_losses else ""
    alike = [ids for ids, reason in takewhile(lambda loss: loss[1] == why, reversed(state.early_losses))]
    several = {id for ids in alike for id in ids}
    if len(alike) < IDENTICAL_FAILURES or len(several) < min(IDENTICAL_FAILURES, len(state.standings)):
        return ""
    return f"{len(alike)} attempts in a row failed in their first minute for the same reason: {why}"
