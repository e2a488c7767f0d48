from datetime import UTC, datetime, timedelta
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon import HOUR, Trace
from gridsweep.forecast import DAY, repeat_last_day

START = datetime(2024, 5, 1, tzinfo=UTC)
STEPS = st.sampled_from([timedelta(minutes=15), timedelta(minutes=30), HOUR, timedelta(hours=6), DAY])


@given(STEPS, st.integers(0, 72), st.integers(0, 7 * 24), st.integers(0, 59), st.data())
def test_every_expected_slot_is_the_one_a_whole_number_of_days_before(step, extra, hours, minutes, data):
    slots = DAY // step + extra
    values = np.arange(slots, dtype=float)
    history = Trace(START, step, values)
    now = history.end - step + data.draw(st.integers(0, step // timedelta(minutes=1) - 1)) * timedelta(minutes=1)
    horizon = timedelta(hours=hours, minutes=minutes)
    forecast = repeat_last_day(history, now, horizon)
    assert forecast is not None
    assert forecast.issued_at == now
    assert forecast.paths.shape[0] == 1
    assert forecast.start <= now < forecast.start + step
    assert now + horizon <= forecast.end < now + horizon + 3 * step
    for i in range(forecast.paths.shape[1]):
        past = forecast.start + i * step
        while past > now:
            past -= DAY
        assert forecast.paths[0, i] == history.at(past)


def test_the_path_opens_with_the_present():
    history = Trace(START, HOUR, range(100, 148))
    forecast = repeat_last_day(history, START + 47 * HOUR, timedelta(hours=2))
    assert forecast is not None
    assert forecast.start == START + 47 * HOUR
    assert forecast.paths.tolist() == [[147, 124, 125]]
    assert forecast.mean.at(START + 48 * HOUR) == 124


def test_unknown_hours_stay_unknown():
    values = [100.0] * 48
    values[30] = nan
    forecast = repeat_last_day(Trace(START, HOUR, values), START + 47 * HOUR, DAY)
    assert forecast is not None
    assert [i for i, value in enumerate(forecast.paths[0]) if isnan(value)] == [7]


@pytest.mark.parametrize(
    ("hours", "now"),
    [
        (0, START),
        (23, START + 22 * HOUR),
        (48, START + 10 * HOUR),
        (48, START - HOUR),
        (48, START + 48 * HOUR),
    ],
    ids=["empty", "less than a day", "early in the history", "before it", "the present unknown"],
)
def test_without_a_full_day_up_to_now_there_is_no_forecast(hours, now):
    assert repeat_last_day(Trace(START, HOUR, [1.0] * hours), now, DAY) is None


@pytest.mark.parametrize("step", [timedelta(hours=7), timedelta(hours=36), timedelta(days=2)])
def test_slots_that_do_not_fill_a_day_cannot_be_repeated(step):
    history = Trace(START, step, [1.0] * 20)
    assert repeat_last_day(history, history.end - step, DAY) is None


def test_history_is_left_as_it_was():
    values = np.arange(48, dtype=float)
    forecast = repeat_last_day(Trace(START, HOUR, values), START + 47 * HOUR, DAY)
    assert forecast is not None
    assert not np.shares_memory(forecast.paths, values)
