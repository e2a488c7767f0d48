"""JSON Lines files: one object per line, with the keys of gridsweep or of the Carbon Aware SDK."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from math import inf, nan

from gridsweep.grid.trace_files.cells import amount_of, moment_of, quality_of
from gridsweep.grid.trace_files.content import text_of
from gridsweep.grid.trace_files.problems import QUALITY, TIME, UNIT, VALUE, Problems, column_faults, shown
from gridsweep.grid.trace_files.slots import Slots

SDK_TIME, SDK_VALUE, SDK_SPAN, SDK_PLACE = "time", "rating", "duration", "location"
EXAMPLE = f'{{"{TIME}": "2024-05-01T13:00:00Z", "{VALUE}": 231.5}}'
SPAN = re.compile(r"(?:(\d{1,3})\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.0+)?", re.ASCII)
"""A .NET TimeSpan: `[days.]hours:minutes:seconds`."""


class _FaultError(ValueError):
    """A fault of a line that the json module would accept."""


def read(content: bytes, slots: Slots, problems: Problems) -> None:
    """Read the objects of a JSON Lines file into `slots`, one object per slot; blank lines are skipped.

    Objects `{"location", "time", "rating", "duration"}` of the Carbon Aware SDK are accepted too: the rating is in
    gCO2eq/kWh, a nonzero duration is the length of the slot, and a file may have only one location. Raises
    `TraceError` if the file as a whole cannot be read.
    """
    text = text_of(content, problems)
    start = text.lstrip()
    if not start:
        raise problems.error(f"is empty; write one object a line, such as {EXAMPLE}", 1)
    if start.startswith("["):
        row = text.count("\n", 0, len(text) - len(start)) + 1
        raise problems.error("is a JSON array; write one object a line, as `jq -c '.[]'` does", row)
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)
    names: tuple[str, str] | None = None
    places: set[str] = set()
    # Not splitlines: a JSON string may contain other line separators.
    for row, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        found = _decoded(decoder, line, row, problems)
        if found is None:
            slots.add(row, None, nan)
            continue
        if names is None:
            names = _names(found, row, problems)
        if missing := [name for name in names if name not in found]:
            problems.add(row, f"has no key `{'` and no key `'.join(missing)}`; complete the line or take it out")
            slots.add(row, None, nan)
            continue
        if names[0] == SDK_TIME:
            _take_duration(found.get(SDK_SPAN), row, slots, problems)
            _check_place(found.get(SDK_PLACE), places, row, problems)
        value = _amount(found[names[1]], found.get(UNIT), row, problems)
        quality = quality_of(found.get(QUALITY), row, problems)
        slots.add(row, moment_of(found[names[0]], row, problems), value, quality)


def _names(found: dict[str, object], row: int, problems: Problems) -> tuple[str, str]:
    """Return the keys of the time and the value, according to the first object."""
    ours, theirs = (TIME, VALUE), (SDK_TIME, SDK_VALUE)
    names = theirs if found.keys() & set(theirs) and not found.keys() & set(ours) else ours
    faults = column_faults(list(found), names)
    for fault in faults:
        problems.add(row, fault.replace("column", "key"))
    if faults:
        problems.check()
    return names


def _decoded(decoder: json.JSONDecoder, line: str, row: int, problems: Problems) -> dict[str, object] | None:
    """Return the object of a line, or None for a malformed line."""
    try:
        found = decoder.decode(line)
    except _FaultError as fault:
        problems.add(row, str(fault))
    except json.JSONDecodeError as error:
        problems.add(row, f"is no JSON ({error.msg} at character {error.pos + 1}); write one object a line")
    except (ValueError, RecursionError):  # a number with thousands of digits, or brackets nested thousands deep
        problems.add(row, f"is no JSON of a trace (`{shown(line)}`); write one object a line, such as {EXAMPLE}")
    else:
        if isinstance(found, dict):
            return found
        problems.add(row, f"`{shown(line)}` is no object; write {EXAMPLE}")
    return None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _FaultError(f"the key `{shown(twice)}` is there {names.count(twice)} times; keep one")
    return found


def _refuse(constant: str) -> float:
    raise _FaultError(f"`{constant}` is no JSON; write null where the value is unknown")


def _amount(number: object, unit: object, row: int, problems: Problems) -> float:
    if number is None:
        return nan
    if isinstance(number, bool) or not isinstance(number, int | float):
        problems.add(row, f"`{shown(number)}` is no number; write gCO2eq/kWh as 231.5, or null where unknown")
        return nan
    try:
        return amount_of(float(number), unit, row, problems)
    except OverflowError:  # an integer with hundreds of digits
        return amount_of(inf, unit, row, problems)


def _take_duration(span: object, row: int, slots: Slots, problems: Problems) -> None:
    if span is None:
        return
    parts = SPAN.fullmatch(span) if isinstance(span, str) else None
    if parts is None:
        problems.add(row, f"`{shown(span)}` is no duration; write an hour as 01:00:00")
        return
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    # Sources that do not know the length of a slot write zero.
    if length := timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds):
        slots.lasts(row, length)


def _check_place(place: object, places: set[str], row: int, problems: Problems) -> None:
    name = shown(place)
    if place is not None and name not in places:
        places.add(name)
        if len(places) > 1:
            problems.add(row, f"`{name}` is another location than before; keep one location a file")
