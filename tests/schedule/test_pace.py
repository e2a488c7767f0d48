"""How long work takes, learned from the stints that have ended, and what is kept free before a deadline."""

from dataclasses import replace
from datetime import timedelta
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START, after, make_sweep
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.policy.gates import Immediate
from gridsweep.policy.planner.planned import Planned
from gridsweep.schedule.pace import (
    GUESSED,
    LIKE,
    STATED,
    SURE,
    WEIGHT,
    Pace,
    at_worst,
    expected_end,
    learned,
    scale,
    spread,
)
from gridsweep.schedule.worklist import deadline_for
from gridsweep.simulation.conditions import drawn
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Ended, Progressed, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Outcome, Stint
from gridsweep.sweep.tiers import Tier

PATIENT = Tier("patient", 0.0, timedelta(days=4), 1)


def ended(*hours, first=0, n=6, finish_by=20 * HOUR):
    """A sweep of six-step experiments of an hour, of which the first took so long."""
    state = State([Submitted(START, make_sweep(n, devices=2, finish_by=finish_by))])
    for i, span in enumerate(hours):
        stint = Stint((Member(f"e{i:02}", first, 6),))
        for event in (
            Requested(after(0), f"{stint.id}/1", stint, "d0", ""),
            Running(after(0), f"{stint.id}/1"),
            Ended(after(span), f"{stint.id}/1", (Outcome(f"e{i:02}", "done", 6),)),
        ):
            state.apply(event)
    return state


def test_what_stints_took_is_shrunk_towards_the_estimate():
    assert scale(ended()) * HOUR == HOUR
    assert scale(ended(2.5)) * HOUR == (WEIGHT + 2.5) / (WEIGHT + 1) * HOUR
    assert scale(ended(2.0, 3.0)) * HOUR == (WEIGHT + 5.0) / (WEIGHT + 2) * HOUR
    assert spread(ended()) == spread(ended(2.0)) == 0.0


def test_the_short_ones_end_first_so_a_few_of_them_make_nothing_look_short():
    assert scale(ended(0.5, 0.5, 0.5, n=9)) * HOUR == HOUR
    assert scale(ended(*[0.5] * 6, n=9)) * HOUR == (WEIGHT + 3.0) / (WEIGHT + 6) * HOUR


FACTORS = st.lists(st.floats(0.02, 50), max_size=30)


@given(FACTORS)
def test_the_scale_lies_between_the_estimate_and_the_mean(factors):
    found = learned(factors)
    mean = np.mean(factors) if factors else 1.0
    assert min(1.0, mean) - LIKE <= found.scale <= max(1.0, mean) + LIKE
    assert found.spread >= 0 and found.known == len(factors)
    again = learned(factors[::-1])
    assert (again.scale, again.spread) == pytest.approx((found.scale, found.spread))


@given(FACTORS, st.floats(0.02, 50), st.floats(0, 50))
def test_a_longer_stint_never_makes_stints_look_shorter(factors, last, more):
    assert learned([*factors, last + more]).scale >= learned([*factors, last]).scale - 2 * LIKE


@given(st.integers(0, 40))
def test_stints_as_estimated_teach_nothing_and_keep_nothing_free(count):
    assert learned([1.0] * count) == Pace(1.0, 0.0, count)


def running(hours, finish_by=20 * HOUR):
    """A sweep of six experiments of an hour, of which the first has run for so long."""
    state = State([Submitted(START, make_sweep(6, devices=2, finish_by=finish_by))])
    stint = Stint((Member("e00", 0, 6),))
    state.apply(Requested(START, f"{stint.id}/1", stint, "d0", ""))
    state.apply(Running(START, f"{stint.id}/1"))
    return state, state.active[f"{stint.id}/1"], after(hours)


def test_a_stint_that_runs_longer_than_estimated_counts_before_it_ends():
    state, attempt, now = running(0.9)
    assert scale(state, now) == 1.0 and expected_end(state, attempt, now) == after(1)
    state, attempt, now = running(3.0)
    assert scale(state, now) == pytest.approx((WEIGHT + 3.3) / (WEIGHT + 1))  # a tenth more is still to come
    assert expected_end(state, attempt, now) == after(3.3)
    assert scale(state) == 1.0  # without a moment, only ends are known


