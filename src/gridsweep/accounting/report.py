"""A report as a value: what the sweep found, what it cost, and what running at once would have cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest

from gridsweep.accounting import compute_gardener as gardener
from gridsweep.accounting.caveats import caveats
from gridsweep.accounting.certificate import Certificate, certificate
from gridsweep.accounting.compute_gardener import Gardened
from gridsweep.accounting.leaderboard import Effect, Parting, Row, effects, parted, ranked
from gridsweep.accounting.ledger import Ledger
from gridsweep.accounting.savings import Settlement, compare, settlement
from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import HOUR, or_none
from gridsweep.selection.rank_intervals import best_against_last
from gridsweep.selection.winners import winner
from gridsweep.state.standings import Standing, Status
from gridsweep.state.state import State
from gridsweep.sweep.experiments import number
from gridsweep.sweep.search_space import edges
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
    rung: str
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
class Report:
    """Everything a report says. Emissions in g CO2eq, energy in kWh, intensities in gCO2eq/kWh, times in UTC.

    `immediate_*` is the replay of the ended experiments as if run at once, on the same devices with the same energy.
    `reference` is the experiment that losses are compared with: the baseline, or the best where a rung stopped the
    baseline; `parted` then says how the two stood there. `training` + `idle` = the total; `wasted` is the part of
    training that no result kept. `thresholds` are the tiers' limits in order of rank, a percentile as it stood in the
    end. `meaning` says what a gram counts (average or marginal, which basis), `qualities` how much energy (kWh) met
    grid figures of each quality. `alternatives` puts a replayed sweep beside the gate of its tiers and running at once.
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
    energy_kwh: float
    emissions_g: float
    unknown_kwh: float
    idle_kwh: float
    idle_g: float
    wasted_kwh: float
    wasted_g: float
    mean_intensity: float | None
    immediate_g: float | None
    immediate_intensity: float | None
    saving_g: float | None
    reduction: float | None
    settlement: Settlement | None
    certificate: Certificate | None
    makespan_h: float
    immediate_makespan_h: float | None
    energy_sources: dict[str, float]
    facts: dict[str, str]
    gardened: dict[str, Gardened]
    notes: tuple[str, ...]
    bars: tuple[Bar, ...]
    immediate_bars: tuple[Bar, ...]
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
    schema_version: int = 3

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows and self.rows[0].place == 1 else None


def make_report(state: State, book: Ledger, other: tuple[State, Ledger] | None) -> Report:
    """Fold a state, its ledger and the baseline's replay into a report."""
    sweep = state.sweep
    rows = ranked(state, book, other[1] if other else None)
    best = rows[0].experiment if rows and rows[0].place == 1 else None
    found = compare(state, book, other[1] if other else None)
    base = other[1].total if other else None
    first = state.submitted_at - 2 * HOUR
    grid = state.history.between(first, max(book.ended_at, state.submitted_at + HOUR))
    return Report(
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
        energy_kwh=book.total.energy_kwh,
        emissions_g=book.total.emissions_g,
        unknown_kwh=book.total.unknown_kwh,
        idle_kwh=book.idle.energy_kwh,
        idle_g=book.idle.emissions_g,
        wasted_kwh=book.wasted.energy_kwh,
        wasted_g=book.wasted.emissions_g,
        mean_intensity=book.total.mean_intensity,
        immediate_g=found.immediate_g,
        immediate_intensity=base.mean_intensity if base else None,
        saving_g=found.saving_g,
        reduction=found.reduction,
        settlement=settlement(state, other[0] if other else None),
        certificate=certificate(state, found),
        makespan_h=book.makespan / HOUR,
        immediate_makespan_h=other[1].makespan / HOUR if other else None,
        energy_sources=book.sources,
        facts={name: value for name, value in state.facts.items() if not name.startswith(f"{gardener.FACT}/")},
        gardened=gardener.from_facts(state.facts),
        notes=(*caveats(state, book), *_hygiene(state, rows)),
        bars=tuple(bars(state, book.ended_at)),
        immediate_bars=tuple(bars(other[0], other[1].ended_at)) if other else (),
        intensity_start=grid.start,
        intensity_step_h=grid.step / HOUR,
        intensity=tuple(map(or_none, grid.values.tolist())),
        thresholds={tier.name: _limit(state, tier) for tier in sorted(sweep.tiers, key=lambda tier: tier.rank)},
        baseline=sweep.baseline,
        total_steps=sweep.total_steps,
        rungs=_rungs(state),
        steps_share=_share(state),
        reference=next(
            (row.experiment for row in rows if row.experiment == sweep.baseline and row.place), winner(state)
        ),
        parted=parted(state, best),
    )


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


def _hygiene(state: State, rows: tuple[Row, ...]) -> list[str]:
    """What the winner says of the space."""
    if not rows or rows[0].loss is None or state.left:
        return []
    tried = [s.experiment.params for s in state.standings.values()]
    best = state.standings[rows[0].experiment].experiment.params
    said = [f"The winner sits on the edge of the space: {edge}." for edge in edges(best, tried)]
    return said + [text for row in rows if (text := _overfitted(state.standings[row.experiment]))]


def about_the_winner(state: State, rows: tuple[Row, ...]) -> list[str]:
    """Return the notes about the winner alone: edges of the space, and whether it overfits."""
    return _hygiene(state, rows[:1])


def _overfitted(standing: Standing) -> str:
    """That an experiment was surely better at a rung than at its end; empty where it was not, or nobody knows."""
    judged = standing.outcome.judged if standing.outcome else None
    earlier = {step: o.losses for step, o in standing.scores.items() if o.losses and o.losses.finite}
    if judged is None or not earlier or any(losses.tokens != judged.tokens for losses in earlier.values()):
        return ""
    found = best_against_last({**earlier, standing.step: judged})
    if not found.overfitted:
        return ""
    low, high = found.difference.interval(found.confidence)
    return (
        f"{standing.experiment.id} was better at step {found.best} than at its end, by {found.difference.mean:.4f} "
        f"({low:.4f} to {high:.4f}, averaged weights): it overfits; train it for less."
    )


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
