"""Readable numbers: three significant digits, a fitting unit, plain ASCII for any terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, isfinite, log10

from gridsweep.carbon import spans

UNKNOWN = "unknown"

_MASSES = (("t", 1e-6), ("kg", 1e-3), ("g", 1.0), ("mg", 1e3))
_ENERGIES = (("MWh", 1e-3), ("kWh", 1.0), ("Wh", 1e3), ("mWh", 1e6))


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit to show values in: `value * factor` is in `unit`."""

    unit: str
    factor: float

    def text(self, value: float | None) -> str:
        """Return the number without its unit, for a column whose heading names the unit."""
        return UNKNOWN if value is None else plain(value * self.factor)


def mass_scale(grams: Iterable[float | None]) -> Scale:
    """Return a unit that suits the largest of these masses (g), so that a column has one unit."""
    return _fitting(_MASSES, grams, Scale("g", 1.0))


def energy_scale(kwh: Iterable[float | None]) -> Scale:
    """Return a unit that suits the largest of these energies (kWh)."""
    return _fitting(_ENERGIES, kwh, Scale("kWh", 1.0))


def _fitting(units: tuple[tuple[str, float], ...], values: Iterable[float | None], nothing: Scale) -> Scale:
    largest = max((abs(v) for v in values if v is not None and isfinite(v)), default=0.0)
    if not largest:
        return nothing
    # Rounding comes before the comparison, so that 999.6 mg becomes 1.00 g and not 1000 mg.
    unit, factor = next((u for u in units if _rounded(largest * u[1]) >= 1), units[-1])
    return Scale(unit, factor)


def grams(value: float | None) -> str:
    """Return a mass given in g as text: `12.3 mg`, `1.23 g`, `1.20 kg`."""
    scale = mass_scale([value])
    return UNKNOWN if value is None else f"{scale.text(value)} {scale.unit}"


def energy(kwh: float | None) -> str:
    """Return an energy given in kWh as text: `10.0 mWh`, `1.23 Wh`, `13.4 kWh`."""
    scale = energy_scale([kwh])
    return UNKNOWN if kwh is None else f"{scale.text(kwh)} {scale.unit}"


def hours(value: float | None) -> str:
    """Return a span given in h as text: `45 s`, `30 min`, `1.5 h`, `51.3 h`."""
    return UNKNOWN if value is None else spans.hours(value)


def percent(share: float | None) -> str:
    """Return a share of one in percent, never clipped: `36.0 %`."""
    if share is None:
        return UNKNOWN
    text = f"{share * 100:.1f}"
    return f"{'0.0' if text == '-0.0' else text} %"


def loss(value: float | None) -> str:
    """Return a loss with four decimals."""
    return "" if value is None else f"{value:.4f}"


def signed(value: float | None, digits: int = 4) -> str:
    """Return a difference with its sign: `+0.0123`, `-0.0405`, `0.0000`."""
    if value is None:
        return ""
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text


def intensity(value: float | None) -> str:
    """Return a carbon intensity in gCO2eq/kWh as a whole number without its unit."""
    return UNKNOWN if value is None else f"{value:.0f}"


def plain(value: float) -> str:
    """Return a number with three significant digits and trailing zeros, without an exponent from 1e-6 upwards."""
    if not value:
        return "0"
    value = _rounded(value)
    if abs(value) < 1e-6:
        return f"{value:.2e}"
    decimals = max(0, 2 - floor(log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _rounded(value: float) -> float:
    return float(f"{value:.2e}") if abs(value) < 1000 else float(round(value))
