"""The certificate: what was possible for a sweep that has ended, and how much of it was reached."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import DAYS, RELAXED, START, URGENT, after, grid, make_sweep, rehearsed, sweeps
from gridsweep.accounting.certificate import Certificate, certificate
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.pieces import Profile
from gridsweep.accounting.report import Report, make_report
from gridsweep.accounting.savings import compare
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.optima import Job, bound
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.policy.situation import Decision, Policy, Situation
from gridsweep.records import codec
from gridsweep.render import accounts, markdown, terminal, wording
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import Sweep

PATIENT = replace(RELAXED, max_delay=20 * HOUR)
levels = st.lists(st.integers(2, 60).map(lambda tens: 10.0 * tens), min_size=40, max_size=48)


def certified(state: State, known: Trace | None = None) -> Certificate:
    other = baseline(state)
    made = certificate(state, compare(state, ledger(state), other[1] if other else None), known)
    assert made is not None
    return made


def ran(sweep: Sweep, values: Sequence[float], runs: Sequence[tuple[float, float]], policy: Policy) -> State:
    """A sweep whose experiments really took so many hours and drew so many watts."""
    profiles = {
        (e.id, sweep.total_steps): Profile(hours * HOUR, ((timedelta(0), hours * HOUR, hours * watts / 1000),))
        for e, (hours, watts) in zip(sweep.experiments, runs, strict=True)
    }
    return rehearse(sweep, START, grid(*values), policy, Simulated(profiles))


class Never:
    """Leaves all work to its latest start."""

    def decide(self, situation: Situation) -> list[Decision]:
        return []


def report_of(state: State) -> Report:
    return make_report(state, ledger(state), baseline(state))


def test_share_and_regret_in_closed_form():
    """An hour of work, by hour 4: at once 300 g, at 150 g as it went, at 100 g had one known."""
    sweep = make_sweep(1, watts=1000, tiers=(replace(URGENT, threshold=200.0),))
    made = certified(
        rehearsed(sweep, [300, 150, 300, 100, 300, 300, 300], Threshold())[0],
        Trace(START, HOUR, [300, 150, 300, 100, 300]),
    )
    assert (made.immediate_g, made.actual_g, made.optimum_g, made.pausing_g) == pytest.approx((300, 150, 100, 100))
    assert (made.share, made.regret_g, made.possible_g) == pytest.approx((0.75, 50, 200))
    assert made.proven and made.why == ""


def test_hours_that_nobody_observed_do_not_count_and_that_is_said():
    sweep = make_sweep(1, watts=1000, tiers=(replace(URGENT, threshold=200.0),))
    made = certified(rehearsed(sweep, [300, 150, 300, 100, 300, 300, 300], Threshold())[0])
    assert (made.optimum_g, made.share, made.regret_g) == pytest.approx((150, 1.0, 0))
    assert made.why == "hours after 2024-06-10 03:00 UTC, the last observation of the grid, are not used"


@given(sweeps(), levels, st.sampled_from([Immediate(), Threshold(), OnOff(300, 200)]))
def test_nobody_does_better_than_the_optimum_and_pausing_is_never_worse(sweep, values, policy):
    made = certified(rehearsed(sweep, values, policy)[0])
    if made.regret_g is None:
        return
    assert made.regret_g >= 0 and (made.share is None or made.share <= 1)
    assert made.pausing_g <= made.actual_g
    if made.optimum_g is not None:
        assert made.pausing_g <= made.optimum_g


def test_a_sweep_that_paused_is_measured_against_pausing():
    """Two hours, of which the first and the third are clean: without a pause one of them is dirty."""
    state, _ = rehearsed(make_sweep(1, hours=2, watts=1000, tiers=(PATIENT,)), [100, 300, 100, 300], OnOff(200, 150))
    made = certified(state)
    assert (made.optimum_g, made.pausing_g, made.actual_g) == pytest.approx((400, 200, 200))
    assert (made.share, made.regret_g, made.proven) == pytest.approx((1.0, 0.0, True))
    never = certified(rehearsed(make_sweep(1, hours=2, watts=1000), [100, 300, 100, 300], Immediate())[0])
    assert (never.optimum_g, never.pausing_g, never.regret_g) == pytest.approx((400, 200, 0))


@given(levels, st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_layers_of_power_are_a_floor_and_a_close_one(values, seed):
    """Against the linear programme, which knows each experiment's own power."""
    pytest.importorskip("scipy")
    rng = random.Random(seed)
    n = rng.randint(2, 6)
    sweep = make_sweep(n, tiers=(URGENT, PATIENT), devices=rng.randint(1, 2))
    runs = [(rng.choice([1.0, 1.5, 2.0, 3.5]), rng.choice([100.0, 120.0, 300.0])) for _ in range(n)]
    state = ran(sweep, values, runs, Immediate())
    made = certified(state, Trace(START, HOUR, values))
    jobs = []
    for e, (hours, watts) in zip(sweep.experiments, runs, strict=True):
        latest = max(START + sweep.tier(e.tier).max_delay, state.standings[e.id].first_running_at)
        jobs.append(Job(e.id, hours * HOUR, latest, power_w=watts))
    exact = bound(jobs, sweep.devices, Trace(START, HOUR, values), START, pausing=True).emissions_g
    assert made.pausing_g <= exact * (1 + 1e-9)
    assert made.pausing_g >= 0.75 * exact


