from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon.traces import HOUR, Trace, floor_to
from gridsweep.errors import AnswerError, CredentialError, SpecError, UnreachableError
from gridsweep.grid.providers.carbon_aware_sdk import CarbonAwareSdk
from gridsweep.grid.source import Fetched, Means
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.testing.grid.carbon_aware_sdk import WebApi, span
from gridsweep.testing.grid.dialect import Grid, Request
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.provider_contract import NOW, MovableClock, ProviderContract, truth

DAY = timedelta(days=1)
FIVE_MINUTES = timedelta(minutes=5)
HERE = floor_to(NOW, HOUR)


class TestContract(ProviderContract):
    dialect = WebApi
    source = CarbonAwareSdk


class Told:
    """A client that gives one body for emissions and one for forecasts."""

    def __init__(self, *rows, forecast=()):
        self.rows, self.forecast = list(rows), list(forecast)

    def get(self, path, params=(), *, headers=None, auth=None, keep=timedelta(0)):
        return Fetched(self.forecast if path.endswith("current") else self.rows, NOW)


def sdk(http, zone="eastus", base_url="http://127.0.0.1:8080"):
    settings = CarbonSource(provider="carbon_aware_sdk", zone=zone, file=None, base_url=base_url)
    return CarbonAwareSdk(settings, Means(lambda url: http, str))


def row(start, rating=100.0, duration="01:00:00", location="eastus"):
    return {"location": location, "time": start.isoformat(), "rating": rating, "duration": duration}


def forecast(*values, start=HERE, location="eastus", duration=60, generated=NOW, **more):
    points = [
        {"location": location, "timestamp": (start + i * HOUR).isoformat(), "duration": duration, "value": value}
        for i, value in enumerate(values)
    ]
    return {"generatedAt": generated.isoformat(), "location": location, "forecastData": points, **more}


def virtual(tmp_path, dialect=None, trace=None):
    clock = MovableClock()
    dialect = dialect or WebApi()
    double = GridTransport(dialect, Grid(dialect.zone, trace or truth(), clock.now))
    return TestContract().virtual(tmp_path, double, clock), double


# What it tells


def test_history_and_forecast_meet_in_the_present_slot(tmp_path):
    setting, double = virtual(tmp_path)
    reading = setting.source.read(NOW)
    assert (reading.history.start, reading.history.end) == (floor_to(NOW, DAY) - 28 * DAY, HERE + HOUR)
    assert np.isfinite(reading.history.values).all()
    assert (reading.forecast.start, reading.forecast.paths.shape) == (HERE, (1, 24))
    assert reading.forecast.paths[0].tolist() == [truth().at(HERE + i * HOUR) for i in range(24)]
    assert double.count() == 3


def test_it_does_not_claim_to_know_its_source():
    found = sdk(Told(row(HERE))).read(NOW).provenance
    assert found.meaning == ("average", "unknown")
    assert "does not say from which source" in found.title and "127.0.0.1" in found.title


def test_a_password_in_the_url_is_in_no_title():
    source = sdk(Told(row(HERE)), base_url="https://user:hunter2@carbon.example.com/api")
    assert "hunter2" not in repr(source.read(NOW).stretches)


@pytest.mark.parametrize("status", [400, 404, 501])
def test_a_source_without_forecasts_has_none_and_is_asked_once_an_hour(tmp_path, status):
    setting, double = virtual(tmp_path, WebApi(forecast=status))
    for _ in range(6):
        assert setting.source.read(setting.clock.now()).forecast is None
        setting.clock.sleep(600)
    tries = [seen.at for seen in double.seen if "forecasts" in seen.request.path]
    assert max(tries) - min(tries) < timedelta(minutes=1)  # 501 is a 5xx, and so tried again at once


def test_a_forecast_that_is_down_is_no_missing_forecast(tmp_path):
    setting, _ = virtual(tmp_path, WebApi(forecast=500))
    with pytest.raises(UnreachableError):
        setting.source.read(NOW)


def test_a_source_that_gives_24_hours_only_is_asked_for_more_once_a_day(tmp_path):
    setting, double = virtual(tmp_path, WebApi(reach=DAY))
    for _ in range(20):
        reading = setting.source.read(setting.clock.now())
        setting.clock.sleep(3600)
    assert [seen.status for seen in double.seen].count(403) <= 2
    assert timedelta(hours=23) <= len(reading.history) * HOUR <= DAY + HOUR


def test_who_is_refused_altogether_is_told_so(tmp_path):
    setting, _ = virtual(tmp_path, WebApi(reach=HOUR))
    with pytest.raises(CredentialError):
        setting.source.read(NOW)


def test_slots_of_five_minutes_are_read_as_such(tmp_path):
    values = 100 + np.arange(33 * 288) % 300
    trace = Trace(floor_to(NOW, DAY) - 32 * DAY, FIVE_MINUTES, values)
    setting, _ = virtual(tmp_path, WebApi(step=FIVE_MINUTES), trace)
    reading = setting.source.read(NOW)
    assert reading.history.step == reading.forecast.step == FIVE_MINUTES
    assert reading.history.at(HERE) == trace.at(HERE)
    assert reading.forecast.start == floor_to(NOW, FIVE_MINUTES)
    setting.clock.sleep(300)
    assert setting.source.read(setting.clock.now()).forecast.start == floor_to(NOW, FIVE_MINUTES) + FIVE_MINUTES


