"""The planner's rule as a pure function: what starts, what waits, and that deadlines hold."""

from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from math import inf, isinf, nan
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import HOUR, Trace, ceil_to
from gridsweep.policy.backlog import Lane, Remaining
from gridsweep.policy.planner.placements import cheapest, shared
from gridsweep.policy.planner.postponing import savings, verdicts

NOW = datetime(2024, 6, 10, tzinfo=UTC)
TICK = timedelta(minutes=30)
SUNNY = [300, 280, 260, 200, 140, 100, 90, 120, 200, 280, 320, 330] * 4


def path(levels, start=NOW):
    return Trace(start, HOUR, levels)


def work(n, hours=1.5, by=40.0):
    return [Remaining(hours * HOUR, NOW + by * HOUR)] * n


def free(n=2, **kind):
    return [Lane(NOW, **kind)] * n


def driven(levels, stints, lanes, now=NOW):
    """Starts and ends, by hours after NOW, of a grid that does as expected; asked at ticks, ends, and when told."""
    left, at, runs = list(stints), [lane.free_at for lane in lanes], []
    while left:
        asked = [Lane(t, d.speed, d.power_kw, d.idle_kw) for t, d in zip(at, lanes, strict=True)]
        found = verdicts(path(levels), now, left, asked) if min(at) <= now else []
        for verdict in found:
            if verdict.stint is not None:
                stint = left[verdict.stint]
                at[verdict.lane] = now + stint.length / lanes[verdict.lane].speed
                runs.append(((now - NOW) / HOUR, (at[verdict.lane] - NOW) / HOUR, verdict.lane, stint))
        gone = {verdict.stint for verdict in found}
        left = [stint for i, stint in enumerate(left) if i not in gone]
        until = [v.until for v in found if v.until is not None]
        assert all(moment > now for moment in until)
        now = min([ceil_to(now, TICK), *until, *(t for t in at if t > now)])
    return runs


levels = st.lists(st.integers(0, 600).map(float), min_size=24, max_size=60)
stints = st.builds(work, st.integers(1, 8), st.sampled_from([0.5, 0.75, 1.0, 1.5, 4.0]), st.sampled_from([20.0, 40.0]))


def test_a_dirty_present_waits_for_a_clean_hour_and_says_until_when():
    first, second = verdicts(path(SUNNY), NOW, work(2), free())
    assert first.stint is None
    assert second.stint is None
    assert first.until == NOW + 5.5 * HOUR
    assert first.grams < 0


def test_the_cleanest_hours_start_as_many_as_there_are_devices():
    now = NOW + 5.5 * HOUR
    found = verdicts(path(SUNNY[5:], NOW + 5 * HOUR), now, work(9), [Lane(now)] * 2)
    assert [(v.lane, v.stint) for v in found] == [(0, 0), (1, 1)]
    assert all(v.grams > 0 for v in found)


def test_a_device_that_runs_is_not_asked_about():
    lanes = [Lane(NOW + HOUR), Lane(NOW)]
    assert [v.lane for v in verdicts(path(SUNNY), NOW, work(3), lanes)] == [1]
    assert verdicts(path(SUNNY), NOW, [], lanes) == []