def test_lengths_that_hardly_differ_count_as_their_mean():
    sweep = make_sweep(4, tiers=(PATIENT,), devices=2)
    runs = [(1.0, 100.0), (1.02, 101.0), (0.98, 99.0), (1.0, 100.0)]
    made = certified(ran(sweep, DAYS, runs, Threshold()), Trace(START, HOUR, DAYS))
    assert made.optimum_g is not None and not made.proven and "count as their mean" in made.why
    assert made.pausing_g <= made.optimum_g <= made.actual_g
    same = certified(ran(sweep, DAYS, [(1.0, 100.0)] * 4, Threshold()), Trace(START, HOUR, DAYS))
    assert same.proven and made.optimum_g == pytest.approx(same.optimum_g, rel=0.05)


def test_where_lengths_differ_the_optimum_with_pauses_stands_for_both():
    made = certified(ran(make_sweep(3, tiers=(PATIENT,)), DAYS, [(1.0, 100.0), (2.0, 100.0), (3.0, 90.0)], Threshold()))
    assert made.optimum_g is None and made.proven and "a lower bound" in made.why
    assert made.regret_g == made.actual_g - made.pausing_g >= 0


def test_on_devices_that_differ_each_experiment_stays_where_it_ran():
    devices = (Device("a", idle_power_w=15), Device("b", speed=2.0, power_w=300))
    made = certified(rehearsed(make_sweep(5, tiers=(PATIENT, URGENT), devices=devices), DAYS, Threshold())[0])
    assert made.regret_g >= 0 and "stays on the device on which it ran" in made.why


def test_idle_power_belongs_to_the_optimum():
    """Waiting for the clean hour costs more in idle power than it saves: the best is to run at once."""
    devices = (Device("a", idle_power_w=1000), Device("b", idle_power_w=1000))
    sweep = make_sweep(1, watts=1000, devices=devices, tiers=(PATIENT,))
    made = certified(rehearsed(sweep, [300, 300, 120, 300], Threshold())[0])
    assert (made.immediate_g, made.optimum_g) == pytest.approx((600, 600))
    assert made.actual_g > made.immediate_g and made.share is None


def test_a_missed_deadline_counts_as_late_as_it_was():
    state, _ = rehearsed(make_sweep(6, hours=2), [300] * 10 + [50] * 4, Immediate())  # by hour 4, on one device
    made = certified(state)
    assert made.optimum_g == pytest.approx(made.actual_g) and "missed deadlines" in made.why
    state, _ = rehearsed(make_sweep(2, hours=2, finish_by=after(3)), [300] * 10, Immediate())
    assert "missed deadlines, relaxed to the real times: 1" in certified(state).why


def test_of_unknown_hours_nobody_can_say():
    made = certified(rehearsed(make_sweep(2), [100, float("nan"), 100], Immediate())[0])
    assert (made.optimum_g, made.share, made.regret_g, made.proven) == (None, None, None, False)
    assert "observed" in made.why
    state, _ = rehearsed(make_sweep(1, tiers=(RELAXED,)), [300, float("nan"), 100], Threshold())
    assert "unknown" in certified(state).why


def test_of_too_many_experiments_it_is_not_worked_out():
    state, _ = rehearsed(make_sweep(201, hours=0.1, devices=20), [100] * 9, Immediate())
    assert "201 experiments are too many" in certified(state).why


def test_before_anything_has_ended_there_is_none():
    made = report_of(State(rehearsed(make_sweep(), DAYS, Threshold())[1][:3]))
    assert made.certificate is None and wording.possible(made) == "" and accounts.certified(made) == []


# In words


def test_a_report_says_how_much_of_what_was_possible_was_reached():
    state, _ = rehearsed(make_sweep(4, watts=1000, tiers=(PATIENT,)), DAYS, Threshold())
    made = report_of(state)
    of = made.certificate
    said = wording.possible(made)
    assert said.startswith(f"{of.share * 100:.1f} % of the saving achievable by 2024-06-1")
    assert said.endswith(" g above the optimum.")
    assert any(said in line for line in terminal.headline(made))
    assert said in markdown.render(made)
    assert any(term == "Achievable saving" and "without pauses" in text for term, text in accounts.accounting(made))
    assert codec.loads(Report, codec.dumps(made)) == made


def test_a_report_says_when_nothing_could_be_saved_or_when_it_cost_more():
    flat = report_of(rehearsed(make_sweep(2), [200] * 9, Immediate())[0])
    assert wording.possible(flat) == (
        "No saving was achievable: no other hours would have been cleaner than running at once."
    )
    worse = report_of(rehearsed(make_sweep(2, tiers=(URGENT,)), [260, 255, 300, 400, 400, 400], Threshold())[0])
    assert wording.possible(worse).endswith("at once; emissions are 28.5 g above the optimum.")
    late = report_of(rehearsed(make_sweep(1, tiers=(URGENT,)), [300, 250, 200, 400, 400, 400], Never())[0])
    assert wording.possible(late).startswith("A saving of 10.0 g was achievable by 2024-06-10 05:00 UTC; ")
    hole = report_of(rehearsed(make_sweep(2), [100, float("nan"), 100], Immediate())[0])
    assert wording.possible(hole) == "" and accounts.certified(hole)[0].startswith("unknown: part of the energy")
