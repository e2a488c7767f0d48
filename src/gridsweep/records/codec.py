"""Values to JSON and back, checked on the way in: dataclasses, times, spans, tuples."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast  # an adapter of any type is kept under the type

from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def dumps(value: object, *, indent: int | None = None) -> str:
    """JSON text. Times are ISO 8601, spans ISO 8601 durations, an unknown number (NaN) is null."""
    return _adapter(cast(Hashable, type(value))).dump_json(value, indent=indent).decode()


def loads(kind: type[T], text: str | bytes) -> T:
    """The value of that kind. Raises `pydantic.ValidationError` (a `ValueError`) when the text is not one."""
    value: T = _adapter(cast(Hashable, kind)).validate_json(text)
    return value
