"""Back-tests: policies run over a recorded trace from many start instants, compared with the optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import TraceError
from gridsweep.loop import Provider
from gridsweep.optima import Optimum
from gridsweep.policy.gates import Immediate
from gridsweep.policy.situation import Policy
from gridsweep.schedule.capacity import check_deadline
from gridsweep.simulation.bounds import optimum, what_comes
from gridsweep.simulation.comparison import Bound, PolicyResult, StartResult, _bound, compared
from gridsweep.simulation.conditions import Conditions, drawn
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Foreseen
from gridsweep.state.state import State
from gridsweep.sweep.stints import RESTART
from gridsweep.sweep.sweep import Sweep

HISTORY = timedelta(days=28)
ROOM = timedelta(days=9)
"""A back-test starts after four weeks of history, and ends nine days before the end of a trace."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A back-test of policies over many start instants of a trace, with the optimum on these devices.

    `bound` is without pauses, `bound_pausing` with free pauses; both are None if not requested, or if no start allows
    one. `chain` lists (experiments, step): how many are trained up to which step, with rungs. Reductions are against
    running the sweep at once, or the sweep named by `against`; `energy_share` is then this sweep's energy as a share
    of the other's, both run at once. `measured` names the source of measured estimates. `unknown_starts` are left out:
    from them a policy, or running at once, uses energy in hours of unknown intensity.
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
    unknown_starts: int = 0
    schema_version: int = 5


def simulate(
    sweep: Sweep,
    provider: Provider,
    starts: Sequence[datetime],
    conditions: Conditions,
    tell: Callable[[int], None] = lambda done: None,
) -> Simulation:
    """Run a sweep by its estimates from every start instant, once for each policy.

    `provider` replays a trace; `tell` is called with the number of starts done. Raise `TraceError` if a sweep runs past
    the end of the trace, `SpecError` for an unknown policy, `DeadlineError` if the deadline cannot be met by the
    estimates from some start.
    """
    trial = _Trial.of(sweep, provider, conditions)
    relative = isinstance(trial.sweep.finish_by, timedelta)
    for start in starts[:1] if relative else starts:  # a relative deadline is the same from every start
        check_deadline(trial.sweep, start)
    rounds: list[_Round] = []
    kept: list[datetime] = []
    for n, start in enumerate(starts, 1):
        found = trial.drive(start)
        if not any(result.unknown_kwh for result in (*found.outcomes, found.atonce)):
            rounds.append(found)
            kept.append(start)
        tell(n)
    if not kept:
        raise TraceError(
            f"from each of {len(starts)} starts, some work falls into hours of unknown intensity; choose --from and "
            "--to where the trace has values"
        )
    sweep, other = trial.sweep, trial.other
    atonce = [round_.atonce for round_ in rounds]
    best, pausing = [round_.best for round_ in rounds], [round_.best_pausing for round_ in rounds]
    results = []
    for i, (label, _) in enumerate(trial.policies):
        of = [round_.outcomes[i] for round_ in rounds]
        free = bool(trial.factors) or any(outcome.pauses for outcome in of)
        results.append(compared(label, of, atonce, pausing if free else best))
    deadline = sweep.finish_by
    return Simulation(
        starts=len(kept),
        unknown_starts=len(starts) - len(kept),
        devices=len(sweep.devices),
        policies=tuple(results),
        forecast=conditions.forecast,
        finish_by_h=deadline / HOUR if isinstance(deadline, timedelta) else None,
        bound=_bound(kept, best, atonce),
        bound_pausing=_bound(kept, pausing, atonce),
        chain=_chain(sweep),
        against=None if other is None else other.name,
        energy_share=None if other is None else float(np.mean([round_.energy_share for round_ in rounds])),
        measured=sweep.estimates.measured,
    )


@dataclass(frozen=True, slots=True)
class _Round:
    """The results of one start instant: the outcome of every policy and of running at once, and the optimum.

    `energy_share` is the sweep's energy as a share of the energy of the compared sweep, both run at once.
    """

    outcomes: tuple[StartResult, ...]
    atonce: StartResult
    energy_share: float
    best: Optimum | None
    best_pausing: Optimum | None


