from contextlib import suppress
from datetime import timedelta
from itertools import count, pairwise
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.carbon.traces import DAY, HOUR, Trace, floor_to
from gridsweep.errors import AnswerError, CredentialError, LimitError, SignalError
from gridsweep.grid.providers.watttime import WattTime
from gridsweep.grid.source import Fetched, Means
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.testing.grid.behaviours import ANSWER, Behaviour, Expected, behaviour
from gridsweep.testing.grid.dialect import Grid, as_json
from gridsweep.testing.grid.spoiling import as_if, body_of, status, whole
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.grid.watttime import WattTimeApi
from gridsweep.testing.provider_contract import NOW, MovableClock, ProviderContract, truth

STEP = timedelta(minutes=5)
SECONDS = timedelta(seconds=1)
PRESENT = floor_to(NOW, STEP)
CLOSE = 0.01


def meta(**more):
    """A change of what is said about the points."""

    def change(exchange):
        body = body_of(exchange.good)
        if body is None or "meta" not in body:
            return None
        body["meta"] |= more
        return as_json(body)

    return change


class TestWattTime(ProviderContract):
    dialect = staticmethod(lambda: WattTimeApi(reach=timedelta(days=3)))
    source = WattTime
    tolerance = CLOSE
    otherwise = MappingProxyType(
        {"clock-ahead": Expected((AnswerError, CredentialError), "part")}  # for its clock, the token is too old
    )
    own = (
        Behaviour("percentiles", ANSWER, meta(units="percentile")),
        Behaviour("unknown-units", ANSWER, meta(units="kg_co2_per_kwh")),
        Behaviour("no-units", ANSWER, meta(units=None)),
        Behaviour("average-signal", ANSWER, meta(signal_type="co2_aoer")),
        Behaviour("no-period", ANSWER, meta(data_point_period_seconds=None)),
        Behaviour("odd-period", ANSWER, meta(data_point_period_seconds=7)),
        Behaviour("zero-period", ANSWER, meta(data_point_period_seconds=0)),
        Behaviour("odd-warnings", Expected((AnswerError,), "truth"), meta(warnings=[None, 3, {"a": 1}])),
        Behaviour("warnings-number", Expected((AnswerError,), "truth"), meta(warnings=3)),
        Behaviour("warnings-no-list", Expected((AnswerError,), "truth"), meta(warnings="a word")),
        Behaviour("login-without-token", ANSWER, whole(b'{"ok": true}')),
        Behaviour("login-with-null", ANSWER, whole(b'{"token": null}')),
        Behaviour("login-with-newline", ANSWER, whole(b'{"token": "a\\r\\nx: y"}')),
    )


class Bench:
    """A provider on a double whose hours pass when they are told to."""

    def __init__(self, folder, api=None, values=None, zone=None):
        self.clock = MovableClock()
        self.api = api or WattTimeApi(reach=timedelta(days=3))
        self.double = GridTransport(
            self.api, Grid(self.api.zone, truth() if values is None else values, self.clock.now)
        )
        contract = TestWattTime()
        contract.settings = {"zone": zone} if zone else {}
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


# What it tells


def test_pounds_a_megawatthour_become_grams_a_kilowatthour(bench):
    values = Trace(floor_to(NOW, DAY) - 5 * DAY, HOUR, [394.625] * 24 * 12)
    here = bench(values=values)
    reading = here.read()
    assert b'"value": 870.0' in here.api.respond(here.asked("forecast")[0].request, here.double.grid).body
    assert reading.history.at(NOW) == pytest.approx(394.625, abs=0.001)
    assert (reading.provenance.kind, reading.provenance.basis) == ("marginal", "direct")


def test_the_present_is_the_first_point_of_the_forecast(bench):
    reading = bench(WattTimeApi(reach=timedelta(0))).read()
    assert (reading.history.start, len(reading.history)) == (PRESENT, 1)
    assert reading.provenance.quality == "estimated" and reading.why == ""
    assert reading.history.at(NOW) == pytest.approx(truth().at(NOW), abs=CLOSE)


def test_between_two_forecasts_the_present_is_a_forecast(bench):
    here = bench(WattTimeApi(reach=timedelta(0)))
    here.read()
    reading = here.read(2 * STEP)
    assert [stretch.provenance.quality for stretch in reading.stretches] == ["estimated", "forecast"]
    assert reading.history.at(here.clock.now()) > 0 and len(here.asked("forecast")) == 1


def test_history_ends_with_the_hour_and_the_present_follows(bench):
    reading = bench().read()
    hour = floor_to(NOW, HOUR)
    assert reading.history.end == PRESENT + STEP
    assert np.isfinite(reading.history.between(NOW - DAY, hour).values).all()
    assert np.isnan(reading.history.between(hour, PRESENT).values).all()
    assert [stretch.start for stretch in reading.stretches] == [reading.history.start, PRESENT]


