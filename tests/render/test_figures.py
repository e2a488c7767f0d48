"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.render.figures import (
    energy,
    energy_scale,
    grams,
    hours,
    intensity,
    loss,
    mass_scale,
    percent,
    plain,
    signed,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 g"),
        (0.0123, "12.3 mg"),
        (0.000002, "0.00200 mg"),
        (1.234, "1.23 g"),
        (0.9996, "1.00 g"),
        (999.9, "1.00 kg"),
        (1234.0, "1.23 kg"),
        (-27.0, "-27.0 g"),
        (3.2e6, "3.20 t"),
        (5.4e9, "5,400 t"),
        (None, "unknown"),
    ],
)
def test_a_mass_gets_the_unit_that_fits(value: float | None, text: str) -> None:
    assert grams(value) == text


@pytest.mark.parametrize(
    ("kwh", "text"),
    [(1e-5, "10.0 mWh"), (0.0225, "22.5 Wh"), (13.4, "13.4 kWh"), (0.0, "0 kWh"), (2500, "2.50 MWh")],
)
def test_an_energy_gets_the_unit_that_fits(kwh: float, text: str) -> None:
    assert energy(kwh) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 h"), (0.005, "18 s"), (0.5, "30 min"), (0.9999, "1 h"), (1.5, "1.5 h"), (24.0, "24 h"),
        (51.26, "51.3 h"), (1234.0, "1,234 h"), (-1.5, "-1.5 h"), (None, "unknown"),
    ],
)  # fmt: skip
def test_a_span_is_told_in_seconds_minutes_or_hours(value: float | None, text: str) -> None:
    assert hours(value) == text


def test_shares_losses_and_differences() -> None:
    assert percent(0.3596) == "36.0 %"
    assert percent(-0.8076) == "-80.8 %"
    assert percent(-1e-9) == "0.0 %"
    assert loss(2.80984) == "2.8098"
    assert loss(None) == signed(None) == ""
    assert (signed(0.0123), signed(-0.05), signed(-1e-9), signed(0.0)) == (
        "+0.0123",
        "-0.0500",
        "0.0000",
        "0.0000",
    )
    assert (intensity(102.4), intensity(None)) == ("102", "unknown")


def test_a_column_has_one_unit() -> None:
    scale = mass_scale([0.001, None, 2.5])
    assert [scale.unit, scale.text(0.001), scale.text(2.5), scale.text(None)] == [
        "g",
        "0.00100",
        "2.50",
        "unknown",
    ]
    assert energy_scale([]).unit == "kWh"


@given(st.floats(1e-12, 1e15))
def test_three_digits_are_kept(value: float) -> None:
    text = plain(value)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)
    assert text.isascii()


@given(st.floats(-1e12, 1e12))
def test_no_value_is_shown_with_another_sign(value: float) -> None:
    for text in (grams(value), energy(value), hours(value)):
        assert text.startswith("-") <= (value < 0)
