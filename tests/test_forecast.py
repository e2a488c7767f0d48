from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon import HOUR, Forecast, Trace
from gridsweep.forecast import DAY, blend, from_history, with_past

START = datetime(2024, 3, 1, tzinfo=UTC)
HORIZON = timedelta(hours=96)
STEPS = st.sampled_from([timedelta(minutes=30), HOUR, timedelta(hours=3)])
SEEDS = st.integers(0, 2**32 - 1)


def weather(seed: int, hours: int = 35 * 24) -> np.ndarray:
    """A day's course and a slow deviation, in round numbers, which add up exactly."""
    random = np.random.default_rng(seed)
    course = random.integers(-100, 100, 24)
    return 400.0 + np.resize(course, hours) + np.clip(np.cumsum(random.integers(-15, 16, hours)), -250, 250)


def issued(
    values: np.ndarray, step: timedelta = HOUR, horizon: timedelta = HORIZON, start: datetime = START
) -> Forecast:
    """The forecast when the last of these slots has begun."""
    history = Trace(start, step, values)
    forecast = from_history(history, history.end - step, horizon)
    assert forecast is not None
    return forecast


def everything(forecast: Forecast) -> list[np.ndarray]:
    return [forecast.mean.values, forecast.paths, *(side.values for side in forecast.band()), forecast.error]


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


# -- scenarios, and how sure it is


@pytest.mark.parametrize(("days", "paths"), [(35, 28), (32, 28), (28, 24), (10, 6), (5, 1), (1, 1)])
def test_scenarios_are_the_courses_that_have_ended(days, paths):
    assert issued(weather(4, days * 24)).paths.shape == (paths, 97)


def test_scenarios_lie_around_the_point_forecast():
    forecast = issued(weather(4))
    inside = (forecast.paths > forecast.paths.min()) & (forecast.paths < forecast.paths.max())
    free = inside.all(axis=0)  # no path was held back at the edge of what was seen
    np.testing.assert_allclose(forecast.paths.mean(axis=0)[free], forecast.mean.values[free])
    assert forecast.paths[:, 48].std() > 5


def test_scenarios_with_an_unknown_hour_take_the_point_forecast_there():
    values = weather(4)
    values[-24 * 10 + 5] = nan
    forecast = issued(values)
    assert np.isfinite(forecast.paths).all()
    assert forecast.paths[6, 6] == forecast.mean.values[6]
    assert abs(forecast.paths.mean(axis=0) - forecast.mean.values).max() < 25


@given(SEEDS, st.floats(0.05, 0.45))
@settings(max_examples=20)
def test_the_band_is_ordered_and_wider_when_more_is_to_lie_within(seed, share):
    forecast = issued(weather(seed))
    inner, outer = forecast.band(share, 1 - share), forecast.band(share / 2, 1 - share / 2)
    columns = [outer[0], inner[0], forecast.mean, inner[1], outer[1]]
    for lower, upper in pairwise(columns):
        assert (lower.values <= upper.values).all()


def test_eight_of_ten_fall_into_the_band():
    random = np.random.default_rng(7)
    within = []
    for _ in range(40):
        values = 300 + 20 * random.standard_normal(40 * 24)
        forecast = issued(values[: 36 * 24])
        low, high = forecast.band()
        came = values[36 * 24 :]
        within.append((low.values[1:] <= came) & (came <= high.values[1:]))
    assert 0.78 < np.mean(within) < 0.82


def test_the_typical_error_is_that_of_its_own_past_forecasts():
    values = weather(11, 70 * 24)
    wrong = []
    for day in range(1, 29):
        earlier = issued(values[: -24 * day]).mean.values[1:25]
        came = values[len(values) - 24 * day :][:24]
        wrong.append(abs(earlier - came) / came)
    assert issued(values).typical_error == pytest.approx(np.mean(wrong))


def test_with_little_history_the_band_is_the_spread_of_the_paths():
    forecast = issued(weather(6, 7 * 24))
    low, high = forecast.band(0.0, 1.0)
    assert isnan(forecast.typical_error)
    np.testing.assert_allclose(high.values, np.maximum(forecast.paths.max(axis=0), forecast.mean.values))
    np.testing.assert_allclose(low.values, np.minimum(forecast.paths.min(axis=0), forecast.mean.values))
    assert (high.values > low.values)[1:].all()


def test_paths_and_errors_are_made_once_and_only_when_asked_for():
    calls = []

    def paths():
        calls.append("paths")
        return np.ones((2, 3))

    def past():
        calls.append("past")
        return np.ones((9, 3)), np.ones((9, 3))

    forecast = Forecast(START, START, HOUR, paths, "somebody", np.ones(3), past)
    assert forecast.end == START + 3 * HOUR and forecast.mean.at(START) == 1 and "somebody" in repr(forecast)
    assert calls == []
    assert forecast.paths is forecast.paths and forecast.typical_error == 0 and forecast.band()[0].at(START) == 1
    assert calls == ["paths", "past"]


