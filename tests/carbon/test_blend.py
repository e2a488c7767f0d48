"""Of forecasts: the scenarios, how sure they are, and how a provider's is blended with ours."""

from datetime import timedelta
from itertools import pairwise
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon.forecaster import blend, with_past
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import HOUR, Trace
from weather import START, issued, weather

SEEDS = st.integers(0, 2**32 - 1)


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
