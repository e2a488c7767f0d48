"""What a sweep did, beside the gate of its tiers: the same work, the same energy, the same grid."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import RELAXED, START, URGENT, grid, make_sweep
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.carbon.traces import HOUR
from gridsweep.loop import Provider
from gridsweep.policy.registry import policy_for
from gridsweep.render import markdown, terminal, wording
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.gate import alone, beside, comparable, gated
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.state import State
from gridsweep.sweep.designs import PUBLISHED_TIERS
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import RESTART
from gridsweep.sweep.sweep import PolicyChoice, Replay

LEVELS = [300.0] * 6 + [200.0] * 4 + [120.0] * 90
SWEEP = make_sweep(
    5, tiers=(URGENT, RELAXED), devices=2, steps=8, pack=3, rungs=Rungs((0.5,), (2,)),
    policy=PolicyChoice("lowest_window"), replay=Replay(START, "auto"),
)  # fmt: skip


def swept(sweep=SWEEP, levels=LEVELS) -> State:
    return rehearse(sweep, START, grid(*levels), policy_for(PolicyChoice("immediate")), Simulated(restart=RESTART))


def reported(state: State, provider: Provider) -> Report:
    report = make_report(state, ledger(state), baseline(state))
    return replace(report, alternatives=beside(report, gated(state, provider)))


def test_an_experiment_takes_its_share_of_the_stints_it_was_part_of():
    state = swept()
    spans = [attempt.ended_at - attempt.requested_at for attempt in state.attempts.values()]
    profiles = [alone(state, id) for id in state.standings]
    assert sum((p.duration for p in profiles), timedelta(0)) <= sum(spans, timedelta(0))  # without the restarts
    energy = sum(kwh for p in profiles for *_, kwh in p.segments)
    assert energy == pytest.approx(ledger(state).training.energy_kwh)
    for profile in profiles:
        assert all(offset + span <= profile.duration for offset, span, _ in profile.segments)


def test_the_gate_trains_one_at_a_time_when_its_tier_allows():
    state = swept()
    gate, book = gated(state, grid(*LEVELS))
    assert book.total.energy_kwh == pytest.approx(baseline(state)[1].total.energy_kwh)
    assert {len(a.stint.members) for a in gate.attempts.values()} == {1}
    starts = {id: (s.first_running_at - START) / HOUR for id, s in gate.standings.items()}
    assert min(starts.values()) == 4  # the longest delay of the urgent, whose limit is 250
    assert min(starts[id] for id, s in state.standings.items() if s.experiment.tier == "relaxed") == 10
    assert gate.count("done") == 5


def test_a_report_puts_the_run_beside_the_gate_and_at_once():
    state = swept()
    report = reported(state, grid(*LEVELS))
    run, gate, atonce = report.alternatives
    assert [row.name for row in report.alternatives] == ["this run", "gate of the tiers", "at once"]
    assert atonce.emissions_g == report.immediate_g and atonce.reduction == 0.0
    assert run.reduction == report.reduction
    assert gate.emissions_g < atonce.emissions_g and gate.makespan_h > atonce.makespan_h
    assert "## Comparison with the gate and with running at once" in markdown.render(report)
    assert any(line.startswith("gate: ") for line in terminal.headline(report))
    names = [row[0] for row in wording.alternatives(report)]
    assert names == ["this run", "gate of the tiers, 1 start late", "at once"]  # three urgent ones on two devices


def test_the_published_tiers_are_the_published_gate_and_late_starts_are_told():
    tiers = tuple(replace(tier, max_delay=timedelta(minutes=10)) for tier in PUBLISHED_TIERS)
    sweep = make_sweep(6, tiers=PUBLISHED_TIERS, replay=Replay(START, "auto"), policy=PolicyChoice("immediate"))
    assert reported(swept(sweep), grid(*LEVELS)).alternatives[1].name == "published gate"
    late = reported(swept(replace(sweep, tiers=tiers)), grid(*LEVELS)).alternatives[1]
    assert late.late == 5  # on one device, all but the first


def test_beyond_the_known_grid_nothing_is_said_of_emissions():
    row = reported(swept(), grid(*LEVELS[:8])).alternatives[1]
    assert row.emissions_g is None and row.reduction is None


def test_only_a_sweep_that_has_ended_under_another_policy_is_compared():
    assert comparable(swept())
    assert not comparable(swept(replace(SWEEP, replay=Replay(START, 300.0))))
    assert not comparable(swept(replace(SWEEP, replay=None)))
    assert not comparable(swept(replace(SWEEP, policy=PolicyChoice("threshold"))))
    assert not comparable(State())
