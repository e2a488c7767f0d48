"""Conversion of values to JSON and back, with validation on reading: dataclasses, times, spans, tuples."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeVar, cast  # adapters of any type are cached by type

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def reader(kind: Hashable) -> Callable[[str | bytes], Any]:
    """Return `loads` for one type, for many values: to look up a large union takes as long as to read a value."""
    return _adapter(kind).validate_json


def dumps(value: object, *, indent: int | None = None) -> str:
    """Return JSON text. Times are ISO 8601, spans ISO 8601 durations; an unknown number (NaN) is null."""
    return _adapter(cast(Hashable, type(value))).dump_json(value, indent=indent).decode()


def loads(kind: type[T], text: str | bytes) -> T:
    """Return the value of type `kind`. Raise `pydantic.ValidationError` (a `ValueError`) if the text does not match."""
    value: T = _adapter(cast(Hashable, kind)).validate_json(text)
    return value


def strict(kind: type[T], text: str | bytes) -> T:
    """Return a value whose text a user, or another program, may have written: it holds no key that `kind` lacks.

    Raise `ValueError` that names the key at fault.
    """
    try:
        value = loads(kind, text)
    except ValidationError as error:
        raise ValueError(first(error)) from None
    if extra := _surplus(json.loads(text, parse_constant=_no_number), json.loads(dumps(value))):
        raise ValueError(f"{extra}: there is no such key")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def first(error: ValidationError) -> str:
    """Return the first fault that a check of values found, and where."""
    fault = error.errors(include_url=False, include_input=False)[0]
    where, what = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _surplus(given: object, kept: object, path: str = "") -> str:
    """Return the path of a key that was given and not kept; "" if there is none."""
    if isinstance(given, dict) and isinstance(kept, dict):
        below = ((f"{path}.{key}".lstrip("."), value, kept.get(key, _NOTHING)) for key, value in given.items())
    elif isinstance(given, list) and isinstance(kept, list):
        below = ((f"{path}[{n}]", *both) for n, both in enumerate(zip(given, kept, strict=False)))
    else:
        return ""
    for where, value, there in below:
        if extra := where if there is _NOTHING else _surplus(value, there, where):
            return extra
    return ""


_NOTHING = object()
