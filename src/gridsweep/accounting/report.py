"""A report as a value: what the sweep found, what it cost, and what running at once would have cost."""

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
from gridsweep.accounting.savings import Promise, Settlement, compare, settlement
from gridsweep.accounting.winner_caveats import winner_caveats
from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import HOUR, or_none
from gridsweep.selection.winners import winner
from gridsweep.state.overdue import Overdue, overdue
from gridsweep.state.standings import Status
from gridsweep.state.state import State
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import Sweep
from gridsweep.sweep.tiers import TRAILING, Percentile, Tier


@dataclass(frozen=True, slots=True)
class Bar:
    """A stint on a device, for the picture; `end` is the present for one that still runs."""

    experiment: str
    tier: str
    device: str
    start: datetime
    end: datetime
    how: str


@dataclass(frozen=True, slots=True)
class RungRow:
    """What a rung decided: of those that reached it so many went on. `disagreed` by another score; None: not known."""

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
    """A time in which nobody saw the grid: which rung answered instead, and why. `end` is None while it lasts."""

    start: datetime
    end: datetime | None
    freshness: str
    why: str


@dataclass(frozen=True, slots=True)
class Alternative:
    """The same work run in another way, on the same grid; `reduction` is against running at once, as a share.

    `late` experiments started after their tier's longest delay. Emissions are None where part of the grid is unknown.
    """

    name: str
    emissions_g: float | None
    reduction: float | None
    makespan_h: float
    late: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What some of a sweep's experiments took: energy in kWh, emissions in g, gCO2eq/kWh met on average, hours."""

    experiments: int
    energy_kwh: float
    emissions_g: float
    mean_intensity: float | None
    makespan_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report says. Emissions in g CO2eq, energy in kWh, intensities in gCO2eq/kWh, times in UTC.

    `immediate_*` is the replay of the ended experiments as if run at once, on the same devices with the same energy.
    `reference` is the experiment that losses are compared with: the baseline, or the best where a rung stopped the
    baseline; `parted` then says how the two stood there. `training` + `idle` = the total; `wasted` is the part of
    training that no result kept. `thresholds` are the tiers' limits in order of rank, a percentile as it stood in the
    end. `meaning` says what a gram counts (average or marginal, which basis), `qualities` how much energy (kWh) met
    grid figures of each quality. `alternatives` puts a replayed sweep beside the gate of its tiers and running at once.
    grid figures of each quality. `ended` is what the experiments that have ended took, the scope of every comparison;
    None before there is one. `overdue` lists the deadlines that were missed, `promise` what the plan had promised.
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
        policy=sweep.policy.name,
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
        intensity=tuple(map(or_none, grid.values.tolist())),
        thresholds={tier.name: _limit(state, tier) for tier in sorted(sweep.tiers, key=lambda tier: tier.rank)},
        baseline=sweep.baseline,
        total_steps=sweep.total_steps,
        rungs=_rungs(state),
        steps_share=_share(state),
        reference=_reference(state, rows),
        parted=parted(state, best),
        overdue=tuple(overdue(state)),
        promise=promise,
    )
    return _compared(_spent(made, state, book), state, book, other)


def _spent(made: Report, state: State, book: Ledger) -> Report:
    """With what was drawn and emitted."""
    return replace(
        made,
        energy_kwh=book.total.energy_kwh,
        emissions_g=book.total.emissions_g,
        unknown_kwh=book.total.unknown_kwh,
        idle_kwh=book.idle.energy_kwh,
        idle_g=book.idle.emissions_g,
        wasted_kwh=book.wasted.energy_kwh,
        wasted_g=book.wasted.emissions_g,
        mean_intensity=book.total.mean_intensity,
        makespan_h=book.makespan / HOUR,
        energy_sources=book.sources,
        bars=tuple(bars(state, book.ended_at)),
    )


def _compared(made: Report, state: State, book: Ledger, other: tuple[State, Ledger] | None) -> Report:
    """With what running at once would have emitted, and what was possible; unchanged where there is nothing to compare.

    All of it is of the experiments that have ended, and `ended` says what those took.
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
    """What the experiments that have ended took, with the idle power."""
    ends = {id: standing.ended_at for id, standing in state.standings.items() if standing.ended_at}
    account = sum((book.experiments[id] for id in ends), Account()) + book.idle
    span = book.makespan if len(ends) == len(state.standings) else max(ends.values()) - state.submitted_at
    return Scope(len(ends), account.energy_kwh, account.emissions_g, account.mean_intensity, span / HOUR)


def _reference(state: State, rows: tuple[Row, ...]) -> str | None:
    """What losses are compared with: the baseline where it has a place, else the winner."""
    placed = (row.experiment for row in rows if row.experiment == state.sweep.baseline and row.place)
    return next(placed, winner(state))


def _replay(sweep: Sweep) -> str:
    """From when on the grid was replayed, and how fast; empty on the wall clock."""
    if sweep.replay is None:
        return ""
    speed = sweep.replay.speed
    pace = "as the work was done" if speed == "auto" else f"at {number(speed)} times the speed"
    return f"from {sweep.replay.start:%Y-%m-%d %H:%M} UTC {pace}"


def _rungs(state: State) -> tuple[RungRow, ...]:
    """What each rung decided, in one row, even where it judged one after another."""
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
    """The share of all optimizer steps that were made and kept; None where nothing is left out on purpose.

    Repeats are not counted: nobody would have made them of all.
    """
    if state.sweep.rungs is None:
        return None
    steps = [s.step for s in state.standings.values() if s.experiment.repeats is None]
    return sum(steps) / (state.sweep.total_steps * len(steps))


def outages(state: State, end: datetime) -> list[Outage]:
    """The times in which another rung than a live answer stood in, up to the sweep's end."""
    found = []
    for answer, after in zip_longest(state.answers, state.answers[1:]):
        if answer.rung != "live" and answer.at <= end:
            found.append(Outage(answer.at, after.at if after else None, answer.rung, answer.why))
    return found


def _meaning(state: State) -> str:
    if not state.grid.provenances:
        return ""
    kind, basis = state.grid.provenances[0].meaning
    return f"{kind}, {basis}" if basis != "unknown" else f"{kind}, basis not told"


def _limit(state: State, tier: Tier) -> float:
    if not isinstance(tier.threshold, Percentile):
        return tier.threshold
    return state.history.percentile(tier.threshold.percent, state.history.end, TRAILING)


_STATUSES: tuple[Status, ...] = ("done", "running", "waiting", "reached", "failed", "stopped")


def bars(state: State, end: datetime) -> list[Bar]:
    """Every stint that held a device."""
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
    if state.active:
        return "stopping" if state.stopping else "running"
    if state.left:
        return f"stopped: {state.stopping}" if state.stopping else "waiting"
    return "done"
