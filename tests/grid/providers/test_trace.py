import time
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import TraceError
from gridsweep.grid.providers.trace import TraceProvider, open_trace

START = datetime(2024, 5, 1, tzinfo=UTC)
HEADER = "timestamp,carbon_intensity\n"
DAY = timedelta(days=1)


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "grid.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def rows(*values: object, start: datetime = START, step: timedelta = HOUR) -> str:
    return "".join(f"{(start + i * step).isoformat()},{value}\n" for i, value in enumerate(values))


# The provider


def hours(count: int, start: datetime = START) -> Trace:
    return Trace(start, HOUR, np.arange(count, dtype=float))


def test_a_reading_ends_with_the_present_slot():
    provider = TraceProvider(hours(100), "X", "a file")
    for now in (START + 30 * HOUR, START + 30 * HOUR + timedelta(minutes=59)):
        reading = provider.read(now)
        assert reading.history.start == START
        assert reading.history.values.tolist() == list(range(31))
        assert (reading.provenance.title, reading.provenance.quality) == ("a file", "measured")
    assert len(provider.read(START + 31 * HOUR).history) == 32


def test_a_reading_is_a_view_of_the_trace():
    trace = hours(100)
    history = TraceProvider(trace, "X", "a file").read(START + 50 * HOUR).history
    assert np.shares_memory(history.values, trace.values)


def test_history_goes_back_60_days():
    now = START + 90 * DAY
    history = TraceProvider(hours(100 * 24), "X", "a file").read(now).history
    assert len(history) == 60 * 24
    assert history.end == now + HOUR
    assert history.at(now) == 90 * 24


@given(st.integers(-100, 300), st.integers(0, 59))
def test_nothing_of_the_future_is_shown(hour, minute):
    trace = hours(200)
    now = START + hour * HOUR + timedelta(minutes=minute)
    reading = TraceProvider(trace, "X", "a file", history=timedelta(days=3)).read(now)
    history = reading.history
    assert history.end <= max(START, now + HOUR)
    assert len(history) <= 72
    assert all(history.values == trace.between(history.start, history.end).values)
    cut = trace.between(START, now + timedelta(microseconds=1))
    shorter = TraceProvider(cut, "X", "a file", history=timedelta(days=3))
    ahead, without = reading.forecast, shorter.read(now).forecast
    if 0 <= hour < 200:
        assert (ahead is None) is (without is None)
        assert ahead is None or np.array_equal(ahead.mean.values[:50], without.mean.values[:50])


def test_before_the_trace_nothing_is_known():
    reading = TraceProvider(hours(100), "X", "a file").read(START - HOUR)
    assert len(reading.history) == 0
    assert reading.forecast is None


def test_after_the_trace_the_present_is_unknown():
    provider = TraceProvider(hours(100), "X", "a file")
    reading = provider.read(START + 101 * HOUR)
    assert reading.history.end == START + 100 * HOUR
    assert isnan(reading.history.at(START + 101 * HOUR))
    assert len(provider.read(START + 90 * DAY).history) == 0


def test_the_forecast_of_days_that_repeat_is_those_days():
    now = START + 50 * HOUR
    days = Trace(START, HOUR, [float(i % 24) for i in range(100)])
    forecast = TraceProvider(days, "X", "a file").read(now).forecast
    assert forecast is not None
    assert forecast.issued_at == now
    assert forecast.end >= now + timedelta(hours=96)
    assert [forecast.mean.at(now + i * HOUR) for i in (0, 1, 24, 25)] == pytest.approx([2, 3, 2, 3])


def test_readings_may_go_back_in_time():
    provider = TraceProvider(hours(100), "X", "a file")
    first = provider.read(START + 40 * HOUR).history.values.tolist()
    provider.read(START + 90 * HOUR)
    assert provider.read(START + 40 * HOUR).history.values.tolist() == first


def test_a_reading_takes_microseconds():
    provider = TraceProvider(hours(8760), "X", "a file")
    moments = [START + 28 * DAY + i * timedelta(minutes=30) for i in range(2000)]
    started = time.process_time()
    for now in moments:
        provider.read(now)
    assert (time.process_time() - started) / len(moments) < 50e-6


# A year that repeats


@pytest.fixture(scope="module")
def plain_year() -> Trace:
    return hours(8760, start=datetime(2023, 1, 1, tzinfo=UTC))


