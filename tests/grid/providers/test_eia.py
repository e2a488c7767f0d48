from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import AnswerError, CredentialError, SpecError
from gridsweep.grid.providers.eia import DIRECT, EIA, LIFECYCLE, RESPONDENTS, Amount, intensities
from gridsweep.grid.source import Fetched, Means
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.testing.grid.dialect import Grid
from gridsweep.testing.grid.eia import EiaApi, mixed
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.provider_contract import NOW, MovableClock, ProviderContract

DAY = timedelta(days=1)
FIVE = datetime(2026, 5, 4, 5, tzinfo=UTC)


class TestContract(ProviderContract):
    dialect = EiaApi
    source = EIA
    tolerance = 0.01


class Told:
    """A client that gives these rows in pages, and remembers what it was asked."""

    def __init__(self, *rows, total=None):
        self.rows, self.total = rows, len(rows) if total is None else total
        self.asked = []

    def get(self, path, params=(), *, headers=None, auth=None, keep=timedelta(0)):
        params = dict(params)
        self.asked.append((path, params, headers))
        start, length = int(params["offset"]), int(params["length"])
        return Fetched({"response": {"total": self.total, "data": list(self.rows[start : start + length])}}, NOW)


def row(period, fuel, value, **more):
    return {
        "period": period,
        "respondent": "CISO",
        "fueltype": fuel,
        "type-name": fuel,
        "value": value,
        "value-units": "megawatthours",
        **more,
    }


def eia(http, zone="CISO", **settings):
    settings = CarbonSource(provider="eia", zone=zone, file=None, **settings)
    return EIA(settings, Means(lambda url: http, lambda reference: f"secret of {reference}"))


def read(*rows, **settings):
    return eia(Told(*rows), **settings).read(NOW)


# What it tells


def test_a_period_names_the_end_of_its_hour():
    before = row("2026-05-04T05", "NG", "10"), row("2026-05-04T05", "COL", "0")
    after = row("2026-05-04T06", "NG", "0"), row("2026-05-04T06", "COL", "10")
    history = read(*before, *after).history
    assert history.start == FIVE - HOUR
    assert history.values.tolist() == [490, 820]


@pytest.mark.parametrize(("basis", "told"), [(None, (490 + 24) / 2), ("lifecycle", 257), ("direct", 439.98 / 2)])
def test_the_mix_is_weighed_by_the_factors_of_the_basis(basis, told):
    reading = read(row("2026-05-04T05", "NG", "10"), row("2026-05-04T05", "WAT", "10"), basis=basis)
    assert reading.history.values[0] == pytest.approx(told, abs=0.01)
    assert reading.provenance.meaning == ("average", basis or "lifecycle")


def test_it_says_that_imports_are_not_counted_and_claims_no_measurement():
    found = read(row("2026-05-04T05", "NG", "10"))
    assert "imports are not counted" in found.provenance.title and "IPCC" in found.provenance.title
    assert (found.provenance.quality, found.forecast) == ("estimated", None)