@given(st.floats(0, 600), stints, st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_where_the_grid_does_not_change_everything_runs_at_once(level, left, devices):
    found = verdicts(path([level] * 60), NOW, left, free(devices))
    assert [v.stint for v in found] == list(range(min(devices, len(left))))


@pytest.mark.parametrize("guess", [None, path([nan] * 40)])
def test_where_nothing_is_expected_everything_runs_at_once(guess):
    assert [(v.stint, v.grams) for v in verdicts(guess, NOW, work(3), free())] == [(0, inf), (1, inf)]


def test_holes_and_short_forecasts_are_bridged():
    holes = [nan if i % 3 == 1 else v for i, v in enumerate(SUNNY)]
    assert verdicts(path(holes), NOW, work(2), free())[0].stint is None
    assert verdicts(path(SUNNY[:12]), NOW, work(2), free())[0].stint is None


@given(levels, stints, st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_adding_a_constant_to_all_intensities_changes_no_decision(values, left, devices, more):
    plain = verdicts(path(values), NOW, left, free(devices))
    added = verdicts(path([v + more for v in values]), NOW, left, free(devices))
    assert [(v.lane, v.stint, v.until) for v in plain] == [(v.lane, v.stint, v.until) for v in added]


@given(levels, stints, st.integers(1, 3), st.sampled_from([1 / 8, 4.0, 3.0]), st.sampled_from([0.0, 0.125]))
@settings(max_examples=100, deadline=None)
def test_multiplying_all_intensities_changes_no_decision(values, left, devices, factor, idle):
    lanes = free(devices, idle_kw=idle)
    plain = verdicts(path(values), NOW, left, lanes)
    times = verdicts(path([v * factor for v in values]), NOW, left, lanes)
    assert [(v.lane, v.stint, v.until) for v in plain] == [(v.lane, v.stint, v.until) for v in times]


@given(
    levels,
    st.lists(st.sampled_from([3.0, 6.0, 12.0, 30.0]), min_size=1, max_size=9),
    st.sampled_from([0.5, 0.75, 1.5, 2.25]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=150, deadline=None)
def test_deadlines_hold_wherever_the_earliest_first_at_once_holds_them(values, by, hours, devices, idle):
    left = [Remaining(hours * HOUR, NOW + b * HOUR) for b in by]
    at_once = [(i // devices + 1) * hours for i in range(len(by))]
    runs = driven(values, left, free(devices, idle_kw=idle))
    assert len(runs) == len(by)
    if all(end <= b for end, b in zip(at_once, sorted(by), strict=True)):
        assert all(end <= (stint.latest_end - NOW) / HOUR + 1e-6 for _, end, _, stint in runs)
    else:
        assert max(end for _, end, _, _ in runs) <= at_once[-1] + max(by)


@given(
    levels,
    st.lists(st.tuples(st.sampled_from([0.5, 1.5, 4.0]), st.sampled_from([12.0, 30.0])), min_size=1, max_size=6),
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_deadlines_with_room_hold_for_unequal_stints_on_unequal_devices(values, jobs, speeds):
    left = [Remaining(hours * HOUR, NOW + by * HOUR) for hours, by in jobs]
    lanes = [Lane(NOW, speed=speed, power_kw=0.4 * speed) for speed in speeds]
    room = sum(h for h, _ in jobs) / sum(speeds) + 4.0 / min(speeds) + 0.5
    runs = driven(values, left, lanes)
    if room <= min(by for _, by in jobs):
        assert all(end <= (stint.latest_end - NOW) / HOUR + 1e-6 for _, end, _, stint in runs)


def test_no_choice_is_left_at_the_latest_start_and_not_before():
    cleaner_later = [500.0, 490.0, 480.0, 470.0] + [100.0] * 20
    for minutes, starts in ((0, [None, None]), (30, [0, None]), (45, [0, 1])):
        now = NOW + timedelta(minutes=minutes)
        found = verdicts(path(cleaner_later), now, work(5, 1.0, 3.5), [Lane(now)] * 2)
        assert [v.stint for v in found] == starts  # of five, three come after another; too late, all start
        assert all(isinf(v.grams) for v in found if v.stint is not None)
        assert all(v.until == NOW + TICK for v in found if minutes == 0)


def test_on_a_grid_that_gets_ever_cleaner_it_waits_for_the_last_tick_that_holds_the_deadline():
    runs = driven([500.0 - i for i in range(60)], work(3, 1.0, 10.2), free(1))
    assert runs[0][0] == 7.0
    assert runs[-1][1] == 10.0


def test_on_a_path_that_comes_true_it_does_as_well_as_the_best_placement():
    rng = np.random.default_rng(7)
    for _ in range(40):
        values = rng.integers(50, 500, 12).astype(float)
        n, devices = int(rng.integers(1, 6)), int(rng.integers(1, 3))
        trace = path(values)
        got = sum(trace.exposure(NOW + a * HOUR, NOW + b * HOUR).level_hours
                  for a, b, _, _ in driven(values, work(n, 1.5, 10.0), free(devices)))  # fmt: skip
        price = [trace.exposure(NOW + i * TICK, NOW + i * TICK + 1.5 * HOUR).level_hours for i in range(18)]
        apart = {0: 0.0}
        for k in range(1, 6):
            tries = [c for c in combinations(range(18), k) if all(b - a >= 3 for a, b in pairwise(c))]
            apart[k] = min((sum(price[i] for i in c) for c in tries), default=inf)
        best = min(apart[k] + (apart[n - k] if devices == 2 else (0.0 if k == n else inf)) for k in range(n + 1))
        assert got == pytest.approx(best, rel=1e-9)


def test_of_unequal_devices_the_one_that_needs_less_energy_is_taken_first():
    lanes = [Lane(NOW, 1.0, 0.4), Lane(NOW, 2.0, 0.5)]
    found = verdicts(path([100.0] * 40), NOW, work(1), lanes)
    assert [(v.lane, v.stint) for v in found] == [(1, 0)]


def test_a_slow_device_is_not_given_what_it_would_finish_too_late():
    lanes = [Lane(NOW, 0.1, 0.01), Lane(NOW, 1.0, 0.4)]
    found = verdicts(path([100.0] * 40), NOW, work(1, 1.5, 10.0), lanes)
    assert [(v.lane, v.stint) for v in found if v.stint is not None] == [(1, 0)]


def test_idle_power_shortens_the_wait_and_much_of_it_forbids_waiting():
    clean_tomorrow = [200.0] * 24 + [150.0] * 24
    idle = [verdicts(path(clean_tomorrow), NOW, work(2), free(idle_kw=kw))[0].stint for kw in (0.0, 0.001, 0.3)]
    assert idle == [None, None, 0]


def test_earlier_deadlines_press_the_later_ones_do_not():
    clean_late = [300.0, 200.0, 300.0, 300.0, 300.0, 300.0] + [100.0] * 40
    now = NOW + HOUR
    soon = [Remaining(HOUR, NOW + 5 * HOUR), *work(2, 1.0, 40.0)]
    found = verdicts(path(clean_late), now, soon, [Lane(now)])
    assert [v.stint for v in found] == [0]
    assert verdicts(path(clean_late), now, work(3, 1.0, 40.0), [Lane(now)])[0].stint is None


def test_savings_are_shares_of_what_running_at_once_emits():
    paths = np.array([[200.0] * 40, [200.0, 200.0] + [100.0] * 38, [100.0] * 38 + [900.0] * 2])
    forecast = Forecast(NOW, NOW, HOUR, paths)
    assert savings(forecast, NOW, work(2, 1.0), free()) == pytest.approx([0.0, 0.5, 0.0])
    idle = savings(forecast, NOW, work(2, 1.0), free(idle_kw=0.9))
    assert idle == pytest.approx([0.0, 0.0, 0.0])
    assert savings(forecast, NOW, [], free()).tolist() == [0.0, 0.0, 0.0]


def test_what_fits_nowhere_costs_more_than_any_placement():
    costs = cheapest(np.array([5.0, 1.0, 3.0, 2.0]), 2, 3, np.array([4, 3]))
    assert costs[1, :, 4].tolist() == [1.0, 1.0]
    assert costs[2, 0, 4] == 8.0
    assert costs[2, 1, 4] > 1e4
    marginals = np.diff(costs[:, :, 4], axis=0)
    assert shared([marginals], [2], np.array([3, 2])).tolist() == [9.0, 2.0]


@pytest.mark.slow
def test_ten_thousand_stints_on_a_thousand_devices_are_planned_in_seconds():
    rng = np.random.default_rng(1)
    step = timedelta(minutes=5)
    trace = Trace(NOW, step, 200 + 100 * np.sin(np.arange(1152) / 46) + rng.normal(0, 10, 1152))
    lanes = [Lane(NOW + timedelta(minutes=float(m))) for m in rng.integers(-5, 90, 1000).clip(0)]
    left = [Remaining(1.5 * HOUR, NOW + by * HOUR) for by in (24.0, 48.0, 96.0) for _ in range(3334)]
    begin = process_time()
    found = verdicts(trace, NOW, left, lanes, tick=step)
    assert process_time() - begin < 10
    assert found
