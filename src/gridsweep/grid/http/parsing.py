"""Strict parsing of provider answers: nothing is guessed, and invalid parts raise `AnswerError`.

The argument `what` names the provider and the field for messages, as in `"electricity_maps: history[3].datetime"`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import TypeVar

import numpy as np

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Quality, Stretch
from gridsweep.carbon.traces import POUNDS_PER_MWH, Trace, floor_to, utc
from gridsweep.errors import AnswerError

T = TypeVar("T")

MOST_GRAMS = 5000.0
"""Upper limit in g/kWh, above any power plant; a larger figure is in another unit."""
LONGEST = timedelta(days=400)
OLDEST_PRESENT = timedelta(days=3)

GRAMS: dict[str, float] = {
    "gCO2eq/kWh": 1.0,
    "g/kWh": 1.0,
    "lbs_co2_per_mwh": POUNDS_PER_MWH,
}
"""Units by their names at providers, with the factor to gCO2eq/kWh."""

_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2})?)?"
)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Point:
    """One slot of an answer: its start, its value in gCO2eq/kWh (None if unknown to the provider), and its quality."""

    start: datetime
    value: float | None
    quality: Quality = "measured"


def column(points: Iterable[Point], step: timedelta, what: str) -> Trace:
    """Return the points, given in any order, on a regular grid of `step`; missing or null values are NaN.

    Of two values for one slot the last one counts, and a null never replaces a value. Raises `AnswerError` if there is
    no point, if a point lies off the grid (and so overlaps another), or if the points span more than 400 days.
    """
    return _column(_by_slot(points, step, what), step, what)


def history_of(
    points: Iterable[Point], step: timedelta, provenance: Provenance, what: str = "history"
) -> tuple[Trace, tuple[Stretch, ...]]:
    """Return the points as `column` does, and the stretches of their provenance.

    Each stretch has `provenance` with the quality of its points. A gap belongs to the stretch before it.
    """
    what = f"{provenance.provider}: {what}"
    slots = _by_slot(points, step, what)
    trace = _column(slots, step, what)
    stretches: list[Stretch] = []
    for start in sorted(slots):
        point = slots[start]
        if point.value is None or (stretches and stretches[-1].provenance.quality == point.quality):
            continue
        stretches.append(Stretch(start if stretches else trace.start, replace(provenance, quality=point.quality)))
    return trace, tuple(stretches) or (Stretch(trace.start, provenance),)


def forecast_of(
    points: Iterable[Point], step: timedelta, issued_at: datetime, provenance: Provenance, what: str = "forecast"
) -> Forecast:
    """Return the points as a forecast with one path and the title of `provenance`."""
    trace = column(points, step, f"{provenance.provider}: {what}")
    return Forecast(utc(issued_at), trace.start, step, trace.values[np.newaxis, :], provenance.title)


def expect(value: object, kind: type[T], what: str) -> T:
    """Return the value if it is of type `kind`, else raise `AnswerError`; a bool does not count as a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise AnswerError(f"{what} is {_shown(value)} where {_KINDS.get(kind, kind.__name__)} was expected")
    return value


def field(mapping: object, key: str, kind: type[T], what: str) -> T:
    """Return the value under `key` if it is of type `kind`, else raise `AnswerError`; `what` names the object."""
    found = expect(mapping, dict, what)
    if key not in found:
        raise AnswerError(f"{what} has no {key!r}; it has {_keys(found)}")
    return expect(found[key], kind, f"{what}.{key}")


def objects(value: object, what: str) -> list[dict[str, object]]:
    """Return the value if it is a list of only objects, else raise `AnswerError`."""
    return [expect(item, dict, f"{what}[{i}]") for i, item in enumerate(expect(value, list, what))]


def number(value: object, what: str, *, text: bool = False, least: float = 0.0, most: float = MOST_GRAMS) -> float:
    """Return a finite number from `least` to `most`; a numeric string is accepted only with `text`.

    The default limits suit an intensity in any unit; pass others for other quantities, such as megawatt-hours. Raises
    `AnswerError`.
    """
    given = value
    if text and isinstance(value, str):
        if not _DECIMAL.fullmatch(value.strip()):
            raise AnswerError(f"{what} is {_shown(given)}, which is no number")
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnswerError(f"{what} is {_shown(given)}, which is no number")
    if not (least <= value <= most):  # false for NaN too
        raise AnswerError(f"{what} is {_shown(given)}, which is not within {least:g} to {most:g}")
    return float(value)


