from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from builders import PROJECT
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import AnswerError, SpecError
from gridsweep.grid.providers.uk import REGIONS, UK
from gridsweep.grid.source import Fetched, Means
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.testing.grid.behaviours import POINTS
from gridsweep.testing.grid.dialect import Grid, Request
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.grid.uk import CarbonIntensityApi
from gridsweep.testing.provider_contract import NOW, MovableClock, ProviderContract, truth

SLOT = timedelta(minutes=30)
DAY = timedelta(days=1)


class TestNational(ProviderContract):
    dialect = CarbonIntensityApi
    source = UK


class TestRegional(ProviderContract):
    """What differs from the nation: how points are wrapped, and that they name their zone."""

    dialect = staticmethod(lambda: CarbonIntensityApi(zone="GB-13"))
    source = UK
    test_a_day_of_reads_every_five_minutes_stays_within_the_budget = None

    def pytest_generate_tests(self, metafunc):
        if "behaviour" in metafunc.fixturenames:
            metafunc.parametrize("behaviour", POINTS, ids=[one.name for one in POINTS])


class Told:
    """A client that gives one body to every question, and remembers the paths."""

    def __init__(self, *slots, region=None, body=None):
        found = {"data": list(slots)}
        if region is not None:
            found = {"data": {"regionid": region, "data": list(slots)}}
        self.body = found if body is None else body
        self.paths = []

    def get(self, path, params=(), *, headers=None, auth=None, keep=timedelta(0)):
        self.paths.append(path)
        return Fetched(self.body, NOW)


def uk(http, zone="GB"):
    return UK(CarbonSource(provider="uk", zone=zone, file=None), Means(lambda url: http, str))


def slot(start, forecast=100, *, minutes=30, **intensity):
    end = start + timedelta(minutes=minutes)
    return {
        "from": f"{start:%Y-%m-%dT%H:%MZ}",
        "to": f"{end:%Y-%m-%dT%H:%MZ}",
        "intensity": {"forecast": forecast, "index": "low", **intensity},
    }


PRESENT = datetime(2026, 5, 4, 14, 0, tzinfo=UTC)


def virtual(tmp_path, dialect, now=NOW, trace=None):
    clock = MovableClock(now)
    double = GridTransport(dialect, Grid(dialect.zone, trace or truth(now), clock.now))
    contract = TestNational()
    return contract.virtual(tmp_path, double, clock), double


# What it tells


def test_what_was_measured_is_measured_and_the_latest_slots_are_estimates(tmp_path):
    setting, _ = virtual(tmp_path, CarbonIntensityApi(unmeasured=3, error=7))
    reading = setting.source.read(NOW)
    assert [(s.start, s.provenance.quality) for s in reading.stretches] == [
        (reading.history.start, "measured"),
        (PRESENT - 2 * SLOT, "estimated"),
    ]
    assert reading.history.at(PRESENT - 3 * SLOT) == truth().at(PRESENT - 3 * SLOT)
    assert reading.history.at(PRESENT) == truth().at(PRESENT) + 7
    assert reading.history.end == PRESENT + SLOT


def test_the_history_is_28_days_of_half_hours_without_a_gap(tmp_path):
    setting, _ = virtual(tmp_path, CarbonIntensityApi())
    history = setting.source.read(NOW).history
    assert (history.step, history.start, len(history)) == (SLOT, PRESENT - 28 * DAY, 28 * 48 + 1)
    assert np.isfinite(history.values).all()


def test_the_forecast_is_48_hours_from_the_present_slot_on(tmp_path):
    setting, _ = virtual(tmp_path, CarbonIntensityApi())
    reading = setting.source.read(NOW)
    forecast = reading.forecast
    assert (forecast.start, forecast.step, forecast.paths.shape) == (PRESENT, SLOT, (1, 96))
    assert forecast.paths[0].tolist() == [round(truth().at(PRESENT + i * SLOT)) for i in range(96)]
    assert forecast.issued_at == NOW


def test_a_region_is_never_measured(tmp_path):
    setting, _ = virtual(tmp_path, CarbonIntensityApi(zone="GB-13"))
    assert {s.provenance.quality for s in setting.source.read(NOW).stretches} == {"estimated"}


