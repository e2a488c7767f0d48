"""Back-tests: policies driven over a recorded trace from many start instants, beside the best that was possible."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import exp
from statistics import NormalDist

import numpy as np

from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import TraceError
from gridsweep.loop import Provider
from gridsweep.optima import Optimum
from gridsweep.policy.gates import Immediate
from gridsweep.policy.registry import choice_of, policy_for
from gridsweep.policy.situation import Policy
from gridsweep.simulation.bounds import optimum, what_comes
from gridsweep.simulation.comparison import Bound, Outcome, PolicyResult, _bound, compared
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Foreseen
from gridsweep.state.state import State
from gridsweep.sweep.experiments import number
from gridsweep.sweep.stints import RESTART
from gridsweep.sweep.sweep import PolicyChoice, Sweep

HISTORY = timedelta(days=28)
ROOM = timedelta(days=9)
"""A back-test starts after four weeks of history, and not in the last nine days of a trace."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A back-test of policies over many start instants of a trace, with the bounds for sweeps on these devices.

    `bound` never pauses, `bound_pausing` may, for nothing; both are None where they were not asked for, or no start
    allows one. `chain` says how many experiments are trained up to which step, where there are rungs. Reductions are
    against running another sweep at once where `against` names one; `energy_share` is what running this one at once
    needs of its energy, by estimates that were `measured` where it says.
    """

    starts: int
    devices: int
    policies: tuple[PolicyResult, ...]
    forecast: str = "history"
    finish_by_h: float | None = None
    bound: Bound | None = None
    bound_pausing: Bound | None = None
    chain: tuple[tuple[int, int], ...] = ()
    against: str | None = None
    energy_share: float | None = None
    measured: str = ""
    schema_version: int = 3


def simulate(
    sweep: Sweep,
    provider: Provider,
    *,
    starts: Sequence[datetime],
    policies: Sequence[str | PolicyChoice] = (),
    tick: timedelta | None = None,
    forecast: str = "history",
    devices: int | None = None,
    finish_by: timedelta | None = None,
    idle_power_w: float | None = None,
    lengths: float = 0.0,
    bounds: bool = True,
    against: Sweep | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Simulation:
    """Drive a sweep's estimates from every start instant, once for each policy (the sweep's own if none is named).

    A policy may be named with options, `planned:exact` or `planned:min_saving=0`, so that variants stand side by side.

    `provider` replays a trace; with the forecast `perfect` policies are shown what comes instead of its own, which goes
    by any other name. With `against`, reductions are against running that sweep at once. With `lengths` experiments
    really take longer or shorter than estimated (see `drawn`); the bound that never pauses is then left out, since
    nobody can prove it, and all are held against the other. For the rest see `under`. Without `bounds` no optimum is
    sought. Raises `TraceError` when a sweep would run past the trace's end, `SpecError` for a policy that is none.
    """
    sweep = under(sweep, tick=tick, devices=devices, finish_by=finish_by, idle_power_w=idle_power_w)
    other = None if against is None else under(against, tick=tick, devices=devices, idle_power_w=idle_power_w)
    own = {sweep.policy.name: sweep.policy}  # a name alone means the spec's options, if it chose that policy
    named = [own.get(p, choice_of(p)) if isinstance(p, str) else p for p in policies or [sweep.policy]]
    labels = [p if isinstance(p, str) else p.name for p in policies or [sweep.policy.name]]
    if len(set(labels)) < len(labels):  # variants of one policy are told apart by their options
        labels = [_labelled(choice) for choice in named]
    tried = [policy_for(choice) for choice in named]
    factors = drawn(sweep, lengths) if lengths else {}
    outcomes: list[list[Outcome]] = [[] for _ in tried]
    atonce: list[Outcome] = []
    kwh: list[float] = []
    best: dict[bool, list[Optimum | None]] = {False: [], True: []}
    for count, start in enumerate(starts, 1):
        comes = what_comes(sweep, provider, start) if bounds or forecast == "perfect" else None
        seen = Foreseen(comes, provider.read(start).provenance) if comes and forecast == "perfect" else provider
        plain = play(sweep, start, seen, Immediate(), factors)
        atonce.append(plain if other is None else play(other, start, seen, Immediate()))
        kwh.append(plain.energy_kwh / atonce[-1].energy_kwh)
        for policy, of in zip(tried, outcomes, strict=True):
            of.append(plain if isinstance(policy, Immediate) else play(sweep, start, seen, policy, factors))
        for pausing, found in best.items():
            sought = comes is not None and bounds and (pausing or not factors)
            found.append(optimum(sweep, comes, start, factors, pausing=pausing) if sought and comes else None)
        tell(count)
    results = []
    for label, of in zip(labels, outcomes, strict=True):
        results.append(compared(label, of, atonce, best[bool(factors) or any(outcome.pauses for outcome in of)]))
    deadline = sweep.finish_by
    return Simulation(
        starts=len(starts),
        devices=len(sweep.devices),
        policies=tuple(results),
        forecast=forecast,
        finish_by_h=deadline / HOUR if isinstance(deadline, timedelta) else None,
        bound=_bound(starts, best[False], atonce),
        bound_pausing=_bound(starts, best[True], atonce),
        chain=_chain(sweep),
        against=None if other is None else other.name,
        energy_share=None if other is None else float(np.mean(kwh)),
        measured=sweep.estimates.measured,
    )


def _chain(sweep: Sweep) -> tuple[tuple[int, int], ...]:
    if sweep.rungs is None:
        return ()
    carried = len(sweep.rungs.keep_always)
    counts = [len(sweep.experiments)]
    for keep in sweep.rungs.keep:
        counts.append(min(counts[-1], keep + carried))
    return tuple(zip(counts, sweep.stages, strict=True))


def under(
    sweep: Sweep,
    *,
    tick: timedelta | None = None,
    devices: int | None = None,
    finish_by: timedelta | None = None,
    idle_power_w: float | None = None,
) -> Sweep:
    """The sweep under other conditions; what is None stays as it is.

    `devices` counts devices like its first one. `finish_by` takes the place of the tiers' start deadlines.
    """
    own = sweep.devices
    if devices is not None:
        own = tuple(replace(own[0], name=f"device{i}") for i in range(devices))
    if idle_power_w is not None:
        own = tuple(replace(device, idle_power_w=idle_power_w) for device in own)
    tiers = sweep.tiers if finish_by is None else tuple(replace(tier, max_delay=finish_by) for tier in sweep.tiers)
    by = sweep.finish_by if finish_by is None else finish_by
    return replace(sweep, tick=tick or sweep.tick, devices=own, tiers=tiers, finish_by=by, replay=None)


def drawn(sweep: Sweep, spread: float) -> dict[str, float]:
    """How many times its estimate each experiment takes: log-normal of mean 1, keyed by its id."""
    found = {}
    for experiment in sweep.experiments:
        digest = int.from_bytes(hashlib.sha256(experiment.id.encode()).digest()[:6], "big")
        found[experiment.id] = exp(spread * NormalDist().inv_cdf((digest + 0.5) / 2**48) - spread**2 / 2)
    return found


def play(
    sweep: Sweep, start: datetime, provider: Provider, policy: Policy, factors: Mapping[str, float] | None = None
) -> Outcome:
    """One sweep from one start instant; `factors` of the estimates are what experiments really take.

    Raises `TraceError` where it runs past the end of what `provider` knows.
    """
    state = rehearse(sweep, start, provider, policy, Simulated(factors=factors, restart=RESTART))
    book = ledger(state)
    if book.ended_at > state.history.end:
        raise TraceError(
            f"a sweep started on {state.submitted_at:%Y-%m-%d %H:%M} runs until {book.ended_at:%Y-%m-%d %H:%M}, past "
            f"the end of the trace on {state.history.end:%Y-%m-%d %H:%M}; set an earlier --to"
        )
    attempts = state.attempts.values()
    return Outcome(
        book.total.emissions_g,
        book.total.energy_kwh,
        book.makespan / HOUR,
        _late(state, book.ended_at),
        sum(attempt.end == "paused" for attempt in attempts),
        tuple(sorted(attempt.requested_at for attempt in attempts)),
    )


def start_instants(
    trace: Trace, every: timedelta, first: datetime | None = None, end: datetime | None = None
) -> list[datetime]:
    """Every `every` from `first` to before `end`; by default from 28 days into the trace to nine days before its end.

    Raises `TraceError` when there is none.
    """
    first = first or trace.start + HISTORY
    end = end or trace.end - ROOM
    if not trace.start <= first < end <= trace.end:
        raise TraceError(
            f"no start instant from {first:%Y-%m-%d %H:%M} to before {end:%Y-%m-%d %H:%M} lies in the trace, "
            f"which runs from {trace.start:%Y-%m-%d %H:%M} to {trace.end:%Y-%m-%d %H:%M} UTC; "
            "choose --from and --to inside it"
        )
    return [first + i * every for i in range(-(-(end - first) // every))]


def _late(state: State, ended_at: datetime) -> int:
    """How many experiments began after their tier's longest delay, or too late to end by the deadline.

    With packs or rungs: how many ended after the deadline.
    """
    sweep, late = state.sweep, 0
    fastest = max(device.speed for device in sweep.devices)
    deadline, staged = sweep.deadline(state.submitted_at), sweep.staged
    for standing in state.standings.values():
        if staged:
            late += deadline is not None and (standing.ended_at or ended_at) > deadline
            continue
        latest = state.submitted_at + sweep.tier(standing.experiment.tier).max_delay
        if deadline is not None:
            latest = min(latest, deadline - sweep.estimates.duration / fastest)
        late += (standing.first_running_at or ended_at) > latest
    return late


def _labelled(choice: PolicyChoice) -> str:
    options = ",".join(f"{key}={number(value)}" for key, value in choice.options.items())
    return f"{choice.name}:{options}" if options else choice.name
