"""A report as a value: the results of a sweep, its cost, and the cost of running at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import zip_longest

from gridsweep.accounting import compute_gardener as gardener
from gridsweep.accounting.caveats import caveats
from gridsweep.accounting.certificate import Certificate, certificate
from gridsweep.accounting.compute_gardener import Gardened
from gridsweep.accounting.leaderboard import Effect, Parting, Row, effects, parted, ranked
from gridsweep.accounting.ledger import Account, Ledger
from gridsweep.accounting.savings import Alternative, Promise, Settlement, compare, settlement
from gridsweep.accounting.winner_caveats import winner_caveats
from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import HOUR, or_nones
from gridsweep.selection.winners import winner
from gridsweep.state.asked import RequestRow, requests
from gridsweep.state.asks import ALL
from gridsweep.state.overdue import Overdue, overdue
from gridsweep.state.standings import Status
from gridsweep.state.state import State
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import Sweep
from gridsweep.sweep.tiers import TRAILING, Percentile, Tier


@dataclass(frozen=True, slots=True)
class Bar:
    """A stint on a device, for the timeline; `end` is the present while it still runs."""

    experiment: str
    tier: str
    device: str
    start: datetime
    end: datetime
    how: str


@dataclass(frozen=True, slots=True)
class RungRow:
    """The decision at a rung. `disagreed` counts experiments that the other score would not keep; None: unknown."""

    step: int
    at: datetime
    kept: tuple[str, ...]
    stopped: tuple[str, ...]
    tied: tuple[str, ...]
    diverged: tuple[str, ...]
    disagreed: int | None
    by: str


@dataclass(frozen=True, slots=True)
class Outage:
    """A period without live grid data: the fallback that answered, and why. `end` is None while the outage lasts."""

    start: datetime
    end: datetime | None
    freshness: str
    why: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Totals of some of a sweep's experiments: energy in kWh, emissions in g, mean gCO2eq/kWh, makespan in hours."""

    experiments: int
    energy_kwh: float
    emissions_g: float
    mean_intensity: float | None
    makespan_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The content of a report. Emissions in g CO2eq, energy in kWh, intensities in gCO2eq/kWh, times in UTC.

    `immediate_*` is the replay of the ended experiments as if run at once, on the same devices with the same energy.
    `reference` is the experiment that losses are compared with: the baseline, or the best if a rung stopped the
    baseline; `parted` is then their difference at that rung. `training` + `idle` = the total; `wasted` is the part of
    training that no result kept, `reloaded` the part that loaded interrupted stints again. `thresholds` are the tiers'
    limits in order of rank, percentiles as at the end. `meaning` says what a gram counts (average or marginal, which
    basis); `qualities` is the energy (kWh) by quality of the grid data. `alternatives` compares a replayed sweep with
    the gate of its tiers and with running at once. `ended` are the totals of the ended experiments, the scope of every
    comparison; None before there is one. `overdue` lists the missed deadlines; `promise` is the plan's promise;
    `requests` are what users asked.
    """

    sweep: str
    model: str
    dataset: str
    policy: str
    zone: str
    source: str
    quality: str
    meaning: str
    qualities: dict[Quality, float]
    outages: tuple[Outage, ...]
    replay: str
    submitted_at: datetime
    ended_at: datetime
    state: str
    counts: dict[str, int]
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    loss_noise: float | None
    energy_kwh: float = 0.0
    emissions_g: float = 0.0
    unknown_kwh: float = 0.0
    idle_kwh: float = 0.0
    idle_g: float = 0.0
    wasted_kwh: float = 0.0
    wasted_g: float = 0.0
    reloaded_kwh: float = 0.0
    reloaded_g: float = 0.0
    mean_intensity: float | None = None
    ended: Scope | None = None
    immediate_g: float | None = None
    immediate_intensity: float | None = None
    saving_g: float | None = None
    reduction: float | None = None
    settlement: Settlement | None = None
    certificate: Certificate | None = None
    promise: Promise | None = None
    makespan_h: float = 0.0
    immediate_makespan_h: float | None = None
    energy_sources: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str]
    gardened: dict[str, Gardened]
    notes: tuple[str, ...]
    bars: tuple[Bar, ...] = ()
    immediate_bars: tuple[Bar, ...] = ()
    intensity_start: datetime
    intensity_step_h: float
    intensity: tuple[float | None, ...]
    thresholds: dict[str, float]
    baseline: str | None
    total_steps: int = 0
    rungs: tuple[RungRow, ...] = ()
    steps_share: float | None = None
    reference: str | None = None
    parted: Parting | None = None
    alternatives: tuple[Alternative, ...] = ()
    overdue: tuple[Overdue, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    schema_version: int = 3

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows and self.rows[0].place == 1 else None


def make_report(
    state: State, book: Ledger, other: tuple[State, Ledger] | None, promise: Promise | None = None
) -> Report:
    """Fold a state, its ledger, the baseline's replay and the plan's promise into a report."""
    sweep = state.sweep
    rows = ranked(state, book, other[1] if other else None)
    best = rows[0].experiment if rows and rows[0].place == 1 else None
    grid = state.history.between(state.submitted_at - 2 * HOUR, max(book.ended_at, state.submitted_at + HOUR))
    made = Report(
        sweep=sweep.name,
        model=sweep.model.id,
        dataset=sweep.dataset.id,
        policy=sweep.policy.name if state.collected is None else f"gate {state.collected.gate}",
        zone=sweep.carbon.zone,
        source=", ".join(dict.fromkeys(p.title for p in state.grid.provenances)),
        quality=", ".join(state.grid.qualities),
        meaning=_meaning(state),
        qualities=book.qualities,
        outages=tuple(outages(state, book.ended_at)),
        replay=_replay(sweep),
        submitted_at=state.submitted_at,
        ended_at=book.ended_at,
        state=_condition(state),
        counts={status: n for status in _STATUSES if (n := state.count(status))},
        rows=rows,
        effects=effects(rows, sweep.estimates.loss_noise),
        loss_noise=sweep.estimates.loss_noise,
        facts={name: value for name, value in state.facts.items() if not name.startswith(f"{gardener.FACT}/")},
        gardened=gardener.from_facts(state.facts),
        notes=(*caveats(state, book), *winner_caveats(state, rows)),
        intensity_start=grid.start,
        intensity_step_h=grid.step / HOUR,
        intensity=or_nones(grid.values),
        thresholds={tier.name: _limit(state, tier) for tier in sorted(sweep.tiers, key=lambda tier: tier.rank)},
        baseline=sweep.baseline,
        total_steps=sweep.total_steps,
        rungs=_rungs(state),
        steps_share=_share(state),
        reference=_reference(state, rows),
        parted=parted(state, best),
        overdue=tuple(overdue(state)),
        requests=requests(state),
        promise=promise,
    )
    return _compared(_spent(made, state, book), state, book, other)


def _spent(made: Report, state: State, book: Ledger) -> Report:
    """Return the report with its energy and emissions."""
    return replace(
        made,
        energy_kwh=book.total.energy_kwh,
        emissions_g=book.total.emissions_g,
        unknown_kwh=book.total.unknown_kwh,
        idle_kwh=book.idle.energy_kwh,
        idle_g=book.idle.emissions_g,
        wasted_kwh=book.wasted.energy_kwh,
        wasted_g=book.wasted.emissions_g,
        reloaded_kwh=book.reloaded.energy_kwh,
        reloaded_g=book.reloaded.emissions_g,
        mean_intensity=book.total.mean_intensity,
        makespan_h=book.makespan / HOUR,
        energy_sources=book.sources,
        bars=tuple(bars(state, book.ended_at)),
    )


def _compared(made: Report, state: State, book: Ledger, other: tuple[State, Ledger] | None) -> Report:
    """Return the report with the comparison with running at once; unchanged if there is nothing to compare.

    The comparison covers the ended experiments only; `ended` holds their totals.
    """
    found = compare(state, book, other[1] if other else None)
    if other is None or found.immediate_g is None:
        return made
    base = other[1]
    return replace(
        made,
        ended=_ended(state, book),
        immediate_g=found.immediate_g,
        immediate_intensity=base.total.mean_intensity,
        saving_g=found.saving_g,
        reduction=found.reduction,
        settlement=settlement(state, other[0]),
        certificate=certificate(state, found),
        immediate_makespan_h=base.makespan / HOUR,
        immediate_bars=tuple(bars(other[0], base.ended_at)),
    )


def _ended(state: State, book: Ledger) -> Scope:
    """Return the totals of the ended experiments, with the idle power."""
    ends = {id: standing.ended_at for id, standing in state.standings.items() if standing.ended_at}
    account = sum((book.experiments[id] for id in ends), Account()) + book.idle
    span = book.makespan if len(ends) == len(state.standings) else max(ends.values()) - state.submitted_at
    return Scope(len(ends), account.energy_kwh, account.emissions_g, account.mean_intensity, span / HOUR)


def _reference(state: State, rows: tuple[Row, ...]) -> str | None:
    """Return the experiment that losses are compared with: the baseline if it has a place, else the winner."""
    placed = (row.experiment for row in rows if row.experiment == state.sweep.baseline and row.place)
    return next(placed, winner(state))


def _replay(sweep: Sweep) -> str:
    """Return the start and speed of the replay as text; empty on the wall clock."""
    if sweep.replay is None:
        return ""
    speed = sweep.replay.speed
    pace = "at the pace of the work" if speed == "auto" else f"at {number(speed)} times the speed"
    return f"from {sweep.replay.start:%Y-%m-%d %H:%M} UTC {pace}"


def _rungs(state: State) -> tuple[RungRow, ...]:
    """Return the decisions of each rung in one row, also if experiments were judged one by one."""
    found: dict[int, RungRow] = {}
    for r in state.rankings:
        row = RungRow(r.step, r.at, r.kept, r.stopped, r.tied, r.diverged, r.disagreed, r.by)
        if before := found.get(r.step):
            row = replace(
                before,
                at=r.at,
                kept=before.kept + r.kept,
                stopped=before.stopped + r.stopped,
                diverged=before.diverged + r.diverged,
            )
        found[r.step] = row
    return tuple(found[step] for step in sorted(found))


def _share(state: State) -> float | None:
    """Return the share of their steps that experiments made and kept, on average; None without rungs.

    Repeats do not count: without rungs, not all experiments would be repeated.
    """
    if state.sweep.rungs is None:
        return None
    sweep = state.sweep
    made = [sweep.level(s.experiment, s.step) for s in state.standings.values() if s.experiment.repeats is None]
    return sum(made) / (sweep.total_steps * len(made))


def outages(state: State, end: datetime) -> list[Outage]:
    """Return the periods in which a fallback answered instead of live data, up to the sweep's end."""
    found = []
    for answer, after in zip_longest(state.answers, state.answers[1:]):
        if answer.rung != "live" and answer.at <= end:
            found.append(Outage(answer.at, after.at if after else None, answer.rung, answer.why))
    return found