def test_the_latest_hours_are_not_there_and_are_not_invented(tmp_path):
    setting, _ = virtual(tmp_path, EiaApi(lag=9 * HOUR))
    assert setting.source.read(NOW).history.end == datetime(2026, 5, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("fuel", ["NG", "COL", "OIL"])
def test_every_factor_set_knows_every_fuel(fuel):
    assert set(DIRECT) == set(LIFECYCLE)
    assert LIFECYCLE["COL"] > LIFECYCLE["OIL"] > LIFECYCLE["NG"] > LIFECYCLE["SUN"] > LIFECYCLE["WAT"] > 0
    assert DIRECT["COL"] > 1000 > DIRECT[fuel] > 400 or fuel != "NG"


def test_an_unknown_fuel_counts_as_other():
    assert read(row("2026-05-04T05", "NEW", "10")).history.values.tolist() == [700]


@pytest.mark.parametrize("storage", ["BAT", "PS", "OES", "UES"])
@pytest.mark.parametrize("value", ["-500", "500", None])
def test_storage_does_not_count_whether_it_charges_gives_or_is_unknown(storage, value):
    both = row("2026-05-04T05", "NG", "10"), row("2026-05-04T05", storage, value)
    assert read(*both).history.values.tolist() == [490]


def test_negative_generation_counts_as_none():
    assert read(row("2026-05-04T05", "NG", "10"), row("2026-05-04T05", "SUN", "-3")).history.values.tolist() == [490]


def test_a_row_told_twice_counts_once_and_a_null_does_not_replace_it():
    rows = [row("2026-05-04T05", "NG", "10"), row("2026-05-04T05", "WAT", "10")]
    twice = row("2026-05-04T05", "NG", "10", **{"type-name": "Natural gas"})
    for more in (twice, {**twice, "value": None}):
        assert read(*rows, more).history.values.tolist() == read(*rows).history.values.tolist()


# What is unknown


def mixes(*hours):
    """Amounts from FIVE on, an hour for each mapping of fuels to MWh."""
    return [Amount(FIVE + i * HOUR, fuel, mwh) for i, mix in enumerate(hours) for fuel, mwh in mix.items()]


def levels(*hours):
    return [point.value for point in intensities(mixes(*hours), LIFECYCLE)]


@pytest.mark.parametrize("lacking", [{"WAT": 10.0}, {"WAT": 10.0, "NG": None}])
def test_an_hour_that_lacks_a_fuel_its_neighbours_have_is_unknown(lacking):
    whole = {"NG": 10.0, "WAT": 10.0}
    assert levels(whole, lacking, whole) == [257, None, 257]
    assert levels(lacking, whole) == [None, 257]
    assert levels(whole, lacking) == [257, None]


def test_an_hour_may_lack_what_is_hardly_there():
    assert levels({"NG": 10.0, "SUN": 0.05}, {"NG": 10.0}, {"NG": 10.0, "SUN": 0.0}) == [
        pytest.approx(487.8, abs=0.1),
        490,
        490,
    ]


def test_a_fuel_that_was_given_up_long_ago_is_not_missed():
    hours = [{"NG": 10.0, "COL": 10.0}, *[{"NG": 10.0}] * 30]
    assert levels(*hours) == [655, *[None] * 24, *[490] * 6]


def test_a_fuel_that_is_null_leaves_its_hour_unknown_whatever_it_has_elsewhere():
    assert levels({"NG": 10.0, "COL": None}, {"NG": 10.0, "COL": 0.0}) == [None, 490]


def test_an_hour_without_generation_is_unknown():
    assert levels({"NG": 0.0, "WAT": 0.0}, {"NG": None}, {"NG": -1.0}) == [None, None, None]


def test_an_hour_that_nobody_tells_is_a_gap():
    history = read(row("2026-05-04T05", "NG", "1"), row("2026-05-04T07", "NG", "1")).history
    assert np.isnan(history.values).tolist() == [False, True, False]


@given(st.lists(st.dictionaries(st.sampled_from([*LIFECYCLE, "BAT"]), st.floats(-10, 1e5) | st.none()), max_size=8))
def test_an_hour_is_unknown_or_lies_between_the_factors_of_its_fuels(hours):
    for point, mix in zip(intensities(mixes(*hours), LIFECYCLE), [mix for mix in hours if mix], strict=True):
        factors = [LIFECYCLE[fuel] for fuel, mwh in mix.items() if fuel != "BAT" and mwh is not None and mwh > 0]
        assert point.value is None or min(factors) - 1e-6 <= point.value <= max(factors) + 1e-6


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=6), st.randoms())
def test_the_order_of_rows_changes_nothing(amounts, random):
    rows = mixes(*({"NG": a, "WAT": 5.0, "COL": 1.0} for a in amounts))
    shuffled = random.sample(rows, len(rows))
    assert [p.start for p in intensities(shuffled, LIFECYCLE)] == [p.start for p in intensities(rows, LIFECYCLE)]
    for one, other in zip(intensities(shuffled, LIFECYCLE), intensities(rows, LIFECYCLE), strict=True):
        assert one.value == pytest.approx(other.value)


# What it refuses


@pytest.mark.parametrize(
    "period", ["2026-05-04", "2026-05-04T05-07", "2026-05-04T5", "0001-01-01T00", "2026-05-04T24", 5, None]
)
def test_a_period_that_is_no_hour_in_utc_is_refused(period):
    with pytest.raises(AnswerError, match=r"period"):
        read(row(period, "NG", "1"))


def test_other_units_and_other_respondents_are_refused():
    with pytest.raises(AnswerError, match="is in 'gigawatthours'"):
        read(row("2026-05-04T05", "NG", "1", **{"value-units": "gigawatthours"}))
    with pytest.raises(AnswerError, match="'CISO' was asked for"):
        read(row("2026-05-04T05", "NG", "1", respondent="MISO"))


def test_hours_to_come_point_at_the_clock():
    with pytest.raises(AnswerError, match="clock"):
        read(row("2026-05-04T05", "NG", "1"), row("2026-05-05T05", "NG", "1"))