def test_a_year_repeats_on_the_same_days(plain_year):
    provider = TraceProvider(plain_year, "X", "a file", yearly=True)
    for year in (1999, 2023, 2024, 2031):
        for month, day in ((1, 1), (2, 28), (3, 1), (12, 31)):
            now = datetime(year, month, day, 17, 20, tzinfo=UTC)
            wanted = plain_year.at(now.replace(year=2023))
            assert provider.read(now).history.at(now) == wanted


def test_a_leap_day_is_28_february_again(plain_year):
    history = TraceProvider(plain_year, "X", "a file", yearly=True).read(datetime(2024, 3, 2, tzinfo=UTC)).history
    leap, before = datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 28, tzinfo=UTC)
    assert history.between(leap, leap + DAY).values.tolist() == history.between(before, leap).values.tolist()


def test_history_reaches_over_the_new_year(plain_year):
    now = datetime(2025, 1, 3, 5, tzinfo=UTC)
    reading = TraceProvider(plain_year, "X", "a file", yearly=True).read(now)
    assert len(reading.history) == 60 * 24
    assert reading.history.end == now + HOUR
    assert reading.history.at(datetime(2024, 12, 31, 23, tzinfo=UTC)) == 8759
    assert reading.history.at(datetime(2025, 1, 1, tzinfo=UTC)) == 0
    assert reading.forecast is not None


def test_a_leap_year_or_a_year_from_the_middle_repeats_too():
    leap = hours(8784, start=datetime(2024, 1, 1, tzinfo=UTC))
    now = datetime(2023, 3, 1, tzinfo=UTC)
    assert TraceProvider(leap, "X", "a file", yearly=True).read(now).history.at(now) == 60 * 24
    middle = hours(8760, start=datetime(2022, 7, 1, 6, tzinfo=UTC))
    now = datetime(2030, 7, 1, 5, tzinfo=UTC)
    assert TraceProvider(middle, "X", "a file", yearly=True).read(now).history.at(now) == 8759
    now = datetime(2030, 7, 1, 6, tzinfo=UTC)
    assert TraceProvider(middle, "X", "a file", yearly=True).read(now).history.at(now) == 0


def test_of_two_years_the_first_repeats():
    provider = TraceProvider(hours(2 * 8760, start=datetime(2022, 1, 1, tzinfo=UTC)), "X", "a file", yearly=True)
    now = datetime(2023, 1, 1, tzinfo=UTC)
    assert provider.read(now).history.at(now) == 0


def test_what_is_unknown_stays_unknown_every_year():
    values = np.full(8760, 100.0)
    values[17] = np.nan
    trace = Trace(datetime(2023, 1, 1, tzinfo=UTC), HOUR, values)
    now = datetime(2030, 1, 1, 17, tzinfo=UTC)
    assert isnan(TraceProvider(trace, "X", "a file", yearly=True).read(now).history.at(now))


def test_less_than_a_year_or_broken_days_cannot_repeat():
    with pytest.raises(TraceError, match=r"364\.0 days cannot repeat yearly"):
        TraceProvider(hours(364 * 24), "X", "a file", yearly=True)
    with pytest.raises(TraceError, match="do not fill whole days"):
        TraceProvider(Trace(START, 7 * HOUR, np.ones(2000)), "X", "a file", yearly=True)
    with pytest.raises(TraceError, match="do not fill whole days"):
        TraceProvider(hours(9000, start=START + timedelta(minutes=15)), "X", "a file", yearly=True)


# Names


def test_the_bundled_trace_is_marked_and_serves_any_date():
    provider = open_trace("solar-valley", None)
    now = datetime(2037, 8, 9, 20, tzinfo=UTC)
    reading = provider.read(now)
    assert provider.provenance.zone == "synthetic-solar-valley"
    assert reading.provenance.quality == "synthetic"
    assert "synthetic" in reading.provenance.title
    assert len(reading.history) == 60 * 24
    assert reading.history.at(now) > 0


def test_a_file_is_looked_for_beside_the_spec(write):
    path = write(HEADER + rows(100, 200))
    provider = open_trace("grid.csv", path.parent)
    assert provider.provenance == Provenance("grid.csv", "measured", zone="grid")
    assert provider.read(START).history.values.tolist() == [100]
    assert open_trace(str(path), None, zone="DE").provenance.zone == "DE"
    assert open_trace(str(path), Path("/elsewhere")).trace.values.tolist() == [100, 200]


def test_a_misspelt_bundled_trace_is_put_right(tmp_path):
    with pytest.raises(TraceError, match="did you mean the bundled trace `solar-valley`"):
        open_trace("solar-valey", tmp_path)
    with pytest.raises(TraceError, match="there is no such file"):
        open_trace("other.csv", tmp_path)