def test_the_trailing_weeks_are_asked_for_once_a_day(bench):
    here = bench(WattTimeApi())
    reading = here.read()
    assert np.isfinite(reading.history.between(NOW - 27 * DAY, floor_to(NOW, HOUR)).values).all()
    for _ in range(6):
        here.read(HOUR)
    spans = [seen.request.params["start"] for seen in here.asked("historical")]
    assert len(spans) == 8 and spans.count(min(spans)) == 1


def test_the_forecast_begins_at_the_present_and_tells_three_days(bench):
    forecast = bench().read().forecast
    assert forecast.start == PRESENT and forecast.paths.shape == (1, 72 * 12 + 1) and forecast.step == STEP
    assert forecast.mean.at(NOW + DAY) == pytest.approx(truth().at(NOW + DAY), abs=CLOSE)


def test_a_forecast_of_three_days_that_is_refused_becomes_one_of_a_day(bench):
    here = bench(WattTimeApi(longest=24, reach=timedelta(days=3)))
    assert here.read().forecast.paths.shape == (1, 24 * 12 + 1)
    assert len(here.asked()) <= 5
    here.read(HOUR)
    assert [seen.request.params["horizon_hours"] for seen in here.asked("forecast")] == ["72", "24", "24"]


def test_no_history_is_no_error(bench):
    reading = bench(WattTimeApi(reach=timedelta(0))).source.past(NOW - DAY, NOW - DAY + HOUR)
    assert len(reading.history) == 13 and np.isnan(reading.history.values).all() and "no history" in reading.why


def test_a_broken_history_is_no_broken_reading(bench):
    here = bench()
    here.double.misbehave(behaviour("html-200"), paths="historical")
    reading = here.read()
    assert reading.history.at(NOW) > 0 and "history" in reading.why
    here.read(STEP)
    assert len(here.asked("historical")) == 1
    here.double.behave()
    assert len(here.read(HOUR).history) > 288


def test_imputed_values_are_marked(bench):
    reading = bench(WattTimeApi(reach=timedelta(days=3), imputed=True)).read()
    assert [stretch.provenance.quality for stretch in reading.stretches] == ["imputed", "estimated"]


def test_warnings_are_passed_on(bench):
    assert bench(WattTimeApi(warnings=("the model is old",))).read().why == "WattTime warns: the model is old"


def test_a_forecast_that_began_long_ago_does_not_tell_the_present(bench):
    here = bench()
    here.double.misbehave(behaviour("three-days-old"), paths="forecast")
    reading = here.read()
    assert np.isnan(reading.history.at(NOW)) and "after the present" in reading.why


def test_a_forecast_that_begins_with_the_next_slot_is_taken_as_it_is(bench):
    here = bench()
    here.double.misbehave(Behaviour("next", ANSWER, as_if(STEP)), paths="forecast")
    reading = here.read()
    assert np.isnan(reading.history.at(NOW)) and reading.forecast.start == PRESENT + STEP


def test_settlement_asks_for_31_days_at_once(bench):
    here = bench(WattTimeApi())
    reading = here.source.past(NOW - 32 * DAY, NOW - 2 * HOUR)
    assert len(here.asked("historical")) == 2
    assert reading.history.start >= floor_to(NOW - 32 * DAY, STEP)
    assert np.isfinite(reading.history.between(NOW - 31 * DAY, NOW - 2 * HOUR).values).all()


# Logging in


def logins(here):
    return [seen.at for seen in here.asked("/login")]


def test_a_token_is_renewed_before_it_expires(bench):
    here = bench()
    for _ in range(48):
        here.read(STEP)
    assert [seen for seen in here.double.seen if seen.status != 200] == []
    assert 8 <= len(logins(here)) <= 10


@pytest.mark.parametrize("refusal", ["html", "json"])
def test_a_token_that_is_revoked_is_replaced_at_once(bench, refusal):
    here = bench(WattTimeApi(reach=timedelta(days=3), refusal=refusal))
    here.read()
    here.api.issued.clear()
    assert here.read(20 * timedelta(minutes=1)).history.at(here.clock.now()) > 0
    assert [seen.status for seen in here.double.seen if seen.status != 200] == [403 if refusal == "html" else 401]
    assert len(logins(here)) == 2


def test_where_nothing_may_be_asked_the_last_forecast_tells_the_present(bench):
    here = bench()
    here.read()
    here.double.misbehave(behaviour("status-429-day"))
    reading = here.read(HOUR)
    assert reading.provenance.quality == "forecast" and reading.history.at(here.clock.now()) > 0
    with pytest.raises(LimitError):
        here.read(3 * HOUR)


