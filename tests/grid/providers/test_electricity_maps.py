import json
from dataclasses import replace
from datetime import timedelta
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon.traces import DAY, HOUR, floor_to
from gridsweep.errors import CredentialError, LimitError, SignalError, SpecError, UnreachableError
from gridsweep.grid.providers.electricity_maps import ElectricityMaps
from gridsweep.grid.source import Fetched, Means
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.testing.grid.behaviours import ANSWER, TRUTH, Behaviour, behaviour
from gridsweep.testing.grid.dialect import Grid
from gridsweep.testing.grid.electricity_maps import FREE, LICENCE, ElectricityMapsApi
from gridsweep.testing.grid.spoiling import body_of, each, edited
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.provider_contract import NOW, MovableClock, ProviderContract, truth

MINUTES = timedelta(minutes=5)
PRESENT = floor_to(NOW, HOUR)


def told(**more):
    """A change of the body around the points."""

    def change(exchange):
        body = body_of(exchange.good)
        return None if body is None else replace(exchange.good, body=json.dumps(body | more).encode())

    return change


def _direct(exchange, points, body):
    for point in points:
        if "emissionFactorType" in point:
            point["emissionFactorType"] = "direct"


class TestElectricityMaps(ProviderContract):
    dialect = ElectricityMapsApi
    source = ElectricityMaps
    root = "/v3"
    own = (
        Behaviour("sandbox", TRUTH, told(_disclaimer="** SANDBOX MODE **: for tests only")),
        Behaviour("licence", TRUTH, told(_disclaimer=LICENCE)),
        Behaviour("other-factors", ANSWER, edited(_direct)),
        Behaviour("other-granularity", ANSWER, told(temporalGranularity="daily")),
        Behaviour("no-zone", ANSWER, told(zone=None)),
        Behaviour("new-method", TRUTH, edited(lambda x, points, body: points[0].update(estimationMethod="NEW_WAY"))),
    )


class Bench:
    """A provider on a double whose hours pass when they are told to."""

    def __init__(self, folder, api=None, values=None, **chosen):
        self.clock = MovableClock()
        api = api or ElectricityMapsApi()
        grid = truth() if values is None else values
        self.double = GridTransport(api, Grid(api.zone, grid, self.clock.now))
        contract = TestElectricityMaps()
        contract.settings = chosen
        self.source = contract.virtual(folder, self.double, self.clock).source

    def read(self, later=timedelta(0)):
        self.clock.sleep(later.total_seconds())
        return self.source.read(self.clock.now())

    def asked(self, path=""):
        return [seen for seen in self.double.seen if path in seen.request.path]


@pytest.fixture
def bench(tmp_path):
    numbers = count()
    return lambda api=None, values=None, **chosen: Bench(tmp_path / str(next(numbers)), api, values, **chosen)


# What it asks


def test_the_first_read_asks_four_things_at_most(bench):
    here = bench()
    here.read()
    assert sorted(seen.request.path.rpartition("/")[2] for seen in here.asked()) == [
        "forecast",
        "history",
        "past-range",
    ]
    lagging = bench(ElectricityMapsApi(lag=HOUR))
    lagging.read()
    assert len(lagging.asked()) <= 4


def test_every_request_names_what_it_wants_and_forbids_the_look_up_of_the_caller(bench):
    here = bench(basis="direct")
    here.read()
    assert here.source.read(here.clock.now()).provenance.basis == "direct"
    for seen in here.asked():
        wanted = {"zone": "DE", "temporalGranularity": "hourly", "disableCallerLookup": "true"}
        assert seen.request.params.items() >= (wanted | {"emissionFactorType": "direct"}).items()


