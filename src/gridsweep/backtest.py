"""Back-tests: policies driven over a recorded trace from many start instants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon import HOUR, Trace
from gridsweep.errors import TraceError
from gridsweep.ledger import ledger
from gridsweep.loop import Provider
from gridsweep.policies import policy_for
from gridsweep.policy import Immediate
from gridsweep.rehearse import rehearse
from gridsweep.state import State
from gridsweep.sweep import PolicyChoice, Sweep

HISTORY = timedelta(days=28)
ROOM = timedelta(days=9)
"""A back-test starts after four weeks of history, and not in the last nine days of a trace."""


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What a policy did over all starts; reductions are against `immediate` on the same devices."""

    name: str
    emissions_g_mean: float
    reduction: float
    reduction_p10: float
    reduction_p50: float
    reduction_p90: float
    makespan_h_mean: float
    makespan_h_p90: float
    late_starts: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """A back-test of policies over many start instants of a trace."""

    starts: int
    devices: int
    policies: tuple[PolicyResult, ...]
    schema_version: int = 1


def simulate(
    sweep: Sweep,
    provider: Provider,
    *,
    starts: Sequence[datetime],
    policies: Sequence[str | PolicyChoice] = (),
    tick: timedelta | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Simulation:
    """Drive a sweep's estimates from every start instant, once for each policy (the sweep's own if none is named).

    `provider` replays a trace. Raises `TraceError` when a sweep would run past its end.
    """
    sweep = replace(sweep, tick=tick or sweep.tick, replay=None)
    own = {sweep.policy.name: sweep.policy}  # a name alone means the spec's options, if it chose that policy
    named = [own.get(p, PolicyChoice(p)) if isinstance(p, str) else p for p in policies or [sweep.policy]]
    tried = [policy_for(choice) for choice in named]
    figures: list[list[tuple[float, float, int]]] = [[] for _ in tried]
    atonce: list[float] = []
    for count, start in enumerate(starts, 1):
        plain = _figures(rehearse(sweep, start, provider, Immediate()))
        atonce.append(plain[0])
        for policy, of in zip(tried, figures, strict=True):
            same = isinstance(policy, Immediate)
            of.append(plain if same else _figures(rehearse(sweep, start, provider, policy)))
        tell(count)
    results = tuple(_result(choice.name, of, atonce) for choice, of in zip(named, figures, strict=True))
    return Simulation(len(starts), len(sweep.devices), results)


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


def _figures(state: State) -> tuple[float, float, int]:
    """Emissions in g, makespan in h, late starts."""
    book = ledger(state)
    if book.ended_at > state.history.end:
        raise TraceError(
            f"a sweep started on {state.submitted_at:%Y-%m-%d %H:%M} runs until {book.ended_at:%Y-%m-%d %H:%M}, past "
            f"the end of the trace on {state.history.end:%Y-%m-%d %H:%M}; set an earlier --to"
        )
    late = 0
    for standing in state.standings.values():
        delay = state.sweep.tier(standing.experiment.tier).max_delay
        late += (standing.first_running_at or book.ended_at) > state.submitted_at + delay
    return book.total.emissions_g, book.makespan / HOUR, late


def _result(name: str, figures: Sequence[tuple[float, float, int]], atonce: Sequence[float]) -> PolicyResult:
    emissions, hours = np.array([f[0] for f in figures]), np.array([f[1] for f in figures])
    base = np.array(atonce)
    each = 1 - np.divide(emissions, base, out=np.ones_like(base), where=base > 0)
    p10, p50, p90 = (float(p) for p in np.percentile(each, (10, 50, 90)))
    total = float(base.sum())
    return PolicyResult(
        name=name,
        emissions_g_mean=float(emissions.mean()),
        reduction=1 - float(emissions.sum()) / total if total > 0 else 0.0,
        reduction_p10=p10,
        reduction_p50=p50,
        reduction_p90=p90,
        makespan_h_mean=float(hours.mean()),
        makespan_h_p90=float(np.percentile(hours, 90)),
        late_starts=sum(f[2] for f in figures),
    )