def _meaning(state: State) -> str:
    if not state.grid.provenances:
        return ""
    kind, basis = state.grid.provenances[0].meaning
    return f"{kind}, {basis}" if basis != "unknown" else f"{kind}, basis unknown"


def _limit(state: State, tier: Tier) -> float:
    if not isinstance(tier.threshold, Percentile):
        return tier.threshold
    return state.history.percentile(tier.threshold.percent, state.history.end, TRAILING)


_STATUSES: tuple[Status, ...] = ("done", "running", "waiting", "reached", "failed", "stopped", "cancelled")


def bars(state: State, end: datetime) -> list[Bar]:
    """Return a bar for every stint that held a device."""
    return [
        Bar(
            member.experiment,
            state.standings[member.experiment].experiment.tier,
            attempt.device,
            attempt.requested_at,
            max(attempt.requested_at, attempt.ended_at or end),
            attempt.end or "running",
        )
        for attempt in state.attempts.values()
        for member in attempt.stint.members
    ]


def _condition(state: State) -> str:
    if state.halted:
        return f"halted: {state.halted}"
    if (paused := state.asks.paused.get(ALL)) and state.left and not state.stopping:
        return f"paused by {paused.by}"
    if state.active:
        return "stopping" if state.stopping else "running"
    if state.left:
        return f"stopped: {state.stopping}" if state.stopping else "waiting"
    return "done"
