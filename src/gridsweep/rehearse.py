"""Sweeps driven in virtual worlds, and the other history that a saving is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gridsweep.events import Event, Submitted
from gridsweep.executors.simulated import Profile, Simulated
from gridsweep.ledger import Ledger, kept, ledger
from gridsweep.loop import Provider, drive
from gridsweep.policy import Immediate, Policy
from gridsweep.readings import Provenance
from gridsweep.state import Attempt, State
from gridsweep.sweep import Sweep
from gridsweep.worlds import Observations, Virtual


def rehearse(
    sweep: Sweep,
    start: datetime,
    provider: Provider,
    policy: Policy,
    executor: Simulated | None = None,
    journal: list[Event] | None = None,
) -> State:
    """Drive a sweep in a virtual world from its submission to its end."""
    journal = [] if journal is None else journal
    submitted = Submitted(start, sweep)
    journal.append(submitted)
    return drive(State([submitted]), journal, Virtual(start, provider, executor or Simulated()), policy)


def baseline(state: State) -> tuple[State, Ledger] | None:
    """The same work run at once: same devices, same energy, the intensities that were observed.

    Of every experiment that has ended: its pieces are joined into one run on its device, keeping energy by elapsed
    time; pauses, reloads and lost attempts count only in the actual world. None before anything has ended.
    """
    profiles: dict[str, Profile] = {}
    experiments = []
    for id, standing in state.standings.items():
        attempts = [state.attempts[a] for a in standing.attempts]
        if standing.ended_at is None or not attempts:
            continue
        profiles[id] = joined(attempts)
        experiments.append(replace(standing.experiment, device=attempts[-1].device))
    if not experiments:
        return None
    sweep = replace(state.sweep, experiments=tuple(experiments), finish_by=None)
    seen = Observations(state.history, Provenance("observed"))
    other = rehearse(sweep, state.submitted_at, seen, Immediate(), Simulated(profiles))
    return other, ledger(other)


def joined(attempts: Sequence[Attempt]) -> Profile:
    """The attempts at one experiment as the run that would have been enough."""
    length = timedelta(0)
    parts: list[tuple[timedelta, timedelta, float]] = []
    for attempt in attempts:
        segments = kept(attempt, reload=bool(parts))
        if not segments:
            continue
        begin = segments[0].start if parts else min(attempt.requested_at, segments[0].start)
        whole = attempt.end in ("ended", "paused") and attempt.ended_at is not None
        end = max(attempt.ended_at, segments[-1].end) if whole and attempt.ended_at else segments[-1].end
        share = len(attempt.stint.members)
        parts += [(length + (s.start - begin), s.end - s.start, s.kwh / share) for s in segments]
        length += end - begin
    return Profile(length, tuple(parts))
