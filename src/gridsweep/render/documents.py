"""Values as JSON documents: the format of `report.json` and of every command with `--json`.

`docs/json.md` is the contract. A document is a dataclass with a `schema_version`. Its keys are its fields, renamed as
in `NAMES`, with the unit last (`makespan_h_mean` becomes `makespan_mean_s`). Instants are ISO 8601 in UTC to the
second, spans are seconds, and an unknown number (NaN, infinity) is null. `schema` returns the JSON schema of a
document class.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from math import isfinite
from numbers import Integral, Real
from pathlib import PurePath
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints  # JSON, a schema, an annotation

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INSTANT = "%Y-%m-%dT%H:%M:%SZ"
VERSION = "schema_version"
HOUR_S = 3600
UNITS = {"h": "s", "g": "g", "kwh": "kwh"}
"""Units in field names, and the unit of the key; hours become seconds."""

NAMES: dict[str, dict[str, str]] = {
    "": {  # in every document
        "advice": "remedy",
        "averaged_loss": "averaged_validation_loss",
        "baseline": "baseline_id",
        "emissions_immediate_g": "immediate_emissions_g",
        "emissions_now_g": "immediate_emissions_g",
        "experiment": "id",
        "idle_g": "idle_emissions_g",
        "idle_kwh": "idle_energy_kwh",
        "immediate_g": "immediate_emissions_g",
        "immediate_intensity": "immediate_intensity_g_per_kwh",
        "initial_loss": "initial_validation_loss",
        "intensity": "intensity_g_per_kwh",
        "loss": "validation_loss",
        "loss_noise": "validation_loss_noise",
        "mean_intensity": "mean_intensity_g_per_kwh",
        "reference": "reference_id",
        "reloaded_g": "reloaded_emissions_g",
        "reloaded_kwh": "reloaded_energy_kwh",
        "repeats": "repeats_id",
        "rows": "experiments",
        "saved_kwh": "saved_energy_kwh",
        "unknown_kwh": "unknown_energy_kwh",
        "wasted_g": "wasted_emissions_g",
        "wasted_kwh": "wasted_energy_kwh",
    },
    "Best": {"experiments": "experiment_count"},
    "Certificate": {
        "actual_g": "actual_emissions_g",
        "optimum_g": "optimum_emissions_g",
        "pausing_g": "pausing_optimum_emissions_g",
    },
    "Collection": {"attempts": "attempt_count", "events": "event_count"},
    "Gardened": {
        "bind_intensity": "bind_intensity_g_per_kwh",
        "initial_intensity": "initial_intensity_g_per_kwh",
        "threshold": "threshold_g_per_kwh",
    },
    "Outlook": {
        "expected": "expected_g_per_kwh",
        "high": "expected_high_g_per_kwh",
        "low": "expected_low_g_per_kwh",
        "now_intensity": "immediate_intensity_g_per_kwh",
        "past": "past_g_per_kwh",
    },
    "Parting": {"high": "difference_high", "low": "difference_low"},
    "Plan": {
        "finish_immediate": "immediate_finish",
        "intensity_high": "intensity_high_g_per_kwh",
        "intensity_low": "intensity_low_g_per_kwh",
        "past_from": "past_reduction_from",
        "past_p10": "past_reduction_p10",
        "past_p50": "past_reduction_p50",
        "past_p90": "past_reduction_p90",
        "saving_from": "reduction_from",
        "saving_p10": "reduction_p10",
        "saving_p50": "reduction_p50",
        "saving_p90": "reduction_p90",
    },
    "PlanRow": {"earliest": "earliest_start"},
    "PolicyResult": {"kwh_mean": "energy_mean_kwh", "name": "policy"},
    "Report": {
        "energy_sources": "energy_by_source_kwh",
        "qualities": "energy_by_quality_kwh",
        "thresholds": "thresholds_g_per_kwh",
    },
    "RequestRow": {"added": "added_ids", "experiments": "experiment_ids"},
    "Row": {
        "first": "first_place",
        "high": "difference_high",
        "last": "last_place",
        "low": "difference_low",
    },
    "RungRow": {
        "diverged": "diverged_ids",
        "kept": "kept_ids",
        "stopped": "stopped_ids",
        "tied": "tied_ids",
    },
    "Told": {"added": "added_ids", "experiments": "experiment_ids"},
    "Scope": {"experiments": "experiment_count"},
    "Settlement": {"largest": "largest_revision_g_per_kwh"},
    "Window": {"saving": "reduction"},
    "Repaired": {"kept": "kept_rows", "lost": "lost_rows"},
    "Verified": {"rows": "whole_rows", "stored": "stored_rows", "chained": "chained_rows", "adapters": "adapter_count"},
}
"""Key of a field in a document by class, where it differs from the field's name; "" holds for every class."""


