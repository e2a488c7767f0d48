import re
from importlib.resources import files

import pytest

from gridsweep.grid import yearly_averages as zones


def g(zone):
    return zones.average(zone).g_per_kwh


def test_the_figures_are_plausible():
    assert g("FR") < 100 < g("DE") < g("PL")
    assert g("NO") < 50 and g("SE") < 50 and g("IS") < 50
    assert g("ZA") > 600 and g("IN") > 600
    assert 300 < g("US") < 450 and 150 < g("GB") < 300
    assert g("US-VT") < g("US-CA") < 250 < g("US-TX") < g("US-WV")


def test_every_zone_has_a_figure_a_year_and_a_source():
    listed = zones.listed()
    assert len(listed) == len({one.zone for one in listed}) > 230
    for one in listed:
        assert re.fullmatch(r"[A-Z]{2}(-[A-Z]{2})?", one.zone)
        assert 10 < one.g_per_kwh < 1500 and one.g_per_kwh == round(one.g_per_kwh)
        assert 2021 <= one.year <= 2025 and one.title and one.source


def test_countries_are_lifecycle_and_states_are_direct():
    for one in zones.listed():
        assert (one.basis, "Ember" in one.source) == (("direct", False) if "-" in one.zone else ("lifecycle", True))


def test_all_fifty_states_and_the_capital_are_there():
    assert sum(one.zone.startswith("US-") for one in zones.listed()) == 51


def test_a_zone_of_its_own_is_found_as_it_is():
    assert (zones.average("FR").zone, zones.average("FR").title) == ("FR", "France")
    assert zones.average("US-CA").title == "California"


@pytest.mark.parametrize("zone", ["DE-LU", "DK-DK1", "SE-SE3", "JP-TK", "GB-13"])
def test_a_part_of_a_country_has_its_figure_and_says_so(zone):
    found, country = zones.average(zone), zones.average(zone[:2])
    assert (found.zone, found.g_per_kwh) == (country.zone, country.g_per_kwh)
    assert found.title == f"{country.title} as a whole, as nothing is known of {zone} alone"


@pytest.mark.parametrize("zone", ["US-CAL-CISO", "CISO", "CAISO_NORTH"])
def test_the_grid_of_california_has_the_states_figure_and_says_so(zone):
    found = zones.average(zone)
    assert (found.zone, found.title) == ("US-CA", f"California, for {zone}")


def test_a_region_of_the_us_never_passes_for_the_us_in_silence():
    found = zones.average("US-NW-BPAT")
    assert found.zone == "US" and "United States as a whole" in found.title and "US-NW-BPAT" in found.title


@pytest.mark.parametrize("zone", ["", "-", "XX", "XX-YY", "MISO", "synthetic-solar-valley", "fr", "FRA"])
def test_nothing_is_known_of_any_other_zone(zone):
    assert zones.average(zone) is None


@pytest.mark.parametrize(("written", "meant"), [("france", "FR"), ("Frnce", "FR"), ("US_CA", "US-CA"), ("qqqq", None)])
def test_the_nearest_zone_is_like_what_was_written(written, meant):
    assert zones.nearest(written) == meant


def test_the_file_names_its_sources_and_their_licences():
    head = (files("gridsweep") / "data" / "zone_averages.csv").read_text(encoding="utf-8").split("zone,title")[0]
    assert "CC BY 4.0" in head and "Our World in Data" in head and "eGRID2023" in head and "public domain" in head
