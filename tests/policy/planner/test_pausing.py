from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.policy.backlog import Lane, Remaining
from gridsweep.policy.planner.pausing import on_or_off, pauses, rested

NOW = datetime(2024, 6, 10, tzinfo=UTC)
MINUTES = timedelta(minutes=1)
PEAK = [200.0] * 2 + [600.0] * 6 + [100.0] * 40


def asked(levels, restart=3, left=8.0, by=40.0, now=NOW):
    """One device with so many hours left of a stint that began before."""
    running = {0: Remaining(left * HOUR, NOW + by * HOUR)}
    return pauses(Trace(NOW, HOUR, levels), now, [], [Lane(now + left * HOUR)], running, restart * MINUTES)


def test_a_long_stint_rests_through_a_peak_and_the_grams_saved_are_those_of_the_peak():
    assert list(asked(PEAK)) == [0]
    now = NOW + 2 * HOUR
    running = {0: Remaining(2 * HOUR, NOW + 40 * HOUR)}
    path = Trace(NOW, HOUR, PEAK)
    assert on_or_off(path, now, [], [Lane(now)], running, 0, 3 * MINUTES) == pytest.approx(-(600 - 100 - 0.1 * 100) / 2)


def test_it_goes_on_where_a_restart_costs_more_than_the_rest_saves():
    dip = [104.0] + [100.0] * 47
    assert asked(dip, restart=0) != {}
    assert asked(dip, restart=10) == {}


def test_it_goes_on_where_the_deadline_does_not_allow_a_rest():
    assert asked(PEAK, left=8.0, by=8.25) == {}
    assert asked(PEAK, left=8.0, by=40.0) != {}


@given(st.floats(0, 600), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_where_the_grid_does_not_change_nothing_rests(level, restart):
    assert asked([level] * 48, restart=restart) == {}


@given(st.lists(st.integers(0, 600).map(float), min_size=24, max_size=48), st.integers(0, 500))
@settings(max_examples=50, deadline=None)
def test_without_a_cost_adding_a_constant_changes_no_decision_and_multiplying_changes_none(levels, more):
    plain = asked(levels, restart=0)
    assert asked([v + more for v in levels], restart=0).keys() == plain.keys()
    assert asked([v * 4 for v in levels], restart=3).keys() == asked(levels, restart=3).keys()


def test_where_nothing_is_known_nothing_rests():
    assert asked([float("nan")] * 48) == {}
    assert pauses(None, NOW, [], [Lane(NOW)], {0: Remaining(HOUR, NOW + 9 * HOUR)}, MINUTES) == {}


def test_turning_on_is_paid_once_for_slots_in_a_row():
    on, off = rested(np.array([10.0, 10.0, 50.0, 10.0]), 3, 0.5)
    assert on[:4, 0].tolist() == [0.0, 10.0, 20.0, 35.0]
    assert off[:4, 0].tolist() == [0.0, 15.0, 25.0, 40.0]
