from datetime import UTC, datetime, timedelta, timezone
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Exposure, Trace, ceil_to, floor_to, or_nan, or_none, utc

START = datetime(2024, 5, 1, tzinfo=UTC)
STEPS = st.sampled_from([timedelta(minutes=5), timedelta(minutes=30), HOUR, timedelta(hours=3)])
LEVELS = st.one_of(st.floats(0, 2000), st.just(nan))
COLUMNS = st.lists(LEVELS, max_size=60)
MOMENTS = st.integers(-3 * 24 * 3600, 12 * 24 * 3600).map(lambda s: START + timedelta(seconds=s))
WINDOWS = st.tuples(MOMENTS, MOMENTS).map(sorted)


def brute_force(trace: Trace, start: datetime, end: datetime) -> Exposure:
    """The integral, slot by slot."""
    level, known = 0.0, timedelta(0)
    for i, value in enumerate(trace.values):
        opens = trace.start + i * trace.step
        overlap = min(end, opens + trace.step) - max(start, opens)
        if overlap > timedelta(0) and not isnan(value):
            level += value * (overlap / HOUR)
            known += overlap
    return Exposure(level, known, (end - start) - known)


@given(COLUMNS, STEPS, WINDOWS)
def test_exposure_is_the_integral_slot_by_slot(values, step, window):
    trace = Trace(START, step, values)
    seen, wanted = trace.exposure(*window), brute_force(trace, *window)
    assert seen.level_hours == pytest.approx(wanted.level_hours, rel=1e-9, abs=1e-7)
    assert seen.known == wanted.known
    assert seen.unknown == wanted.unknown


@given(COLUMNS, STEPS, st.tuples(MOMENTS, MOMENTS, MOMENTS).map(sorted))
def test_windows_that_meet_add_up(values, step, moments):
    a, b, c = moments
    trace = Trace(START, step, values)
    left, right, whole = trace.exposure(a, b), trace.exposure(b, c), trace.exposure(a, c)
    assert left.level_hours + right.level_hours == pytest.approx(whole.level_hours, rel=1e-9, abs=1e-7)
    assert left.known + right.known == whole.known
    assert left.unknown + right.unknown == whole.unknown


@given(COLUMNS, STEPS, WINDOWS)
def test_a_mean_lies_among_the_values_it_is_of(values, step, window):
    trace = Trace(START, step, values)
    mean = trace.mean(*window)
    known = [value for value in trace.between(*window).values if not isnan(value)]
    if window[0] == window[1]:
        assert mean == trace.at(window[0]) or (isnan(mean) and isnan(trace.at(window[0])))
    elif not known:
        assert isnan(mean)
    else:
        assert min(known) - 1e-3 <= mean <= max(known) + 1e-3


@given(COLUMNS, STEPS, WINDOWS)
def test_a_cut_holds_what_the_window_needs_and_shares_its_memory(values, step, window):
    trace = Trace(START, step, values)
    cut = trace.between(*window)
    assert cut.exposure(*window).known == trace.exposure(*window).known
    assert cut.end - cut.start <= (window[1] - window[0]) + 2 * step
    if len(cut):
        assert np.shares_memory(cut.values, trace.values)
        assert cut.start == trace.start + trace.index(cut.start) * step
        assert np.array_equal(cut.values, trace.values[trace.index(cut.start) :][: len(cut)], equal_nan=True)


@given(COLUMNS, STEPS, MOMENTS)
def test_an_instant_has_the_value_of_the_slot_that_holds_it(values, step, moment):
    trace = Trace(START, step, values)
    i = trace.index(moment)
    assert trace.start + i * step <= moment < trace.start + (i + 1) * step
    wanted = trace.values[i] if 0 <= i < len(trace) else nan
    assert trace.at(moment) == wanted or (isnan(trace.at(moment)) and isnan(wanted))


@given(MOMENTS, STEPS)
def test_floor_and_ceil_enclose_a_moment(moment, step):
    low, high = floor_to(moment, step), ceil_to(moment, step)
    assert low <= moment < high
    assert high - low == step
    assert floor_to(low, step) == low
    assert ceil_to(low, step) == high


def test_slots_are_half_open():
    trace = Trace(START, HOUR, [100, 200])
    assert trace.at(START) == 100
    assert trace.at(START + HOUR - timedelta(microseconds=1)) == 100
    assert trace.at(START + HOUR) == 200
    assert isnan(trace.at(START + 2 * HOUR))
    assert isnan(trace.at(START - timedelta(microseconds=1)))
    assert trace.end == START + 2 * HOUR
    assert len(trace.between(START + HOUR, START + HOUR)) == 0
    assert list(trace.between(START, START + HOUR).values) == [100]
    assert list(trace.between(START, START + HOUR + timedelta(seconds=1)).values) == [100, 200]