def test_nothing_known_says_so_and_what_to_do():
    with pytest.raises(AnswerError, match="take another zone"):
        read(row("2026-05-04T05", "NG", None))


def test_a_page_that_lacks_rows_is_refused():
    with pytest.raises(AnswerError, match="a page has 1 rows"):
        eia(Told(row("2026-05-04T05", "NG", "1"), total=3)).read(NOW)


# What it asks


def virtual(tmp_path, dialect=None, trace=None):
    clock = MovableClock()
    dialect = dialect or EiaApi()
    trace = trace or Trace(NOW.replace(hour=0, minute=0, second=0) - 70 * DAY, HOUR, 30 + np.arange(72 * 24) % 700)
    double = GridTransport(dialect, Grid(dialect.zone, trace, clock.now))
    return TestContract().virtual(tmp_path, double, clock), double


@pytest.mark.parametrize(("days", "pages"), [(1, 1), (28, 1), (60, 2)])
def test_pages_are_asked_up_to_the_total_and_joined(tmp_path, days, pages):
    setting, double = virtual(tmp_path)
    start = NOW.replace(hour=0, minute=0, second=0) - 62 * DAY
    history = setting.source.past(start, start + days * DAY).history
    assert double.count() == pages
    assert (history.start, history.end) == (start, start + days * DAY)
    truth = [double.grid.trace.at(start + i * HOUR) for i in range(days * 24)]
    assert np.allclose(history.values, truth, atol=0.01)


def test_eight_fuels_for_28_days_are_two_pages():
    fuels = ["COL", "NG", "NUC", "OIL", "OTH", "SUN", "WAT", "WND"]
    hours = [NOW.replace(minute=0, second=0) - i * HOUR for i in range(28 * 24)]
    http = Told(*(row(f"{hour:%Y-%m-%dT%H}", fuel, "1") for hour in hours for fuel in fuels))
    history = eia(http).read(NOW).history
    assert [asked[1]["offset"] for asked in http.asked] == ["0", "5000"]
    assert len(history) == 28 * 24 and np.isfinite(history.values).all()


def test_the_total_may_be_a_string():
    assert eia(Told(row("2026-05-04T05", "NG", "1"), total="1")).read(NOW).history.values.tolist() == [490]


def test_the_key_is_sent_as_a_header_and_never_in_the_query():
    http = Told(row("2026-05-04T05", "NG", "1"))
    eia(http).read(NOW)
    eia(http, token="env:OTHER").read(NOW)
    assert [asked[2] for asked in http.asked] == [
        {"X-Api-Key": "secret of env:EIA_API_KEY"},
        {"X-Api-Key": "secret of env:OTHER"},
    ]
    assert all("secret" not in urlencode(asked[1]) for asked in http.asked)


def test_a_wrong_key_is_said_to_be_one(tmp_path):
    setting, double = virtual(tmp_path)
    double.dialect.secrets = {"token": "another"}
    with pytest.raises(CredentialError, match="invalid api_key"):
        setting.source.read(NOW)


def test_an_hour_has_two_requests_at_most(tmp_path):
    setting, double = virtual(tmp_path)
    for _ in range(20):
        setting.source.read(setting.clock.now())
        setting.clock.sleep(600)
    assert double.most_in(HOUR) <= 2


# Zones


def test_zones_are_the_respondents():
    zones = {zone.id: zone.title for zone in eia(Told()).zones()}
    assert zones == RESPONDENTS and len(zones) > 65
    assert "California" in zones["CISO"]


@pytest.mark.parametrize(("zone", "meant"), [("CSIO", "CISO"), ("US-CAL-CISO", "CISO"), ("Texas", "lists them")])
def test_an_unknown_zone_is_an_error_that_says_which_was_meant(zone, meant):
    with pytest.raises(SpecError, match=meant):
        eia(Told(), zone)


def test_without_a_zone_the_zones_are_listed():
    assert len(eia(Told(), "").zones()) == len(RESPONDENTS)


def test_an_unknown_basis_is_refused():
    with pytest.raises(SpecError, match="lifecycle and direct"):
        eia(Told(), basis="marginal")


@given(st.floats(24, 820))
def test_the_doubles_mix_has_the_intensity_it_should(level):
    mix = mixed(level)
    grams = {"WAT": 24.0, "NG": 490.0, "COL": 820.0}
    assert sum(grams[fuel] * mwh for fuel, mwh in mix.items()) / sum(mix.values()) == pytest.approx(level)