@pytest.mark.parametrize("wrap", [lambda region: region, lambda region: [region]])
def test_a_region_may_stand_alone_or_in_a_list_of_one(wrap):
    region = {"regionid": 13, "shortname": "London", "data": [slot(PRESENT, 77)]}
    reading = uk(Told(body={"data": wrap(region)}), "GB-13").read(NOW)
    assert reading.history.values.tolist() == [77]


def test_attribution_and_meaning_are_told(tmp_path):
    found = uk(Told(slot(PRESENT)), "GB").read(NOW).provenance
    assert "National Energy System Operator, CC BY 4.0" in found.title
    assert found.meaning == ("average", "direct")


@pytest.mark.parametrize("day", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)])
def test_a_day_on_which_british_clocks_change_has_48_half_hours(tmp_path, day):
    now = day + 2 * DAY + timedelta(minutes=10)
    trace = Trace(now.replace(hour=0, minute=0) - 30 * DAY, SLOT, np.arange(34 * 48) % 500)
    setting, _ = virtual(tmp_path, CarbonIntensityApi(), now, trace)
    history = setting.source.read(now).history.between(day, day + DAY)
    assert len(history) == 48
    assert history.values.tolist() == [trace.at(day + i * SLOT) for i in range(48)]


def test_measured_beats_estimated_whatever_their_order():
    both = [slot(PRESENT, 100, actual=50), slot(PRESENT, 100, actual=None)]
    assert uk(Told(*both)).read(NOW).history.values.tolist() == [50]
    assert uk(Told(*both[::-1])).read(NOW).history.values.tolist() == [50]


def test_a_measured_zero_is_a_measurement():
    reading = uk(Told(slot(PRESENT, 100, actual=0))).read(NOW)
    assert (reading.history.values.tolist(), reading.provenance.quality) == ([0], "measured")


def test_a_slot_of_which_nothing_is_known_is_a_gap():
    slots = [slot(PRESENT - SLOT, None, actual=None), slot(PRESENT), slot(PRESENT - 2 * SLOT)]
    assert np.isnan(uk(Told(*slots)).read(NOW).history.values).tolist() == [False, True, False]


def test_slots_beside_the_window_are_left_out():
    slots = [slot(PRESENT + i * SLOT) for i in (-28 * 48 - 1, -1, 0, 1, 96)]
    reading = uk(Told(*slots)).read(NOW)
    assert (reading.history.start, reading.history.end) == (PRESENT - SLOT, PRESENT + SLOT)
    assert (reading.forecast.start, reading.forecast.end) == (PRESENT, PRESENT + 2 * SLOT)


def test_no_forecast_at_all_is_none():
    assert uk(Told(slot(PRESENT - SLOT))).read(NOW).forecast is None


# What it refuses


@pytest.mark.parametrize("key", ["forecast", "actual"])
@pytest.mark.parametrize("value", ["100", -1, 1e9, True, {}, [], float("nan")])
def test_no_number_is_no_intensity(key, value):
    with pytest.raises(AnswerError, match=rf"intensity\.{key} is "):
        uk(Told(slot(PRESENT, **{key: value}) if key == "actual" else slot(PRESENT, value))).read(NOW)


def test_an_intensity_without_a_forecast_is_another_shape():
    with pytest.raises(AnswerError, match="has no 'forecast'"):
        uk(Told({**slot(PRESENT), "intensity": {"index": "low"}})).read(NOW)


def test_a_slot_that_is_not_half_an_hour_is_refused():
    with pytest.raises(AnswerError, match="which is not half an hour"):
        uk(Told(slot(PRESENT, minutes=60))).read(NOW)


def test_two_regions_are_one_too_many():
    region = {"regionid": 13, "data": []}
    with pytest.raises(AnswerError, match="has 2 regions"):
        uk(Told(body={"data": [region, region]}), "GB-13").read(NOW)


def test_another_region_is_refused():
    with pytest.raises(AnswerError, match="'13' was asked for"):
        uk(Told(slot(PRESENT), region=12), "GB-13").read(NOW)