@given(st.floats(0, 20), st.floats(0, 5))
def test_the_longer_a_stint_runs_the_longer_stints_look(hours, more):
    state, attempt, now = running(hours)
    later = now + more * HOUR
    assert scale(state, later) >= scale(state, now) - LIKE
    assert expected_end(state, attempt, now) >= now


def test_the_worst_case_narrows_with_every_stint_and_is_wider_for_a_guess():
    worst = [at_worst(ended(*[1.0] * n)) for n in range(4)]
    assert worst[0] == pytest.approx(STATED) and worst == sorted(worst, reverse=True) and worst[-1] > 1
    state = ended()
    state.sweep = replace(state.sweep, estimates=replace(state.sweep.estimates, guess=True))
    assert at_worst(state) == pytest.approx(GUESSED)
    assert at_worst(ended(0.1)) * scale(ended(0.1)) >= 1  # a short one does not make the rest look safe


def test_what_came_back_from_a_checkpoint_teaches_nothing_for_it_also_had_to_load():
    assert scale(ended(2.0, 3.0, first=3)) * HOUR == HOUR


def test_the_first_steps_of_what_runs_teach_until_stints_have_ended():
    """An hour of evaluating before the first step is not taken for the pace of steps."""
    state = State([Submitted(START, make_sweep(4, steps=100, pack=4, hours=1.0))])
    stint = Stint(tuple(Member(f"e{i:02}", 0, 100) for i in range(4)))
    name = f"{stint.id}/1"
    told = [(1.0, 4), (1.2, 10), (2.0, 24)]  # 20 steps of four members in an hour: 0.8 h as estimated
    state.apply(Requested(START, name, stint, "d0", ""))
    state.apply(Running(START, name))
    for seq, (hours, step) in enumerate(told, 1):
        assert scale(state) == 1
        state.apply(Progressed(after(hours), name, seq, step))
    assert scale(state) == pytest.approx((WEIGHT + 1.25) / (WEIGHT + 1))
    state.apply(Ended(after(5), name, tuple(Outcome(f"e{i:02}", "done", 100) for i in range(4))))
    assert scale(state) == pytest.approx((WEIGHT + 1.25) / (WEIGHT + 1))  # 5 h instead of 4


def test_where_lengths_are_alike_the_deadline_is_the_sweeps():
    assert deadline_for(ended()) == deadline_for(ended(1.0, 1.0, 1.005)) == after(20)
    assert deadline_for(ended(finish_by=None)) is None


def test_where_they_differ_time_is_kept_free_for_what_is_left_on_each_device():
    state = ended(0.9, 1.1)
    share = sqrt(exp(np.log(0.9) ** 2 + np.log(1.1) ** 2) - 1)
    assert spread(state) == pytest.approx(share)
    kept = after(20) - deadline_for(state)  # four are left on two devices: two in a row
    assert kept / HOUR == pytest.approx(SURE * share * sqrt(2 + 2 * 4 / (WEIGHT + 2)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.integers(8, 30))
def test_deadlines_with_room_hold_though_lengths_differ_by_a_tenth(seed, slack):
    levels = np.random.default_rng(seed).uniform(50, 500, 24 * 60).round()
    sweep = make_sweep(8, devices=2, hours=1.5, steps=64, tiers=(PATIENT,), finish_by=(6 + slack) * HOUR)
    trace = TraceProvider(Trace(START - timedelta(days=40), HOUR, levels), "X", "a test")
    simulated = Simulated(factors=drawn(sweep, 0.1))
    state = rehearse(sweep, START, trace, Planned(min_saving=0), simulated)
    atonce = rehearse(sweep, START, trace, Immediate(), simulated)
    assert max(s.ended_at for s in atonce.standings.values()) < after(8)
    assert max(s.ended_at for s in state.standings.values()) <= after(6 + slack)
