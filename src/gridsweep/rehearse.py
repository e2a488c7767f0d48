"""Sweeps driven in virtual worlds: a plan, and the other history that a saving is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon import Forecast, Trace, ceil_to
from gridsweep.errors import DeadlineError, TraceError
from gridsweep.events import Event, Submitted
from gridsweep.executors.simulated import Profile, Simulated
from gridsweep.ledger import Ledger, kept, ledger
from gridsweep.loop import Provider, drive
from gridsweep.policies import policy_for
from gridsweep.policy import Immediate, Policy
from gridsweep.readings import Provenance
from gridsweep.schedule import makespan
from gridsweep.state import Attempt, State
from gridsweep.sweep import Sweep
from gridsweep.worlds import Foreseen, Observations, Virtual


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


# -- plan


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One experiment's place in a plan, with what it would emit if it ran at once and as planned."""

    experiment: str
    tier: str
    device: str
    start: datetime
    end: datetime
    latest_start: datetime
    why: str
    energy_kwh: float
    emissions_now_g: float | None
    emissions_g: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the policy would do if the forecast came true; `reduction` is against `immediate` on the same devices."""

    sweep: str
    policy: str
    issued_at: datetime
    forecast: str
    source: str
    quality: str
    rows: tuple[PlanRow, ...]
    finish: datetime
    finish_immediate: datetime
    deadline: datetime | None
    energy_kwh: float
    emissions_g: float
    emissions_immediate_g: float
    schema_version: int = 1

    @property
    def reduction(self) -> float:
        return 1 - self.emissions_g / self.emissions_immediate_g if self.emissions_immediate_g > 0 else 0.0

    @property
    def late(self) -> bool:
        """Whether the plan misses the sweep's deadline."""
        return self.deadline is not None and self.finish > self.deadline


def plan(sweep: Sweep, provider: Provider, now: datetime) -> Plan:
    """Rehearse a sweep submitted at `now` on the forecast of `now`, as if it came true.

    Raises `TraceError` when the provider knows too little to forecast.
    """
    reading = provider.read(now)
    forecast = reading.forecast
    if forecast is None:
        raise TraceError(
            f"{reading.provenance.title} knows less than 24 hours before {now:%Y-%m-%d %H:%M} UTC, which is too little "
            "to forecast from; choose a later start, or a longer trace"
        )
    delay = max(tier.max_delay for tier in sweep.tiers)
    work = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    expected = _joined(reading.history, forecast, now + delay + 2 * work + timedelta(days=1))
    seen = Foreseen(expected, replace(reading.provenance, title=forecast.source, quality="forecast"))
    planned = rehearse(sweep, now, seen, policy_for(sweep.policy))
    atonce = rehearse(sweep, now, seen, Immediate())
    book, base = ledger(planned), ledger(atonce)
    rows = []
    for id, standing in planned.standings.items():
        attempt = planned.attempts[standing.attempts[0]]
        last = planned.attempts[standing.attempts[-1]]
        account, other = book.experiments[id], base.experiments[id]
        rows.append(
            PlanRow(
                experiment=id,
                tier=standing.experiment.tier,
                device=attempt.device,
                start=attempt.requested_at,
                end=last.ended_at or book.ended_at,
                latest_start=now + sweep.tier(standing.experiment.tier).max_delay,
                why=attempt.why,
                energy_kwh=account.energy_kwh,
                emissions_now_g=None if other.unknown_kwh else other.emissions_g,
                emissions_g=None if account.unknown_kwh else account.emissions_g,
            )
        )
    return Plan(
        sweep=sweep.name,
        policy=sweep.policy.name,
        issued_at=now,
        forecast=forecast.source,
        source=reading.provenance.title,
        quality=reading.provenance.quality,
        rows=tuple(sorted(rows, key=lambda row: (row.start, row.device))),
        finish=book.ended_at,
        finish_immediate=base.ended_at,
        deadline=sweep.deadline(now),
        energy_kwh=book.total.energy_kwh,
        emissions_g=book.total.emissions_g,
        emissions_immediate_g=base.total.emissions_g,
    )


def check_deadline(sweep: Sweep, now: datetime) -> None:
    """Raises `DeadlineError` when the sweep cannot end by its deadline even if all of it starts at once."""
    deadline = sweep.deadline(now)
    if deadline is None:
        return
    work = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    if now + work > deadline:
        raise DeadlineError(
            f"{len(sweep.experiments)} experiments of {sweep.estimates.duration} on {len(sweep.devices)} device(s) "
            f"take {work}, and finish_by leaves {max(deadline - now, timedelta(0))}; move finish_by, add devices, or "
            "sample fewer experiments"
        )


def _joined(history: Trace, forecast: Forecast, until: datetime) -> Trace:
    """History, then the mean forecast; past its end its last day is repeated."""
    path = forecast.mean
    wanted = max(len(path), (ceil_to(until, path.step) - path.start) // path.step)
    day = min(len(path), timedelta(days=1) // path.step)
    more = np.resize(path.values[-day:], wanted - len(path))
    before = history.between(history.start, path.start).values
    return Trace(path.start - len(before) * path.step, path.step, np.concatenate([before, path.values, more]))


# -- the baseline


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