@pytest.mark.parametrize(
    ("lag", "every"), [(timedelta(0), MINUTES), (2 * HOUR, MINUTES), (2 * HOUR, timedelta(minutes=1))]
)
def test_an_hour_of_the_steady_state_has_eight_requests_at_most(bench, lag, every):
    here = bench(ElectricityMapsApi(lag=lag))
    for _ in range(135 * timedelta(minutes=1) // every):
        here.read(every)
    here.double.seen.clear()
    for _ in range(2 * HOUR // every):
        here.read(every)
    assert 2 <= here.double.most_in(HOUR) <= 8


def test_the_trailing_days_come_in_over_the_first_two_hours(bench):
    here = bench()
    for _ in range(24):
        reading = here.read(MINUTES)
    assert reading.history.start == floor_to(here.clock.now(), HOUR) - 28 * DAY
    assert np.isfinite(reading.history.values).all() and reading.history.end == floor_to(here.clock.now(), HOUR) + HOUR
    assert len(here.asked("past-range")) <= 4


def test_another_process_finds_what_the_last_one_kept(tmp_path):
    Bench(tmp_path).read()
    again = Bench(tmp_path)
    again.read(MINUTES)
    assert [seen.request.path for seen in again.asked()] == ["/v3/carbon-intensity/past-range"]


def test_what_the_plan_refuses_is_not_asked_for_again(bench):
    here = bench(ElectricityMapsApi(plan=FREE))
    for _ in range(24):
        reading = here.read(MINUTES)
        assert reading.forecast is None and reading.history.at(here.clock.now()) > 0
    assert len(here.asked("past-range")) == 1
    assert [seen.request.params["horizonHours"] for seen in here.asked("forecast")] == ["72", "24"]


def test_a_spent_budget_leaves_the_present_unknown_and_says_so(bench):
    here = bench(ElectricityMapsApi(lag=HOUR))
    here.read()
    here.double.misbehave(behaviour("status-429-day"), paths="latest")
    reading = here.read(timedelta(minutes=30))
    assert np.isnan(reading.history.at(here.clock.now())) and len(reading.history) >= 23 and "latest" in reading.why


def test_where_history_may_not_be_asked_for_what_was_read_last_still_tells(bench):
    here = bench()
    here.read()
    here.double.misbehave(behaviour("status-429-day"), paths="history")
    reading = here.read(timedelta(minutes=90))
    assert np.isfinite(reading.history.between(NOW - DAY, NOW).values).all() and "history" in reading.why
    with pytest.raises(LimitError):
        here.read(6 * HOUR)


# What it tells


def test_the_forecast_begins_at_the_present_and_tells_three_days(bench):
    forecast = bench().read().forecast
    assert forecast.start == PRESENT and forecast.paths.shape == (1, 73)
    assert forecast.paths[0] == pytest.approx(truth().between(PRESENT, PRESENT + 73 * HOUR).values)
    assert forecast.issued_at == NOW.replace(second=30)


def test_a_plan_of_one_day_ahead_gives_one_day(bench):
    here = bench(ElectricityMapsApi(horizons=(24,)))
    assert here.read().forecast is None
    assert here.read(MINUTES).forecast.paths.shape == (1, 25)


def test_a_broken_forecast_is_no_broken_reading(bench):
    here = bench()
    here.double.misbehave(behaviour("status-400"), paths="past-range")
    assert "trailing" in here.read().why
    here = bench()
    here.double.misbehave(behaviour("html-200"), paths="forecast")
    reading = here.read(2 * HOUR)
    assert reading.forecast is None and "forecast" in reading.why and reading.history.at(here.clock.now()) > 0
    here.double.behave()
    assert here.read(HOUR).forecast is not None


def test_a_sandbox_is_synthetic_everywhere_and_a_licence_is_none(bench):
    reading = bench(ElectricityMapsApi(sandbox=True)).read()
    assert {stretch.provenance.quality for stretch in reading.stretches} == {"synthetic"}
    assert "sandbox" in reading.provenance.title and "sandbox" in reading.forecast.source


def test_a_licence_is_no_sandbox(bench):
    reading = bench(ElectricityMapsApi(disclaimer=LICENCE)).read()
    assert {stretch.provenance.quality for stretch in reading.stretches} == {"measured", "estimated"}


def test_estimates_are_told_from_measurements(bench):
    reading = bench().read()
    stretches = [(stretch.provenance.quality, stretch.start) for stretch in reading.stretches]
    assert stretches == [("measured", reading.history.start), ("estimated", PRESENT - 2 * HOUR)]


def test_a_null_is_unknown(bench):
    values = truth()
    values.values[values.index(PRESENT - 5 * HOUR)] = np.nan
    reading = bench(values=values).read()
    assert np.isnan(reading.history.at(PRESENT - 5 * HOUR)) and reading.history.at(PRESENT - 4 * HOUR) > 0


def test_a_latest_value_of_an_earlier_hour_leaves_the_present_unknown(bench):
    reading = bench(ElectricityMapsApi(lag=2 * HOUR)).read()
    assert reading.history.end == PRESENT - HOUR
    assert np.isnan(reading.history.at(NOW)) and reading.forecast.mean.at(PRESENT + HOUR) > 0


def test_when_history_lags_the_latest_value_is_the_present(bench):
    here = bench()
    here.double.misbehave(Behaviour("late", TRUTH, each(lambda old, point: None, every=1)), paths="history")
    reading = here.read()
    assert reading.history.at(NOW) == pytest.approx(truth().at(NOW))


def test_settlement_asks_for_ten_days_at_once(bench):
    here = bench()
    reading = here.source.past(NOW - 25 * DAY, NOW - 4 * DAY)
    assert reading.history.start == floor_to(NOW - 25 * DAY, HOUR) and len(reading.history) == 21 * 24 + 1
    assert np.isfinite(reading.history.values).all() and len(here.asked()) == 3


def test_settlement_says_when_the_plan_has_no_past(bench):
    with pytest.raises(CredentialError, match="past-range"):
        bench(ElectricityMapsApi(plan=FREE)).source.past(NOW - DAY, NOW)


def test_after_an_outage_it_reads_on(bench):
    here = bench()
    here.read()
    with here.double.outage(), pytest.raises(UnreachableError):
        here.read(2 * HOUR)
    reading = here.read(HOUR)
    assert np.isfinite(reading.history.between(NOW - DAY, here.clock.now()).values).all()


# Zones and settings


def test_zones_are_listed_without_a_token_and_with_one_say_what_it_may_read(bench):
    here = bench(ElectricityMapsApi(plan=FREE))
    assert {zone.id: zone.note for zone in here.source.zones()} == {
        "DE": "carbon-intensity/history, carbon-intensity/latest",
        "FR": "",
    }
    without = bench(token="env:GRIDSWEEP_NO_SUCH_TOKEN")
    assert next((zone.id, zone.title, zone.note) for zone in without.source.zones()) == ("DE", "Germany", "")


def test_a_missing_token_is_named(bench):
    with pytest.raises(CredentialError, match="GRIDSWEEP_NO_SUCH_TOKEN"):
        bench(token="env:GRIDSWEEP_NO_SUCH_TOKEN").read()


def test_an_unknown_basis_is_refused(bench):
    with pytest.raises(SpecError, match=r"carbon\.basis"):
        bench(basis="marginal")


class Says:
    """An API that says one thing whatever it is asked."""

    def __init__(self, body):
        self.body = body

    def get(self, path, params=(), *, headers=None, auth=None, keep=timedelta(0)):
        return Fetched(self.body, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("2026-05-04T14:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
points = st.fixed_dictionaries(
    {},
    optional={
        "datetime": json_values | st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
        "carbonIntensity": json_values | st.integers(0, 900),
        "emissionFactorType": st.just("lifecycle") | json_values,
        "isEstimated": json_values,
        "estimationMethod": json_values,
    },
)
bodies = st.fixed_dictionaries(
    {"zone": st.just("DE")},
    optional={
        "history": st.lists(points, max_size=3) | json_values,
        "data": json_values,
        "forecast": json_values | st.lists(points, max_size=3),
        "_disclaimer": json_values,
        "updatedAt": json_values,
        "temporalGranularity": json_values,
        "datetime": json_values,
        "carbonIntensity": json_values,
    },
)


@settings(max_examples=80)
@given(body=bodies | json_values)
def test_whatever_json_comes_it_is_a_reading_or_a_typed_error(body):
    means = Means(lambda url: Says(body), lambda reference: "secret")
    source = ElectricityMaps(CarbonSource("electricity_maps", "DE", None), means)
    for ask in (lambda: source.read(NOW), lambda: source.past(NOW - DAY, NOW), source.zones):
        try:
            answer = ask()
        except SignalError:
            continue
        history = getattr(answer, "history", None)
        assert history is None or not (history.values < 0).any()