# What it asks


def test_no_range_is_longer_than_14_days_and_none_is_asked_at_its_edge():
    http = Told(slot(PRESENT))
    uk(http).read(NOW)
    ranges = [path.split("/")[-2:] for path in http.paths if not path.endswith("fw48h")]
    assert len(http.paths) <= 4
    for start, end in ranges:
        length = datetime.fromisoformat(end) - datetime.fromisoformat(start)
        assert timedelta(0) < length <= 14 * DAY
        assert start.endswith((":01Z", ":31Z"))


def test_what_is_settled_is_asked_once_a_day_and_the_rest_at_most_4_times_an_hour(tmp_path):
    setting, double = virtual(tmp_path, CarbonIntensityApi())
    setting.source.read(setting.clock.now())
    first = double.count()
    assert first <= 4
    for _ in range(25 * 2):
        setting.clock.sleep(1800)
        setting.source.read(setting.clock.now())
    old = [seen for seen in double.seen if "/2026-04-" in seen.request.path.split("/")[-1]]
    assert len(old) <= 4
    assert double.most_in(HOUR) <= 4 + first


@pytest.mark.parametrize("days", [1, 14, 40])
def test_the_past_is_cut_into_ranges_and_joined_without_a_gap(tmp_path, days):
    now = NOW
    trace = Trace(NOW.replace(hour=0, minute=0, second=0) - 60 * DAY, SLOT, np.arange(62 * 48) % 500)
    setting, double = virtual(tmp_path, CarbonIntensityApi(), now, trace)
    start = NOW.replace(minute=0, second=0) - 45 * DAY
    history = setting.source.past(start, start + days * DAY).history
    assert (history.start, len(history)) == (start, days * 48)
    assert history.values.tolist() == [trace.at(start + i * SLOT) for i in range(days * 48)]
    assert all(seen.status == 200 for seen in double.seen)


# Zones


@pytest.mark.parametrize(
    ("zone", "path"),
    [
        ("GB", "/intensity/"),
        ("GB-18", "/intensity/"),
        ("GB-13", "/regionid/13"),
        ("13", "/regionid/13"),
        ("London", "/regionid/13"),
        ("GB-south-wales", "/regionid/7"),
        ("GB-North_Wales.and Merseyside", "/regionid/6"),
    ],
)
def test_a_zone_is_a_number_or_a_name(zone, path):
    http = Told(slot(PRESENT), region=int(path.split("/")[-1]) if "regionid" in path else None)
    uk(http, zone).read(NOW)
    assert all(path in asked and ("regional" in asked) == ("regionid" in path) for asked in http.paths)


@pytest.mark.parametrize(("zone", "meant"), [("GB-Lodon", "GB-13, London"), ("GB-19", "GB-1 to GB-17"), ("DE", "GB")])
def test_an_unknown_zone_is_an_error_that_says_which_was_meant(zone, meant):
    with pytest.raises(SpecError, match=meant):
        uk(Told(), zone)


def test_every_region_is_listed_and_can_be_read():
    zones = uk(Told()).zones()
    assert len(zones) == len(REGIONS) + 1 == 18
    for zone in zones:
        uk(Told(), zone.id)
    assert uk(Told(), "").zones() == zones


def test_the_double_tells_the_slot_before_an_edge_as_the_api_does():
    grid = Grid("GB", truth(), lambda: NOW)
    body = CarbonIntensityApi().respond(Request("GET", "/intensity/2026-05-04T12:00Z/2026-05-04T13:00Z", {}, {}), grid)
    assert b'{"data": [{"from": "2026-05-04T11:30Z"' in body.body
    assert b'"from": "2026-05-04T13:00Z"' in body.body


def test_the_documentation_counts_the_zones_right():
    nations = [title for title in REGIONS.values() if title in ("England", "Scotland", "Wales")]
    told = (
        f"one of {len(REGIONS) - len(nations)} regions or one of {len(nations)} nations (`GB-1` to `GB-{len(REGIONS)}`)"
    )
    assert told in (PROJECT / "docs" / "grid.md").read_text()
