from datetime import UTC, datetime, timedelta
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon.forecaster import from_history
from gridsweep.carbon.traces import DAY, HOUR, Trace
from weather import HORIZON, START, everything, issued, weather

STEPS = st.sampled_from([timedelta(minutes=30), HOUR, timedelta(hours=3)])
SEEDS = st.integers(0, 2**32 - 1)


# -- what it expects


@given(STEPS, st.integers(24, 40 * 24), st.floats(0, 2000))
@settings(max_examples=40)
def test_a_flat_grid_stays_flat(step, hours, level):
    forecast = issued(np.full(hours * HOUR // step, level), step)
    for values in everything(forecast)[:4]:
        np.testing.assert_allclose(values, level, rtol=1e-12)


@given(STEPS, SEEDS, st.integers(1, 40), st.integers(0, 23))
@settings(max_examples=40)
def test_days_that_are_alike_go_on_and_leave_no_doubt(step, seed, days, hour):
    day = np.random.default_rng(seed).uniform(50, 500, DAY // step)
    slots = days * len(day) + hour * HOUR // step
    forecast = issued(np.resize(day, slots), step)
    coming = np.resize(np.roll(day, -(slots - 1)), len(forecast.mean))
    for values in everything(forecast)[:4]:
        np.testing.assert_allclose(np.broadcast_to(coming, values.shape), values, rtol=1e-9)


def test_weeks_that_are_alike_are_told_by_their_weekdays():
    week = np.concatenate([np.full(5 * 24, 300.0), np.full(48, 200.0)])
    values = np.resize(week, 35 * 24)
    expected = issued(values[: 31 * 24]).mean.values[1:]  # a Wednesday ends
    _, friday, saturday, _ = expected.reshape(4, 24).mean(axis=1)
    assert saturday == pytest.approx(friday - 100 / 3, abs=3)


def test_the_present_fades_within_a_day():
    values = np.full(28 * 24, 200.0)
    values[:24] = 400.0  # a range to move in
    values[-1] = 300.0
    expected = issued(values).mean.values
    usual = issued(np.append(values[:-1], 200.0)).mean.values
    off = (expected - usual)[1:24]
    assert expected[0] == 300
    np.testing.assert_allclose(off, 100 * np.exp(-np.arange(1, 24) / 24))


@given(SEEDS, st.floats(0.1, 10), st.sampled_from([1024.0, -64.0]))
@settings(max_examples=30)
def test_a_constant_shifts_the_forecast_and_a_factor_scales_it(seed, factor, constant):
    values = weather(seed)
    plain, shifted, scaled = issued(values), issued(values + constant), issued(values * factor)
    for get in (lambda f: f.mean.values, lambda f: f.paths):
        np.testing.assert_allclose(get(shifted), get(plain) + constant, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(get(scaled), get(plain) * factor, rtol=1e-12, atol=1e-9)


@given(SEEDS, STEPS, st.integers(24, 70 * 24), st.floats(0, 0.6))
@settings(max_examples=60)
def test_nothing_leaves_what_the_last_four_weeks_have_seen_and_nothing_is_unknown(seed, step, hours, unknown):
    values = weather(seed, hours * HOUR // step)
    values[np.random.default_rng(seed).random(len(values)) < unknown] = nan
    history = Trace(START, step, values)
    forecast = from_history(history, history.end - step, HORIZON)
    recent = values[-(28 * DAY // step) :]
    if np.isfinite(recent).sum() < DAY // step:
        assert forecast is None
        return
    assert forecast is not None
    for part in (forecast.mean.values, forecast.paths):
        assert np.nanmin(recent) <= part.min() and part.max() <= np.nanmax(recent)
    low, high = forecast.band()
    assert (low.values <= forecast.mean.values).all() and (forecast.mean.values <= high.values).all()
    assert (low.values >= 0).all()


@given(SEEDS, st.integers(0, 23), st.integers(0, 59))
@settings(max_examples=30)
def test_what_comes_later_and_what_lies_long_before_does_not_count(seed, hour, minute):
    values = weather(seed, 90 * 24)
    now = START + timedelta(days=80, hours=hour, minutes=minute)
    other = values.copy()
    present = (now - START) // HOUR
    other[present + 1 :] = 9999
    other[: present + 1 - 56 * 24] = 9999
    one, two = (from_history(Trace(START, HOUR, column), now, HORIZON) for column in (values, other))
    assert one is not None and two is not None
    for a, b in zip(everything(one), everything(two), strict=True):
        np.testing.assert_array_equal(a, b)
    other[: present + 1 - 32 * 24] = -1.0
    three = from_history(Trace(START, HOUR, other), now, HORIZON)
    assert three is not None
    np.testing.assert_array_equal(three.paths, one.paths)
    other[: present + 1 - 28 * 24] = -1.0
    four = from_history(Trace(START, HOUR, other), now, HORIZON)
    assert four is not None
    np.testing.assert_array_equal(four.mean.values, one.mean.values)


def test_a_change_of_clocks_means_nothing():
    values = weather(5, 60 * 24)
    spring = issued(values, start=datetime(2024, 3, 1, tzinfo=UTC))
    summer = issued(values, start=datetime(2024, 6, 7, tzinfo=UTC))  # the same weekday
    for a, b in zip(everything(spring), everything(summer), strict=True):
        np.testing.assert_array_equal(a, b)


@given(SEEDS)
@settings(max_examples=10)
def test_the_same_history_gives_the_same_forecast_and_is_left_alone(seed):
    values = weather(seed)
    kept = values.copy()
    values.setflags(write=False)
    for a, b in zip(everything(issued(values)), everything(issued(values)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(values, kept)


@pytest.mark.parametrize("step", [timedelta(minutes=5), timedelta(minutes=30)])
def test_shorter_slots_tell_the_same(step):
    values = weather(3)
    coarse, fine = issued(values), issued(np.repeat(values, HOUR // step), step)
    hourly = [fine.mean.mean(START + i * HOUR, START + (i + 1) * HOUR) for i in range(35 * 24, 35 * 24 + 95)]
    np.testing.assert_allclose(hourly, coarse.mean.values[1:96], rtol=0.05)
    assert fine.paths.shape[0] == coarse.paths.shape[0]


@given(STEPS, st.integers(0, 59), st.integers(0, 200), st.integers(0, 59))
@settings(max_examples=30)
def test_it_begins_with_the_present_and_reaches_the_horizon(step, minute, hours, minutes):
    history = Trace(START, step, weather(1, 300))
    now = history.end - step + timedelta(minutes=minute % (step // timedelta(minutes=1)))
    horizon = timedelta(hours=hours, minutes=minutes)
    forecast = from_history(history, now, horizon)
    assert forecast is not None
    assert forecast.issued_at == now
    assert forecast.start <= now < forecast.start + step
    assert now + horizon <= forecast.end < now + horizon + 3 * step
    assert forecast.mean.values[0] == history.values[-1]
    assert (forecast.paths[:, 0] == history.values[-1]).all()


# -- little history, and holes in it


def test_of_a_single_day_the_forecast_is_that_day():
    values = weather(2, 24)
    forecast = issued(values)
    np.testing.assert_allclose(forecast.mean.values[1:], np.resize(values, 96))
    assert forecast.paths.shape == (1, 97)
    assert isnan(forecast.typical_error)


@pytest.mark.parametrize(
    ("hours", "now"),
    [(0, START), (23, START + 22 * HOUR), (48, START + 10 * HOUR), (48, START - HOUR), (48, START + 40 * DAY)],
    ids=["empty", "less than a day", "early in the history", "before it", "long after it"],
)
def test_without_a_day_known_there_is_no_forecast(hours, now):
    assert from_history(Trace(START, HOUR, [1.0] * hours), now, DAY) is None


@pytest.mark.parametrize("step", [timedelta(hours=7), timedelta(hours=36), timedelta(days=2)])
def test_slots_that_do_not_fill_a_day_cannot_be_forecast(step):
    history = Trace(START, step, [1.0] * 20)
    assert from_history(history, history.end - step, DAY) is None


@pytest.mark.parametrize("tail", [[nan] * 3, []], ids=["unknown", "not there yet"])
def test_an_unknown_present_is_taken_from_the_last_six_hours(tail):
    values = np.concatenate([np.full(24, 400.0), np.full(26 * 24, 200.0), [300.0], tail])
    history = Trace(START, HOUR, values)
    forecast = from_history(history, START + (27 * 24 + 3) * HOUR, DAY)
    assert forecast is not None
    usual = from_history(Trace(START, HOUR, values[: 27 * 24]), START + (27 * 24 + 3) * HOUR, DAY)
    assert usual is not None
    np.testing.assert_allclose(
        (forecast.mean.values - usual.mean.values)[:20], 100 * np.exp(-np.arange(3, 23) / 24), rtol=0.1
    )


def test_a_level_older_than_six_hours_says_nothing_of_the_present():
    values = np.concatenate([np.resize([200.0, 300.0], 27 * 24), [900.0], [nan] * 7])
    assert issued(values).mean.values[0] == pytest.approx(300, abs=1)


def test_unknown_hours_are_passed_over_and_never_spread():
    values = np.resize(np.arange(24) * 10.0 + 100, 35 * 24)
    holes = values.copy()
    holes[np.random.default_rng(1).random(len(values)) < 0.3] = nan
    holes[-1] = values[-1]
    np.testing.assert_allclose(issued(holes).mean.values, issued(values).mean.values)


def test_a_time_of_day_that_nobody_knows_lies_between_its_neighbours():
    values = np.resize(np.arange(24) * 10.0, 28 * 24)
    values[10::24] = nan
    values[0::24] = nan
    expected = issued(values).mean.values[1:]
    assert expected[10] == pytest.approx(100)
    assert expected[0] == pytest.approx((230 + 10) / 2)
