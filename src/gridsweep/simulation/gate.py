"""The gate of the tiers applied to a sweep's work: the emissions of the published rule on the same grid."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from gridsweep.accounting.ledger import Ledger, ledger
from gridsweep.accounting.pieces import Profile, joined, stages_of
from gridsweep.accounting.report import Report
from gridsweep.accounting.savings import Alternative
from gridsweep.carbon.traces import HOUR
from gridsweep.loop import Provider
from gridsweep.policy.gates import Threshold
from gridsweep.simulation.rehearsal import additions, rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.overdue import overdue
from gridsweep.state.state import State
from gridsweep.sweep.designs import PUBLISHED_TIERS
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.sweep import Sweep

GATE = "threshold"


def comparable(state: State) -> bool:
    """Return whether the gate can be compared: all experiments have ended, on a replayed clock that follows the work.

    The gate may run longer than the sweep did, so the grid must be known beyond the sweep's end.
    """
    ended = not state.left and state.count("done") > 0
    return ended and state.sweep.follows_work and state.sweep.policy.name != GATE


def gated(state: State, provider: Provider) -> tuple[State, Ledger]:
    """Return the same work under the gate: every experiment as far as it was trained, with the energy it used.

    The gate trains one experiment per device from start to end, as published. A member of a pack takes its share of the
    pack's time. Lost attempts, reloads and pauses are left out, as in the baseline.
    """
    sweep = state.sweep
    alike = len({(d.speed, d.power_w) for d in sweep.devices}) == 1
    profiles: dict[tuple[str, int], Profile] = {}
    experiments: dict[str, Experiment] = {}
    for id, standing in state.standings.items():
        if standing.ended_at is None or not standing.attempts:
            continue
        profiles[id, sweep.total_of(standing.experiment)] = alone(state, id)
        device = standing.experiment.device if alike else state.attempts[standing.attempts[-1]].device
        experiments[id] = replace(standing.experiment, device=device)
    later = tuple(event for event in additions(state, experiments) if event.request)  # a user's, when they were asked
    added = {experiment.id for event in later for experiment in event.experiments}
    first = tuple(e for id, e in experiments.items() if id not in added)
    published = replace(sweep, experiments=first, rungs=None, pack=1, repeats=None, propose=None, finish_by=None)
    made = rehearse(published, state.submitted_at, provider, Threshold(), Simulated(profiles), foreseen=later)
    return made, ledger(made)


def alone(state: State, id: str) -> Profile:
    """Return an experiment's profile as a single run: in a pack, its share of the time and of the energy."""
    attempts = [state.attempts[name] for name in state.standings[id].attempts]
    length = timedelta(0)
    segments: list[tuple[timedelta, timedelta, float]] = []
    for stage in sorted({stage for attempt in attempts for stage in stages_of(attempt, id)}):
        pieces = [attempt for attempt in attempts if stage in stages_of(attempt, id)]
        profile, members = joined(pieces), len(pieces[-1].stint.members)
        segments += [(length + offset / members, span / members, kwh) for offset, span, kwh in profile.segments]
        length += profile.duration / members
    return Profile(length, tuple(segments))


def beside(report: Report, other: tuple[State, Ledger]) -> tuple[Alternative, ...]:
    """Return the rows of the comparison: the sweep as it ran, under the gate, and at once."""
    gate, book = other
    emitted = None if book.total.unknown_kwh else book.total.emissions_g
    kept = None if report.saving_g is None or report.immediate_g is None else report.immediate_g - report.saving_g

    def row(name: str, emissions_g: float | None, makespan_h: float, late: int = 0) -> Alternative:
        reduction = 1 - emissions_g / report.immediate_g if emissions_g is not None and report.immediate_g else None
        return Alternative(name, emissions_g, reduction, makespan_h, late)

    return (
        row("this run", kept, report.makespan_h),
        row(_name(gate.sweep), emitted, book.makespan / HOUR, sum(missed.kind == "start" for missed in overdue(gate))),
        row("at once", report.immediate_g, report.immediate_makespan_h or 0.0),
    )


def _name(sweep: Sweep) -> str:
    return "published gate" if sweep.tiers == PUBLISHED_TIERS else "gate of the tiers"