def test_a_mean_counts_known_time_only():
    trace = Trace(START, HOUR, [100, nan, 300])
    assert trace.mean(START, trace.end) == 200
    assert trace.mean(START + HOUR / 2, START + 3 * HOUR / 2) == 100
    assert trace.exposure(START, trace.end) == Exposure(400, 2 * HOUR, HOUR)
    assert isnan(trace.mean(START + HOUR, START + 2 * HOUR))
    assert isnan(trace.mean(trace.end, trace.end + HOUR))


def test_the_mean_of_an_empty_window_is_the_value_there():
    trace = Trace(START, HOUR, [100, 200])
    assert trace.mean(START + HOUR, START + HOUR) == 200


def test_an_empty_trace_knows_nothing():
    trace = Trace(START, HOUR, [])
    assert trace.start == trace.end == START
    assert isnan(trace.at(START))
    assert trace.exposure(START, START + HOUR) == Exposure(0.0, timedelta(0), HOUR)


def test_unknown_time_around_a_trace_is_counted():
    trace = Trace(START, HOUR, [100])
    assert trace.exposure(START - HOUR, START + 3 * HOUR) == Exposure(100, HOUR, 3 * HOUR)


def test_an_unknown_level_is_none_where_it_is_written_and_nan_where_it_is_read():
    written = tuple(map(or_none, [0.0, float("nan"), 312.5, float("inf")]))
    assert written == (0.0, None, 312.5, None)
    assert or_nan(written) == pytest.approx([0.0, float("nan"), 312.5, float("nan")], nan_ok=True)
    assert or_nan(()).shape == (0,)


def test_times_of_any_zone_are_one_time():
    summer = timezone(timedelta(hours=2))
    trace = Trace(datetime(2024, 5, 1, 2, tzinfo=summer), HOUR, [100, 200])
    assert trace.start == START
    assert trace.start.tzinfo is UTC
    assert trace.at(datetime(2024, 5, 1, 3, 30, tzinfo=summer)) == 200


def test_a_naive_time_is_refused_where_it_enters():
    with pytest.raises(ValueError, match="has no time zone"):
        utc(datetime(2024, 5, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="has no time zone"):
        Trace(datetime(2024, 5, 1), HOUR, [1.0])  # noqa: DTZ001


@pytest.mark.parametrize("step", [timedelta(0), -HOUR])
def test_a_slot_must_last(step):
    with pytest.raises(ValueError, match="give a positive step"):
        Trace(START, step, [1.0])


def test_a_year_of_five_minutes_adds_up_exactly():
    trace = Trace(START, timedelta(minutes=5), np.full(105_120, 226.5))
    seen = trace.exposure(trace.start, trace.end)
    assert seen.known == timedelta(days=365)
    assert seen.unknown == timedelta(0)
    assert seen.level_hours == pytest.approx(226.5 * 8760, rel=1e-12)


def test_a_forecast_of_several_paths_has_a_mean_path():
    forecast = Forecast(START, START, HOUR, np.array([[100.0, 200.0, nan], [200.0, 400.0, 5.0]]))
    assert forecast.end == START + 3 * HOUR
    assert forecast.mean.values[:2].tolist() == [150, 300]
    assert isnan(forecast.mean.values[2])
    assert forecast.mean is forecast.mean


def test_a_reading_asks_for_its_forecast_once_and_only_when_asked():
    calls = []
    forecast = Forecast(START, START, HOUR, np.ones((1, 3)))

    def expect() -> Forecast:
        calls.append(1)
        return forecast

    reading = Reading(Trace(START, HOUR, [1.0]), expect, Provenance("somewhere", "measured"))
    assert calls == []
    assert reading.forecast is forecast
    assert reading.forecast is forecast
    assert calls == [1]


def test_a_reading_takes_a_forecast_as_it_is_or_none():
    history = Trace(START, HOUR, [1.0])
    forecast = Forecast(START, START, HOUR, np.ones((1, 3)))
    assert Reading(history, forecast, Provenance("somewhere", "measured")).forecast is forecast
    assert Reading(history, None, Provenance("somewhere", "measured")).forecast is None
    assert Reading(history, lambda: None, Provenance("somewhere", "measured")).forecast is None


@given(
    st.lists(st.one_of(st.floats(0, 600), st.just(nan)), min_size=0, max_size=12),
    st.lists(st.tuples(st.integers(-(10**10), 6 * 10**10), st.integers(0, 10**10)), max_size=12),
)
def test_many_windows_meet_what_each_alone_meets(levels, windows):
    trace = Trace(datetime(2024, 1, 1, tzinfo=UTC), timedelta(hours=1), levels)
    spans = [
        (trace.start + timedelta(microseconds=a), trace.start + timedelta(microseconds=a + length))
        for a, length in windows
    ]
    assert trace.exposures(spans) == [trace.exposure(*span) for span in spans]
