"""Conversion of values to JSON and back, with validation on reading: dataclasses, times, spans, tuples."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeVar, cast  # adapters of any type are cached by type

from pydantic import TypeAdapter

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
