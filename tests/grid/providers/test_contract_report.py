"""The contract of providers can fail, and says what it tried."""

from datetime import UTC, datetime, timedelta

import pytest

from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import SignalError
from gridsweep.testing.grid.behaviours import BEHAVIOURS, behaviour
from gridsweep.testing.grid.electricity_maps import ElectricityMapsApi
from gridsweep.testing.provider_contract import NOW, ProviderContract, tally

ASK = "test_whatever_the_api_does_there_is_a_reading_or_a_typed_error"


class Sloppy:
    """Believes whatever the latest value is said to be; `flaw` is what else is wrong with it."""

    def __init__(self, settings, means, flaw=""):
        self.http, self.settings, self.flaw = means.http(settings.base_url), settings, flaw
        self.token = means.secret(settings.token)

    def read(self, now):
        try:
            params = {"zone": self.settings.zone}
            body = self.http.get("/carbon-intensity/latest", params, headers={"auth-token": self.token}).body
            if self.flaw == "pounds":
                body["carbonIntensity"] *= 0.45359237
            start = datetime.fromisoformat(body["datetime"])
            value = 0 if self.flaw == "invents" else body["carbonIntensity"]
            start += HOUR if self.flaw == "future" else timedelta(0)
            stamp = None if self.flaw == "undated" else now
            zone = "" if self.flaw == "nowhere" else self.settings.zone
            provenance = Provenance("sloppy", "measured", "electricity_maps", zone, fetched_at=stamp)
            return Reading(Trace(start, HOUR, [value]), None, provenance)
        except SignalError as error:
            if self.flaw == "tells":
                raise SignalError(f"the key {self.token} did not do") from error
            raise

    def past(self, start, end):
        return self.read(end)

    def zones(self):
        return []


def contract(flaw: str = "") -> ProviderContract:
    class Sloppily(ProviderContract):
        dialect = ElectricityMapsApi
        source = staticmethod(lambda settings, means: Sloppy(settings, means, flaw))
        root = "/v3"

    return Sloppily()


def outcome(tmp_path, flaw, name):
    return getattr(contract(flaw), ASK)(behaviour(name), tmp_path, lambda key, value: None)


def test_a_provider_that_is_careful_enough_passes(tmp_path):
    outcome(tmp_path, "", "good")
    outcome(tmp_path, "", "status-500")


@pytest.mark.parametrize("flaw", ["pounds", "future", "invents", "undated", "nowhere"])
def test_one_that_tells_what_is_not_so_fails(tmp_path, flaw):
    with pytest.raises(AssertionError):
        outcome(tmp_path, flaw, "good")


@pytest.mark.parametrize("name", ["negative", "absurd", "wrong-zone"])
def test_one_that_believes_everything_fails(tmp_path, name):
    with pytest.raises(AssertionError):
        outcome(tmp_path, "", name)


def test_one_that_lets_other_errors_through_fails(tmp_path):
    with pytest.raises(TypeError):
        outcome(tmp_path, "", "top-null")


def test_one_that_says_its_secret_fails(tmp_path):
    with pytest.raises(AssertionError, match="canary"):
        outcome(tmp_path, "tells", "status-401")


def test_one_that_takes_a_time_without_a_zone_fails(tmp_path):
    with pytest.raises(AssertionError, match="naive"):
        contract().test_a_time_without_a_zone_is_refused(tmp_path)


def test_one_that_asks_at_every_read_fails(tmp_path):
    with pytest.raises((AssertionError, SignalError)):
        contract().test_a_day_of_reads_every_five_minutes_stays_within_the_budget(tmp_path)


def test_one_that_does_not_list_its_zone_fails(tmp_path):
    with pytest.raises(AssertionError):
        contract().test_its_zones_include_the_one_that_is_read(tmp_path)


def test_there_are_many_behaviours_each_with_a_name_and_an_expectation():
    names = [one.name for one in BEHAVIOURS]
    assert len(names) >= 40 and len(set(names)) == len(names)
    assert [one.name for one in BEHAVIOURS if not (one.expected.errors or one.expected.tells)] == []


def test_the_report_counts_each_behaviour_once_and_none_that_had_nothing_to_spoil():
    tried = [
        ("behaviour", ("a", "good", False)),
        ("behaviour", ("a", "huge", True)),
        ("behaviour", ("a", "huge", True)),
    ]
    assert tally([*tried, ("behaviour", ("b", "wrong-zone", False)), ("other", "c")]) == [
        "a: 2 behaviours of its API tried"
    ]
    assert NOW.tzinfo is UTC
