"""Rehearsals: sweeps run in virtual worlds, also as the reference for a saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from gridsweep.accounting.pieces import Profile, joined, stages_of
from gridsweep.loop import Provider, drive
from gridsweep.policy.gates import Immediate
from gridsweep.policy.situation import Policy
from gridsweep.simulation.at_once import at_once
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import Added, Event, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.sweep import Sweep


def rehearse(
    sweep: Sweep,
    start: datetime,
    provider: Provider,
    policy: Policy,
    executor: Simulated | None = None,
    journal: list[Event] | None = None,
    foreseen: tuple[Added, ...] | None = None,
) -> State:
    """Run a sweep in a virtual world from its submission to its end.

    `foreseen` holds the additions known to come; None leaves additions to the sweep.
    """
    journal = [] if journal is None else journal
    submitted = Submitted(start, sweep)
    journal.append(submitted)
    state = State([submitted])
    state.foreseen = foreseen
    return drive(state, journal, Virtual(start, provider, executor or Simulated()), policy)


def again(state: State, provider: Provider, policy: Policy, *, as_planned: bool = False) -> State | None:
    """Run a sweep's ended experiments again on another grid or under another policy: see `baseline`.

    With `as_planned` the assumptions of a plan apply: the sweep's `finish_by` holds, policies expect as many
    experiments after each rung as were kept, and equal devices may be exchanged. None before any has ended.
    """
    sweep = state.sweep
    experiments, executor = _done(state, exchange=sweep.staged or as_planned)
    if not experiments:
        return None
    rungs = sweep.rungs and replace(sweep.rungs, keep=tuple(len(state.standings) + n for n in _falling(sweep)))
    if as_planned and rungs:
        rungs = _as_kept(state, rungs)
    later = additions(state, experiments)
    added = {e.id for event in later for e in event.experiments}
    first = tuple(e for id, e in experiments.items() if id not in added)
    finish_by = sweep.finish_by if as_planned else None
    start = state.submitted_at
    other = replace(sweep, experiments=first, finish_by=finish_by, rungs=rungs, repeats=None, propose=None)
    simple = isinstance(policy, Immediate) and not as_planned and not any(event.request for event in later)
    made = at_once(other, start, provider, executor, later) if simple else None
    return made or rehearse(other, start, provider, policy, executor, foreseen=later)


def additions(state: State, experiments: Mapping[str, Experiment]) -> tuple[Added, ...]:
    """Return the additions to a sweep as a rehearsal replays them, with those of `experiments` that they added.

    What the sweep added itself after one step is one addition.
    """
    found: dict[tuple[int, str], Added] = {}
    for event in state.additions:
        key = event.after, event.request
        before = found[key].experiments if key in found else ()
        rehearsed = tuple(experiments[e.id] for e in event.experiments if e.id in experiments)
        found[key] = replace(event, experiments=before + rehearsed)
    return tuple(found.values())


def _done(state: State, *, exchange: bool) -> tuple[dict[str, Experiment], Simulated]:
    """Return the ended experiments, and an executor that reproduces their durations and energy.

    With `exchange` equal devices may be exchanged; otherwise each experiment stays on the device on which it ended.
    """
    sweep = state.sweep
    profiles: dict[tuple[str, int], Profile] = {}
    stopped: dict[str, int] = {}
    experiments: dict[str, Experiment] = {}
    alike = len({(d.speed, d.power_w) for d in sweep.devices}) == 1
    for id, standing in state.standings.items():
        attempts = [state.attempts[a] for a in standing.attempts]
        if standing.ended_at is None or not attempts:
            continue
        stages = {stage for attempt in attempts for stage in stages_of(attempt, id)}
        for stage in stages:
            profiles[id, stage] = joined([attempt for attempt in attempts if stage in stages_of(attempt, id)])
        if max(stages) < sweep.total_of(standing.experiment):
            stopped[id] = max(stages)
        free = alike and exchange
        device = standing.experiment.device if free else attempts[-1].device
        experiments[id] = replace(standing.experiment, device=device)
    return experiments, Simulated(profiles, stopped=stopped)


def _as_kept(state: State, stops_nobody: Rungs) -> Rungs:
    """Return the rungs with the numbers that were really kept, ties included, if they fall from rung to rung."""
    kept = dict.fromkeys(state.sweep.stages[:-1], 0)
    for ranking in state.rankings:
        kept[ranking.step] += len(ranking.kept)
    try:
        return replace(stops_nobody, keep=tuple(kept.values()), keep_always=())
    except ValueError:
        return stops_nobody


def _falling(sweep: Sweep) -> range:
    """Return falling numbers which, added to the number of experiments, let every experiment pass each rung."""
    return range(len(sweep.stages), 1, -1)