def nullable_number(
    value: object, what: str, *, text: bool = False, least: float = 0.0, most: float = MOST_GRAMS
) -> float | None:
    """Return the same as `number`, or None for a null."""
    return None if value is None else number(value, what, text=text, least=least, most=most)


def grams(value: float, unit: object, what: str) -> float:
    """Convert a value to gCO2eq/kWh from a unit by its provider name. Raises `AnswerError` for an unknown unit."""
    factor = GRAMS.get(unit) if isinstance(unit, str) else None
    if factor is None:
        raise AnswerError(f"{what} is in {_shown(unit)}, which is no unit known here ({', '.join(GRAMS)})")
    return value * factor


def moment(value: object, what: str) -> datetime:
    """Parse an ISO 8601 time with a time zone; return it as aware UTC.

    Seconds may be missing and may have up to nine decimals, of which six are kept. A leap second counts as the start of
    the following minute. Raises `AnswerError`, also for a time without a time zone, whose instant is ambiguous.
    """
    try:
        return _instant(expect(value, str, what))
    except ValueError as error:
        raise AnswerError(f"{what} is {_shown(value)}, {error}") from None


@lru_cache(maxsize=2**15)  # successive answers repeat most of their times
def _instant(text: str) -> datetime:
    """Return the instant, or raise `ValueError` with what is wrong with the text."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError("which is no time of the form 2026-10-15T00:30:00Z")
    *date, second, part, zulu, sign, hours, minutes = found.groups()
    if zulu is None and sign is None:
        raise ValueError("a time without a zone: it could be any of 24 hours")
    with suppress(ValueError, OverflowError):
        ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        zone = timezone(-ahead if sign == "-" else ahead)
        year, month, day, hour, minute = map(int, date)
        leap = second == "60"
        whole = datetime(year, month, day, hour, minute, 0 if leap else int(second or 0), tzinfo=zone)
        instant = whole.astimezone(UTC)
        if leap and (instant.hour, instant.minute) == (23, 59):
            return instant + timedelta(minutes=1)
        if not leap:
            return instant + timedelta(microseconds=int((part or "0").ljust(6, "0")[:6]))
    raise ValueError("a time that does not exist")


def same_zone(asked: str, echoed: object, what: str) -> None:
    """Raise `AnswerError` unless the answer is about the requested zone."""
    if isinstance(echoed, bool) or not isinstance(echoed, str | int):
        raise AnswerError(f"{what} does not say which zone it is of ({_shown(echoed)}); {asked} was asked for")
    if str(echoed) != asked:
        raise AnswerError(f"{what} is of the zone {_shown(echoed)}, and {asked!r} was asked for; look at carbon.zone")


def fresh(latest: datetime, step: timedelta, now: datetime, what: str) -> bool:
    """Return whether the latest point may stand for the present; an older one is only history.

    Raises `AnswerError` if it begins more than one slot in the future.
    """
    if latest > now + step:
        raise AnswerError(
            f"{what} is of {latest:%Y-%m-%d %H:%M} UTC, and here it is {utc(now):%Y-%m-%d %H:%M} UTC; "
            "look at this machine's clock"
        )
    return latest >= now - OLDEST_PRESENT


def _by_slot(points: Iterable[Point], step: timedelta, what: str) -> dict[datetime, Point]:
    slots: dict[datetime, Point] = {}
    for point in points:
        start = utc(point.start)
        if floor_to(start, step) != start:
            raise AnswerError(f"{what} has a point at {start:%Y-%m-%d %H:%M:%S} UTC, which is no multiple of {step}")
        if point.value is not None or start not in slots:
            slots[start] = point
    if not slots:
        raise AnswerError(f"{what} is empty: there is not one point in it")
    return slots


def _column(slots: dict[datetime, Point], step: timedelta, what: str) -> Trace:
    first, last = min(slots), max(slots)
    if last - first > LONGEST - step:
        raise AnswerError(f"{what} spans {(last - first).days} days, and one answer may have {LONGEST.days}")
    values = np.full((last - first) // step + 1, np.nan)
    for start, point in slots.items():
        if point.value is not None:
            if not math.isfinite(point.value):
                raise AnswerError(f"{what} has the value {point.value} at {start:%Y-%m-%d %H:%M} UTC")
            values[(start - first) // step] = point.value
    return Trace(first, step, values)


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "an integer"}


def _shown(value: object) -> str:
    """Return a short description of a value in JSON terms."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object with {_keys(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "a huge integer"
    text = ascii(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys(mapping: dict[str, object]) -> str:
    return ascii(sorted(map(str, mapping))[:8]) if mapping else "nothing in it"