def test_a_single_path_without_a_past_claims_no_certainty():
    forecast = Forecast(START, START, HOUR, np.array([[100.0, 200.0]]))
    assert isnan(forecast.typical_error)
    assert forecast.band()[0].values.tolist() == forecast.band()[1].values.tolist() == [100, 200]


# -- blending with a provider's


def provided(values: np.ndarray, error: float, days: int = 20, seed: int = 1) -> tuple[Forecast, Forecast]:
    """Ours of the end of the first 35 days, and a provider's whose errors are so large a share, with its past."""
    random = np.random.default_rng(seed)

    def told(before: int) -> Forecast:
        at = 35 * 24 - 1 - 24 * before
        path = values[at : at + 97] * (1 + error * random.choice([-1, 1], 97))
        return Forecast(START + at * HOUR, START + at * HOUR, HOUR, path[np.newaxis, :], "provider")

    history = Trace(START, HOUR, values[: 35 * 24])
    return issued(values[: 35 * 24]), with_past(told(0), [told(day) for day in range(1, days + 1)], history)


def test_a_provider_that_errs_less_is_taken_at_its_word_but_for_the_present():
    own, given = provided(weather(8, 40 * 24), 0.01)
    assert own.typical_error > 0.02
    mixed = blend(own, given)
    assert mixed.mean.values[0] == own.mean.values[0]
    np.testing.assert_array_equal(mixed.mean.values[1:], given.mean.values[1:])
    assert mixed.source == "provider"
    assert mixed.typical_error == pytest.approx(0.01, rel=0.2)
    assert np.ptp(mixed.paths[:, 48]) < np.ptp(own.paths[:, 48])


def test_a_provider_that_errs_twice_as_much_is_not_listened_to():
    own, given = provided(weather(8, 40 * 24), 0.9)
    mixed = blend(own, given)
    np.testing.assert_array_equal(mixed.mean.values, own.mean.values)
    np.testing.assert_allclose(mixed.paths, own.paths)
    assert mixed.source == own.source


def test_between_the_two_the_blend_lies_between_the_two():
    own, _ = provided(weather(8, 40 * 24), 0.0)
    own, given = provided(weather(8, 40 * 24), 1.4 * float(np.nanmean(own.error[1:])))
    mixed, ours, theirs = (forecast.mean.values[1:] for forecast in (blend(own, given), own, given))
    assert ((np.minimum(ours, theirs) - 1e-9 <= mixed) & (mixed <= np.maximum(ours, theirs) + 1e-9)).all()
    assert (np.abs(mixed - ours) > 1).any() and (np.abs(mixed - theirs) > 1).any()


@pytest.mark.parametrize("days", [0, 3])
def test_a_provider_whose_errors_are_not_known_is_taken_as_far_as_it_goes(days):
    own, given = provided(weather(9, 40 * 24), 0.9, days)
    known = given.past[0][:, :49], given.past[1][:, :49]
    short = Forecast(given.issued_at, given.start, HOUR, given.paths[:, :49], "provider", past=lambda: known)
    mixed = blend(own, short)
    np.testing.assert_array_equal(mixed.mean.values[1:49], given.mean.values[1:49])
    np.testing.assert_array_equal(mixed.mean.values[49:], own.mean.values[49:])
    assert isnan(mixed.typical_error)
    assert np.isfinite(mixed.paths).all() and (mixed.paths >= 0).all()


def test_unknown_slots_of_a_provider_are_ours():
    own, given = provided(weather(9, 40 * 24), 0.0, 0)
    path = given.paths.copy()
    path[:, 10] = nan
    mixed = blend(own, Forecast(given.issued_at, given.start, HOUR, path, "provider"))
    assert mixed.mean.values[10] == own.mean.values[10]
    assert mixed.mean.values[11] == given.mean.values[11]


def test_a_provider_on_other_slots_is_read_by_their_mean():
    own, _ = provided(weather(9, 40 * 24), 0.0, 0)
    finer = np.arange(400.0)[np.newaxis, :]
    mixed = blend(own, Forecast(own.start, own.start, timedelta(minutes=15), finer, "provider"))
    assert mixed.mean.values[1:4].tolist() == [5.5, 9.5, 13.5]
    assert mixed.end == own.end


def test_the_errors_of_a_provider_are_matched_by_lead_and_use_no_later_value():
    values = weather(9, 40 * 24)
    _, given = provided(values, 0.1)
    expected, came = given.past
    assert expected.shape == came.shape == (20, 97)
    assert came[0, 24] == values[35 * 24 - 1] and np.isnan(came[0, 25:]).all()
    assert came[4, 10] == values[35 * 24 - 1 - 5 * 24 + 10]
    np.testing.assert_allclose(np.abs(expected / came - 1)[np.isfinite(came)], 0.1)
