"""The default policy in whole sweeps: when it starts, what never changes its mind, and deadlines that hold."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START, after, make_sweep, starts
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.pieces import Profile
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.policy.gates import Immediate, Threshold
from gridsweep.policy.planner.planned import Planned
from gridsweep.policy.planner.postponing import CLEANER
from gridsweep.policy.situation import NO_DEVICE
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Foreseen
from gridsweep.state.events import Decided
from gridsweep.sweep.stints import RESTART, Device
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Tier

PATIENT = Tier("patient", 0.0, timedelta(days=4), 1)
HOURS = np.arange(24 * 60)
SUN = 300 + 200 * np.cos(HOURS * 2 * np.pi / 24)
"""Cleanest at noon, 100 g; dirtiest at midnight, when the tests submit."""


def provider(levels=SUN):
    """Forty days of history before START, then what comes; the forecast is made from history."""
    return TraceProvider(Trace(START - timedelta(days=40), HOUR, levels), "X", "a test")


def swept(policy, n=4, levels=SUN, **options):
    options = {"tiers": (PATIENT,), "hours": 1.5, **options}
    journal = []
    state = rehearse(make_sweep(n, **options), START, provider(levels), policy, Simulated(), journal)
    return state, journal


def grams(state):
    return ledger(state).total.emissions_g


def test_work_is_placed_around_noon_on_all_devices():
    state, _ = swept(Planned(), devices=2, tiers=(Tier("today", 0.0, 20 * HOUR, 1),))
    assert sorted(starts(state).values()) == [11, 11, 12.5, 12.5]


def test_where_there_is_time_it_takes_the_best_hours_of_two_days():
    state, _ = swept(Planned(), devices=2)
    assert sorted(starts(state).values()) == [11.5, 11.5, 35.5, 35.5]


def test_what_waits_says_for_what_and_until_when():
    _, journal = swept(Planned(), n=1)
    first = next(event for event in journal if isinstance(event, Decided))
    assert first.why == CLEANER
    assert START < first.until <= after(13)


def test_with_no_device_free_work_waits_for_one():
    _, journal = swept(Planned(), n=2, levels=[100.0] * len(HOURS))
    assert [event.why for event in journal if isinstance(event, Decided)] == [NO_DEVICE]


def test_on_a_flat_grid_nothing_waits():
    flat = [200.0] * len(HOURS)
    for policy in (Planned(), Planned(min_saving=0)):
        state, _ = swept(policy, levels=flat, devices=2)
        other, _ = swept(Immediate(), levels=flat, devices=2)
        assert starts(state) == starts(other)
        assert grams(state) == grams(other)


def test_where_waiting_saves_little_everything_runs_at_once_and_says_why():
    nearly = 500 + (SUN - 300) / 100
    state, _ = swept(Planned(), levels=nearly)
    assert sorted(starts(state).values()) == [0, 1.5, 3, 4.5]
    assert all("less than 5%: runs at once" in attempt.why for attempt in state.attempts.values())
    waited, _ = swept(Planned(min_saving=0), levels=nearly)
    assert min(starts(waited).values()) > 5


def test_what_was_judged_at_the_submission_stands_when_the_grid_changes():
    later = 500 + (SUN - 300) / 100
    later[24 * 40 + 2 :] = SUN[24 * 40 + 2 :]
    state, _ = swept(Planned(), levels=later)
    assert sorted(starts(state).values()) == [0, 1.5, 3, 4.5]


def test_without_any_delay_it_is_running_at_once():
    tiers = (Tier("now", 0.0, timedelta(0), 1),)
    assert starts(swept(Planned(min_saving=0), tiers=tiers)[0]) == starts(swept(Immediate(), tiers=tiers)[0])


def test_idle_power_shortens_the_wait():
    hungry = (Device("d0", power_w=100.0, idle_power_w=90.0),)
    state, _ = swept(Planned(min_saving=0), n=2, devices=hungry)
    eager, _ = swept(Immediate(), n=2, devices=hungry)
    assert grams(state) <= grams(eager)
    patient, _ = swept(Planned(min_saving=0), n=2, devices=(Device("d0", power_w=100.0),))
    assert max(starts(state).values()) < max(starts(patient).values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.sampled_from([0.5, 2.0, 3.0]), st.integers(0, 2**32 - 1))
def test_adding_to_the_grid_or_multiplying_it_changes_no_start(constant, factor, seed):
    noise = np.random.default_rng(seed).normal(0, 30, len(HOURS)).round()
    levels = np.maximum(SUN + noise, 20).round()
    policy = Planned(min_saving=0)
    want = starts(swept(policy, levels=levels, devices=2)[0])
    assert starts(swept(Planned(min_saving=0), levels=levels + constant, devices=2)[0]) == want
    assert starts(swept(Planned(min_saving=0), levels=levels * factor, devices=2)[0]) == want


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([0.5, 1.0, 2.5]),
    st.integers(0, 12),
    st.integers(0, 2**32 - 1),
)
def test_a_deadline_holds_on_any_grid(n, devices, hours, slack, seed):
    levels = np.random.default_rng(seed).uniform(20, 600, len(HOURS)).round()
    least = -(-n // devices) * hours
    finish_by = (least + slack) * HOUR
    state, _ = swept(Planned(), n=n, devices=devices, hours=hours, levels=levels, finish_by=finish_by)
    assert max(s.ended_at for s in state.standings.values()) <= START + finish_by


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 8), st.integers(1, 3), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_latest_starts_hold_where_the_devices_can_hold_them(n, devices, delay, seed):
    levels = np.random.default_rng(seed).uniform(20, 600, len(HOURS)).round()
    tier = Tier("t", 0.0, delay * HOUR, 1)
    state, _ = swept(Planned(), n=n, devices=devices, hours=1.0, levels=levels, tiers=(tier,))
    possible = (-(-n // devices) - 1) <= delay
    assert (max(starts(state).values()) <= delay) or not possible


def test_knowing_what_comes_it_does_no_worse_than_at_once_or_the_gate():
    levels = np.maximum(SUN + np.random.default_rng(7).normal(0, 60, len(HOURS)), 10)
    trace = Trace(START - timedelta(days=40), HOUR, levels)
    sweep = make_sweep(6, tiers=(Tier("t", 150.0, timedelta(days=2), 1),), devices=2, hours=1.5)
    figures = [
        grams(rehearse(sweep, START, Foreseen(trace, Provenance("what comes")), policy))
        for policy in (Planned(min_saving=0), Immediate(), Threshold())
    ]
    assert figures[0] <= min(figures) * (1 + 1e-9)


def test_without_any_forecast_it_runs_at_once():
    sweep = make_sweep(2, tiers=(PATIENT,), policy=PolicyChoice("planned"))
    young = TraceProvider(Trace(START, HOUR, [300.0] * 200), "X", "a test")
    assert sorted(starts(rehearse(sweep, START, young, Planned())).values()) == [0, 1]


def test_a_stint_that_runs_longer_than_expected_still_holds_its_device():
    sweep = make_sweep(2, tiers=(PATIENT,), hours=1.5)
    slow = Simulated({("e00", 6): Profile(4 * HOUR, ((timedelta(0), 4 * HOUR, 0.1),))})
    state = rehearse(sweep, START, provider([100.0] * len(HOURS)), Planned(), slow)
    assert starts(state) == {"e00": 0, "e01": 4}


def test_one_policy_may_judge_several_sweeps():
    policy = Planned()
    for levels in (SUN, [200.0] * len(HOURS)):
        alone, _ = swept(Planned(), levels=levels)
        assert starts(swept(policy, levels=levels)[0]) == starts(alone)


# pausing


def test_a_long_stint_pauses_through_the_night_and_ends_in_time():
    options = {"n": 1, "hours": 16.0, "steps": 64, "finish_by": 50 * HOUR}
    whole, _ = swept(Planned(pausing=False), **options)
    state, _ = swept(Planned(), **options)
    attempts = list(state.attempts.values())
    assert 2 <= len(attempts) <= 4
    assert grams(state) < 0.8 * grams(whole)
    assert max(s.ended_at for s in state.standings.values()) <= after(50)


def test_short_stints_are_placed_whole_whether_they_may_pause_or_not():
    assert starts(swept(Planned(), devices=2)[0]) == starts(swept(Planned(pausing=False), devices=2)[0])


def test_coming_back_costs_time_and_energy():
    sweep = make_sweep(1, tiers=(PATIENT,), hours=16.0, steps=64, finish_by=50 * HOUR)
    states = [
        rehearse(sweep, START, provider(), Planned(), Simulated(restart=restart))
        for restart in (timedelta(0), timedelta(minutes=3))
    ]
    kwh = [ledger(state).total.energy_kwh for state in states]
    pauses = len(states[1].attempts) - 1
    assert kwh[0] == pytest.approx(1.6)
    assert kwh[1] == pytest.approx(1.6 + pauses * 0.1 / 20)


def test_nothing_pauses_more_often_than_it_may():
    options = {"n": 1, "hours": 16.0, "steps": 64, "finish_by": 98 * HOUR}
    pauses = [
        sum(attempt.end == "paused" for attempt in swept(Planned(max_pauses=most), **options)[0].attempts.values())
        for most in (0, 1, 6)
    ]
    assert pauses[:2] == [0, 1]
    assert pauses[2] > 1


def test_where_waiting_saves_little_a_long_stint_does_not_pause_either():
    nearly = 500 + (SUN - 300) / 100
    state, _ = swept(Planned(), n=1, hours=16.0, steps=64, levels=nearly)
    assert [attempt.end for attempt in state.attempts.values()] == ["ended"]
    assert starts(state) == {"e00": 0}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 2), st.integers(0, 30), st.integers(0, 9999))
def test_a_deadline_holds_with_pauses_too_and_with_the_time_that_coming_back_takes(n, devices, slack, seed):
    levels = np.random.default_rng(seed).uniform(20, 600, len(HOURS)).round()
    finish_by = (-(-n // devices) * 8.0 + slack) * HOUR
    sweep = make_sweep(n, tiers=(PATIENT,), devices=devices, hours=8.0, steps=64, finish_by=finish_by)
    state = rehearse(sweep, START, provider(levels), Planned(), Simulated(restart=RESTART))
    assert max(s.ended_at for s in state.standings.values()) <= START + finish_by