@pytest.mark.parametrize("name", ["status-401", "status-403", "html-403"])
def test_in_a_storm_of_refusals_there_is_one_login_in_thirty_seconds_at_most(bench, name):
    here = bench()
    here.read()
    here.double.misbehave(behaviour(name), paths="/v3/")
    here.clock.sleep(900)
    for _ in range(240):
        with suppress(SignalError):
            here.read(15 * SECONDS)
    assert len(logins(here)) >= 3 and all(b - a >= 30 * SECONDS for a, b in pairwise(logins(here)))
    here.double.behave()
    assert here.read(HOUR).history.at(here.clock.now()) > 0


def test_after_a_storm_it_reads_on_within_a_minute(bench):
    here = bench()
    here.read()
    here.double.misbehave(behaviour("status-401"), paths="/v3/")
    with pytest.raises(CredentialError):
        here.read(HOUR)
    here.api.issued.clear()
    here.double.behave()
    reading = None
    for _ in range(6):
        with suppress(SignalError):
            reading = here.read(10 * SECONDS)
    assert reading and len(here.asked("forecast")) == 3


def test_a_login_that_is_limited_is_not_tried_again_before_it_may(bench):
    here = bench()
    here.double.misbehave(Behaviour("busy", ANSWER, status(429, retry_after="600")), paths="/login")
    for _ in range(20):
        with pytest.raises(LimitError):
            here.read(29 * SECONDS)
    assert len(logins(here)) == 1
    here.double.behave()
    assert here.read(DAY / 24).history.at(here.clock.now()) > 0


def test_a_wrong_password_is_said_and_not_tried_again_at_once(bench):
    here = bench()
    here.double.misbehave(behaviour("status-401"), paths="/login")
    with pytest.raises(CredentialError, match=r"carbon\.username"):
        here.read()
    with pytest.raises(SignalError):
        here.read(10 * SECONDS)
    assert len(here.asked()) == 1


def test_a_region_outside_the_plan_says_which_one_is_free_and_is_not_asked_for_again(bench):
    here = bench(zone="DE")
    for _ in range(10):
        with pytest.raises(CredentialError, match=r"DE is not in this account's plan.*CAISO_NORTH"):
            here.read(STEP)
    assert len(here.asked()) == 3


def test_secrets_go_only_where_they_belong(bench):
    here = bench()
    here.read()
    for seen in here.double.seen:
        word = "Basic " if seen.request.path == "/login" else "Bearer "
        assert seen.request.headers["authorization"].startswith(word)


def test_zones_are_those_of_the_account(bench):
    zones = bench(WattTimeApi(plan=frozenset({"CAISO_NORTH", "ERCOT"}))).source.zones()
    assert [(zone.id, zone.note) for zone in zones] == [
        ("CAISO_NORTH", "v3/forecast, v3/historical"),
        ("ERCOT", "v3/forecast, v3/historical"),
    ]


class Says:
    """An API that logs everybody in, and then says one thing whatever it is asked."""

    def __init__(self, body):
        self.body = body

    def get(self, path, params=(), *, headers=None, auth=None, keep=timedelta(0)):
        return Fetched({"token": "t"} if path == "/login" else self.body, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("2026-05-04T14:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
slots = st.integers(-40, 40).map(lambda i: (PRESENT + i * STEP).isoformat())
points = st.fixed_dictionaries(
    {}, optional={"point_time": slots | json_values, "value": st.integers(0, 900) | json_values}
)
metas = st.fixed_dictionaries(
    {"region": st.just("CAISO_NORTH"), "units": st.just("lbs_co2_per_mwh")},
    optional={
        "data_point_period_seconds": st.sampled_from([300, 900, 3600]) | json_values,
        "warnings": json_values,
        "generated_at": slots | json_values,
        "signal_type": st.just("co2_moer") | json_values,
    },
)
bodies = st.fixed_dictionaries({"meta": metas | json_values, "data": st.lists(points, max_size=4) | json_values})


@settings(max_examples=80)
@given(body=bodies | json_values)
def test_whatever_json_comes_it_is_a_reading_or_a_typed_error(body):
    means = Means(lambda url: Says(body), lambda reference: "secret")
    source = WattTime(CarbonSource("watttime", "CAISO_NORTH", None), means)
    for ask in (lambda: source.read(NOW), lambda: source.past(NOW - DAY, NOW), source.zones):
        try:
            answer = ask()
        except SignalError:
            continue
        history = getattr(answer, "history", None)
        assert history is None or not (history.values < 0).any()
