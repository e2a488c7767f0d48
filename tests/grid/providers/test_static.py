from datetime import UTC, datetime, timedelta, timezone
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon.traces import HOUR
from gridsweep.errors import SpecError
from gridsweep.grid import yearly_averages as zones
from gridsweep.grid.providers.static import Static
from gridsweep.grid.source import Means
from gridsweep.sweep.sweep import CarbonSource

NOW = datetime(2026, 5, 4, 14, 20, tzinfo=UTC)


def static(zone="", value=None):
    def refuse(*asked):
        raise AssertionError(f"{asked} was asked for, and a constant asks nobody")

    return Static(CarbonSource(provider="static", zone=zone, file=None, value=value), Means(refuse, refuse))


@given(st.floats(0, 5000), st.integers(-(10**9), 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds)))
def test_it_is_flat_from_28_days_ago_to_96_hours_ahead(value, now):
    reading = static(value=value).read(now)
    assert set(reading.history.values.tolist()) == {value}
    assert reading.history.at(now) == value
    assert len(reading.history) == 28 * 24 + 1
    assert reading.history.end - HOUR <= now < reading.history.end
    forecast = reading.forecast
    assert (forecast.paths.shape, forecast.start, forecast.issued_at) == ((1, 96), reading.history.end - HOUR, now)
    assert set(forecast.paths.ravel().tolist()) == {value}


def test_nothing_is_placed_by_it_and_nothing_claimed():
    reading = static("FR").read(NOW)
    assert (reading.lost, reading.provenance.quality) == (False, "static")
    assert not Static.live and static("FR").past(NOW - HOUR, NOW).provenance.quality == "static"


def test_the_average_says_of_where_and_when_it_is_and_by_whom():
    title = static("FR").read(NOW).provenance.title
    average = zones.average("FR")
    assert all(part in title for part in ("France", str(average.year), "Ember", "CC BY 4.0"))
    assert static("FR").read(NOW).history.at(NOW) == average.g_per_kwh


def test_an_average_of_a_larger_area_says_so():
    assert "Germany as a whole, as nothing is known of DE-LU" in static("DE-LU").read(NOW).provenance.title


def test_a_value_comes_before_the_average_and_has_no_basis():
    reading = static("FR", 226.0).read(NOW)
    assert reading.history.at(NOW) == 226
    assert (reading.provenance.basis, reading.provenance.zone) == ("unknown", "FR")
    assert "226 gCO2eq/kWh" in reading.provenance.title
    assert static("FR").read(NOW).provenance.basis == "lifecycle"


def test_a_value_of_zero_is_a_value():
    assert static("nowhere", 0.0).read(NOW).history.at(NOW) == 0


@pytest.mark.parametrize(("zone", "meant"), [("France", "'FR'"), ("US_CA", "'US-CA'"), ("germny", "'DE'")])
def test_an_unknown_zone_is_an_error_that_says_which_was_meant(zone, meant):
    with pytest.raises(SpecError, match=f"did you mean {meant}"):
        static(zone)


@pytest.mark.parametrize("zone", ["qqqqqq", "synthetic-solar-valley", "MISO"])
def test_a_zone_like_none_is_an_error_that_says_what_to_write(zone):
    with pytest.raises(SpecError, match=r"(?!.*did you mean).*carbon\.value in gCO2eq/kWh"):
        static(zone)


@pytest.mark.parametrize(("minutes", "slots"), [(0, 1), (30, 2)])
def test_the_past_is_flat_in_all_slots_that_touch_the_window(minutes, slots):
    start = NOW.replace(minute=minutes)
    history = static(value=5.0).past(start, start + HOUR).history
    assert (history.start, history.values.tolist()) == (NOW.replace(minute=0), [5.0] * slots)


def test_a_time_without_a_zone_is_refused_and_another_zone_is_the_same_instant():
    with pytest.raises(ValueError, match="no time zone"):
        static(value=1.0).read(NOW.replace(tzinfo=None))
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert static(value=1.0).read(elsewhere).history.end == static(value=1.0).read(NOW).history.end


def test_without_a_zone_the_zones_are_listed_and_nothing_is_known():
    assert len(static().zones()) > 200
    assert isnan(static().read(NOW).history.at(NOW))


def test_its_zones_can_be_read():
    listed = static("FR").zones()
    assert len(listed) > 200
    assert all(static(zone.id).read(NOW).history.at(NOW) > 0 for zone in listed)