def text(value: object) -> str:
    """Return a document as JSON text in ASCII."""
    return json.dumps(document(value), indent=1, allow_nan=False)


def line(value: object) -> str:
    """Return a document as one line of JSON, for streams of documents."""
    return json.dumps(document(value), allow_nan=False)


def document(value: object) -> Any:
    """Return a value in JSON types; a dataclass becomes an object, `schema_version` first.

    Raise `TypeError` for a type without a JSON form.
    """
    return _plain(value, 1)


def key(kind: type, field: str) -> str:
    """Return the key of a class's field in a document."""
    for owner in kind.__mro__:
        if field in NAMES.get(owner.__name__, {}):
            return NAMES[owner.__name__][field]
    if field in NAMES[""]:
        return NAMES[""][field]
    words = field.split("_")
    unit = next((word for word in words if word in UNITS), None)
    if unit is None:
        return field
    words.remove(unit)
    return "_".join([*words, UNITS[unit]])


def instant(moment: datetime) -> str:
    """Return `2024-06-10T16:00:00Z`. Raise `ValueError` if the moment has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC).strftime(INSTANT)


def _plain(value: object, factor: int) -> Any:
    """Return a value in JSON types; `factor` converts the numbers of a field to the unit of its key."""
    match value:
        case None | bool() | str():
            return value
        case datetime():
            return instant(value)
        case timedelta():
            return value.total_seconds()
        case PurePath():
            return str(value)
        case Integral():
            return int(value) * factor
        case Real():
            number = float(value)
            return (round(number * factor, 6) if factor != 1 else number) if isfinite(number) else None
        case Mapping():
            return {str(name): _plain(part, factor) for name, part in value.items()}
        case Sequence():
            return [_plain(part, factor) for part in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} has no form in a JSON document")
    return {
        key(type(value), field.name): _plain(getattr(value, field.name), _factor(field.name))
        for field in _fields(type(value))
    }


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return sorted(dataclasses.fields(kind), key=lambda field: field.name != VERSION)


def _factor(field: str) -> int:
    return HOUR_S if "h" in field.split("_") else 1


def schema(kind: type, name: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the document class `kind`, printed by the command `name`."""
    shapes: dict[str, Any] = {}
    made = _object(kind, shapes)
    version = made["properties"][VERSION]["const"]
    urn = f"urn:gridsweep:{name.replace(' --', '-')}:{version}"
    head = {"$schema": DIALECT, "$id": urn, "title": f"gridsweep {name} --json"}
    return head | made | ({"$defs": shapes} if shapes else {})


def _object(kind: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    hints = _hints(kind)
    properties = {}
    for field in _fields(kind):
        told = _schema(hints[field.name], shapes)
        properties[key(kind, field.name)] = {"const": field.default} if field.name == VERSION else told
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _schema(hint: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type; any float may be null, which means unknown."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        told = [_schema(part, shapes) for part in inner if part is not type(None)]
        if len(told) == 1 and "enum" not in told[0] and isinstance(kind := told[0].get("type"), str):
            return told[0] | {"type": [kind, "null"]}
        if len(told) == 1 and isinstance(told[0].get("type"), list):
            return told[0]
        return {"anyOf": [*told, {"type": "null"}]} if type(None) in inner else {"anyOf": told}
    if origin is Literal:
        return {"type": "string", "enum": list(inner)}
    if origin is tuple and inner[-1] is not Ellipsis:
        items = [_schema(part, shapes) for part in inner]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(inner[1], shapes)}
    if origin is not None and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(inner[0], shapes)}
    if dataclasses.is_dataclass(hint):
        name = getattr(hint, "__name__", "")
        if name not in shapes:
            shapes[name] = {}  # a placeholder first, because a class may contain itself
            shapes[name] = _object(hint, shapes)
        return {"$ref": f"#/$defs/{name}"}
    if hint is datetime:
        return {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
    return {"type": _TYPES[hint]} if hint in _TYPES else {"type": "string"}


_TYPES: dict[Any, Any] = {
    bool: "boolean",
    int: "integer",
    float: ["number", "null"],
    timedelta: "number",
}
