from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon import HOUR, Forecast, Trace
from gridsweep.recent_days import DAY, bent, expected, recent_days

MONDAY = datetime(2024, 6, 10, tzinfo=UTC)


def history(values, step=HOUR):
    return Trace(MONDAY, step, np.asarray(values, dtype=float))


def noisy(slots, seed=3):
    return 300 + np.random.default_rng(seed).normal(0, 60, slots)


@given(st.integers(24, 60 * 24), st.sampled_from([1, 5, 24, 51, 96, 200]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_mean_of_the_paths_is_the_single_guess_and_both_open_with_the_present(last, hours, holes):
    values = noisy(last + 1)
    if holes:
        values[np.random.default_rng(last).random(last + 1) < 0.2] = np.nan
        values[last] = 250.0
    seen = history(values)
    now = MONDAY + last * HOUR + timedelta(minutes=20)
    forecast, guess = recent_days(seen, now, hours * HOUR), expected(seen, now, hours * HOUR)
    assert forecast.start == guess.start == MONDAY + last * HOUR
    assert now + hours * HOUR <= guess.end
    assert forecast.mean.values == pytest.approx(guess.values)
    assert forecast.paths[:, 0] == pytest.approx(values[last])
    assert np.isfinite(forecast.paths).all()


def test_days_that_are_all_alike_go_on_so():
    day = 200 + 100 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    seen = history(np.tile(day, 40)[: 35 * 24 + 8])
    guess = expected(seen, seen.end - HOUR, 96 * HOUR)
    assert guess.values == pytest.approx(np.tile(day, 6)[7 : 7 + len(guess)])


def test_a_deviation_of_the_present_fades_by_e_in_a_day():
    values = np.full(30 * 24, 300.0)
    values[-1] = 400.0
    seen = history(values)
    guess = expected(seen, seen.end - HOUR, 48 * HOUR)
    assert guess.values[[0, 12, 36]] == pytest.approx(300 + 100 * np.exp([0.0, -0.5, -1.5]))


def test_weekends_are_expected_where_they_lie_now():
    days = [300.0] * 5 + [200.0] * 2
    seen = history(np.repeat(days * 52, 24)[: 51 * 7 * 24 + 4 * 24 + 1])  # a Friday's first hour
    guess = expected(seen, seen.end - HOUR, 96 * HOUR)
    assert guess.values[12] == pytest.approx(300, abs=3)
    assert guess.values[36] == pytest.approx(200, abs=8)  # Saturday; the difference is not believed in whole
    assert guess.values[84] == pytest.approx(300, abs=3)


def test_later_days_weigh_more():
    values = np.repeat(np.arange(28.0), 24)
    assert expected(history(np.append(values, 13.5)), MONDAY + 28 * DAY, 3 * HOUR).values[3] > 13.5


@given(st.integers(24, 40 * 24), st.integers(-100, 100), st.sampled_from([0.5, 2.0, 8.0]))
@settings(max_examples=30, deadline=None)
def test_adding_adds_and_multiplying_multiplies(last, more, factor):
    values = noisy(last + 1)
    now = MONDAY + last * HOUR
    plain = expected(history(values), now, 50 * HOUR).values
    assert expected(history(values + more), now, 50 * HOUR).values == pytest.approx(plain + more)
    assert expected(history(values * factor), now, 50 * HOUR).values == pytest.approx(plain * factor)


@given(st.integers(0, 24 * 20))
@settings(max_examples=30, deadline=None)
def test_nothing_after_the_present_is_looked_at(more):
    values = noisy(30 * 24)
    now = MONDAY + 29 * DAY
    short = expected(history(values[: 29 * 24 + 1]), now, 50 * HOUR)
    other = np.concatenate([values[: 29 * 24 + 1], np.full(more, 9e9)])
    assert expected(history(other), now, 50 * HOUR).values.tolist() == short.values.tolist()


@pytest.mark.parametrize(
    ("values", "step", "at"),
    [
        ([], HOUR, 0),
        ([1.0] * 24, HOUR, 23),
        ([1.0] * 40 + [np.nan], HOUR, 40),
        ([1.0] * 40, HOUR, 50),
        ([1.0] * 20, 7 * HOUR, 19),
    ],
    ids=["empty", "less than a day", "the present unknown", "past the end", "no whole slots in a day"],
)
def test_without_a_day_before_a_known_present_there_is_none(values, step, at):
    assert expected(history(values, step), MONDAY + at * step, DAY) is None
    assert recent_days(history(values, step), MONDAY + at * step, DAY) is None


def test_half_hours_are_forecast_as_hours_are():
    values = noisy(30 * 24)
    hourly = expected(history(values), MONDAY + 30 * DAY - HOUR, 24 * HOUR)
    halves = expected(history(np.repeat(values, 2), 0.5 * HOUR), MONDAY + 30 * DAY - HOUR, 24 * HOUR)
    assert halves.values[:48:2] == pytest.approx(hourly.values[:24])


def test_a_forecast_is_bent_to_what_is_known_now():
    forecast = Forecast(MONDAY, MONDAY, HOUR, np.repeat([[190.0], [210.0]], 60, axis=1))
    seen = history([200.0, 230.0])
    guess = bent(forecast, seen)
    assert guess.start == MONDAY + HOUR
    assert guess.mean.values[[0, 24]] == pytest.approx(200 + 30 * np.exp([0.0, -1.0]))
    assert (guess.paths[1] - guess.paths[0]).tolist() == pytest.approx([20.0] * 59)
    assert bent(forecast, history([200.0, np.nan])) is forecast
    assert bent(forecast, history([200.0] * 70)) is forecast