@given(st.integers(1, 3 * 24 * 3600).map(lambda seconds: timedelta(seconds=seconds)))
def test_durations_are_spans_as_dotnet_writes_them(step):
    earlier = floor_to(NOW - 4 * DAY, step)
    assert sdk(Told(row(earlier, duration=span(step)))).read(NOW).history.step == step


def test_a_single_point_has_no_duration_and_takes_that_of_the_others():
    reading = sdk(Told(row(HERE - HOUR), row(HERE, duration="00:00:00"))).read(NOW)
    assert reading.history.step == HOUR and len(reading.history) == 2


def test_offsets_become_utc():
    local = datetime.fromisoformat("2026-05-04T09:00:00-05:00")
    assert sdk(Told(row(local))).read(NOW).history.start == HERE


def test_a_rating_of_null_is_a_gap():
    history = sdk(Told(row(HERE - HOUR), row(HERE, None))).read(NOW).history
    assert np.isnan(history.values).tolist() == [False, True]


def test_what_is_ahead_is_no_history():
    assert sdk(Told(row(HERE), row(HERE + HOUR))).read(NOW).history.end == HERE + HOUR


def test_a_forecast_is_cut_to_what_is_still_ahead():
    reading = sdk(Told(row(HERE), forecast=[forecast(1, 2, 3, start=HERE - HOUR)])).read(NOW)
    assert (reading.forecast.start, reading.forecast.paths.tolist()) == (HERE, [[2, 3]])
    assert reading.forecast.issued_at == NOW


@pytest.mark.parametrize("told", [[], [forecast()], [forecast(1, 2, start=HERE - 2 * HOUR)]])
def test_a_forecast_of_nothing_is_none(told):
    assert sdk(Told(row(HERE), forecast=told)).read(NOW).forecast is None


# What it refuses


@pytest.mark.parametrize("duration", ["5", "an hour", None, 1.5, True, -5, "00:00:00", 0, "99:99", {}])
def test_a_slot_without_a_length_is_refused(duration):
    with pytest.raises(AnswerError, match=r"duration|how long a slot is"):
        sdk(Told(row(HERE, duration=duration))).read(NOW)


def test_slots_of_two_lengths_are_refused():
    with pytest.raises(AnswerError, match="0:05:00, 1:00:00"):
        sdk(Told(row(HERE - HOUR), row(HERE, duration="00:05:00"))).read(NOW)


def test_the_region_that_watttime_would_name_is_refused_for_it_would_be_marginal():
    with pytest.raises(AnswerError, match="'CAISO_NORTH', and 'eastus' was asked for"):
        sdk(Told(row(HERE, location="CAISO_NORTH"))).read(NOW)
    with pytest.raises(AnswerError, match="'CAISO_NORTH', and 'eastus' was asked for"):
        sdk(Told(row(HERE), forecast=[forecast(1, location="CAISO_NORTH")])).read(NOW)


@pytest.mark.parametrize(
    "told",
    [
        forecast(1, generated=NOW + 2 * HOUR),
        forecast("1"),
        forecast(-1),
        forecast(1e9),
        forecast(1, duration="soon"),
        {**forecast(1), "generatedAt": "yesterday"},
        {**forecast(1), "forecastData": {}} | {"forecastData": {"a": 1}},
        {**forecast(1), "location": None},
    ],
)
def test_a_forecast_that_is_wrong_is_refused(told):
    with pytest.raises(AnswerError, match="carbon_aware_sdk: forecast"):
        sdk(Told(row(HERE), forecast=[told])).read(NOW)


def test_problem_details_are_told(tmp_path):
    setting, _ = virtual(tmp_path)
    setting.api.grid = Grid("elsewhere", truth(), setting.clock.now)
    with pytest.raises(AnswerError, match="400: location"):
        setting.source.read(NOW)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_url_is_needed(missing):
    with pytest.raises(SpecError, match=r"carbon\.base_url: missing"):
        sdk(Told(), base_url=missing)


# What it asks


@pytest.mark.parametrize("step", [FIVE_MINUTES, HOUR])
def test_an_hour_has_eight_requests_at_most_after_the_first(tmp_path, step):
    setting, double = virtual(tmp_path, WebApi(step=step))
    setting.source.read(NOW)
    for _ in range(13):
        setting.clock.sleep(300)
        setting.source.read(setting.clock.now())
    later = [seen.at for seen in double.seen][3:]
    assert max(sum(start <= at < start + HOUR for at in later) for start in later) <= 8


@given(st.integers(0, 3 * 24 * 12).map(lambda n: NOW + n * FIVE_MINUTES))
def test_the_recent_part_never_reaches_back_a_day_and_joins_the_older(now):
    asked = []

    class Asked(Told):
        def get(self, path, params=(), **how):
            asked.append(params)
            return super().get(path, params, **how)

    sdk(Asked(row(floor_to(now, HOUR)))).read(now)
    recent, older = ([datetime.fromisoformat(p[key]) for key in ("time", "toTime")] for p in asked[:2])
    assert now - DAY < recent[0] <= older[1] and now - timedelta(minutes=15) < recent[1] <= now


def test_locations_are_the_zones(tmp_path):
    setting, _ = virtual(tmp_path)
    assert [zone.id for zone in setting.source.zones()] == ["eastus", "westus"]


def test_the_double_says_no_length_for_a_single_point():
    params = {"location": "eastus", "time": HERE.isoformat(), "toTime": HERE.isoformat()}
    grid = Grid("eastus", truth(), lambda: NOW)
    assert b'"duration": "00:00:00"' in WebApi().respond(Request("GET", "/emissions/bylocation", params, {}), grid).body