@dataclass(frozen=True, slots=True)
class _Trial:
    """A sweep under its conditions, and the `other` sweep that reductions are against."""

    sweep: Sweep
    other: Sweep | None
    provider: Provider
    policies: Sequence[tuple[str, Policy]]
    factors: Mapping[str, float]
    perfect: bool
    bounds: bool

    @classmethod
    def of(cls, sweep: Sweep, provider: Provider, asked: Conditions) -> _Trial:
        own = asked.of(sweep)
        other = None if asked.against is None else replace(asked, finish_by=None).of(asked.against)
        factors = drawn(own, asked.lengths) if asked.lengths else {}
        return cls(own, other, provider, asked.tried(own), factors, asked.forecast == "perfect", asked.bounds)

    def drive(self, start: datetime) -> _Round:
        """Run the sweep from one start instant under every policy."""
        sweep, factors = self.sweep, self.factors
        comes = what_comes(sweep, self.provider, start) if self.bounds or self.perfect else None
        seen = Foreseen(comes, self.provider.read(start).provenance) if comes and self.perfect else self.provider
        plain = play(sweep, start, seen, Immediate(), factors)
        atonce = plain if self.other is None else play(self.other, start, seen, Immediate())
        outcomes = tuple(
            plain if isinstance(policy, Immediate) else play(sweep, start, seen, policy, factors)
            for _, policy in self.policies
        )
        best, best_pausing = None, None
        if comes and self.bounds:
            best = None if factors else optimum(sweep, comes, start)
            best_pausing = optimum(sweep, comes, start, factors, pausing=True)
        return _Round(outcomes, atonce, plain.energy_kwh / atonce.energy_kwh, best, best_pausing)


def _chain(sweep: Sweep) -> tuple[tuple[int, int], ...]:
    if sweep.rungs is None:
        return ()
    carried = len(sweep.rungs.keep_always)
    counts = [len(sweep.experiments)]
    for keep in sweep.rungs.keep:
        counts.append(min(counts[-1], keep + carried))
    return tuple(zip(counts, sweep.stages, strict=True))


def play(
    sweep: Sweep, start: datetime, provider: Provider, policy: Policy, factors: Mapping[str, float] | None = None
) -> StartResult:
    """Run one sweep from one start instant; `factors` multiply the estimated durations of experiments.

    Raise `TraceError` if the sweep runs past the end of the provider's trace.
    """
    state = rehearse(sweep, start, provider, policy, Simulated(factors=factors, restart=RESTART))
    book = ledger(state)
    if book.ended_at > state.history.end:
        raise TraceError(
            f"a sweep started on {state.submitted_at:%Y-%m-%d %H:%M} runs until {book.ended_at:%Y-%m-%d %H:%M}, past "
            f"the end of the trace on {state.history.end:%Y-%m-%d %H:%M}; set an earlier --to"
        )
    attempts = state.attempts.values()
    return StartResult(
        book.total.emissions_g,
        book.total.energy_kwh,
        book.makespan / HOUR,
        _late_starts(state, book.ended_at),
        sum(attempt.end == "paused" for attempt in attempts),
        tuple(sorted(attempt.requested_at for attempt in attempts)),
        _late_ends(state, book.ended_at),
        book.total.unknown_kwh,
    )


def start_instants(
    trace: Trace, every: timedelta, first: datetime | None = None, end: datetime | None = None
) -> list[datetime]:
    """Return the instants from `first` to before `end`, `every` apart.

    By default from 28 days into the trace to nine days before its end. Raise `TraceError` if there is none.
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


def _late_starts(state: State, ended_at: datetime) -> int:
    """Return how many experiments started after their tier's max_delay, or too late to end by the deadline.

    With packs or rungs only the former counts: an experiment's own stints do not tell how long it takes.
    """
    sweep, late = state.sweep, 0
    fastest = max(device.speed for device in sweep.devices)
    deadline = None if sweep.staged else sweep.deadline(state.submitted_at)
    for standing in state.standings.values():
        latest = standing.submitted_at + sweep.tier(standing.experiment.tier).max_delay
        if deadline is not None:
            latest = min(latest, deadline - sweep.estimates.duration / fastest)
        late += (standing.first_running_at or ended_at) > latest
    return late


def _late_ends(state: State, ended_at: datetime) -> int:
    """Return how many experiments ended after `finish_by`."""
    deadline = state.sweep.deadline(state.submitted_at)
    if deadline is None:
        return 0
    return sum((standing.ended_at or ended_at) > deadline for standing in state.standings.values())
