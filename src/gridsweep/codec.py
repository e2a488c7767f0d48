"""Values to JSON and back, checked on the way in: dataclasses, times, spans, tuples."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dumps(value: object, kind: Any = None, *, indent: int | None = None) -> str:
    """JSON text. Times are ISO 8601, spans ISO 8601 durations, an unknown number (NaN) is null."""
    return _adapter(kind or type(value)).dump_json(value, indent=indent).decode()


def loads(kind: type[T], text: str | bytes) -> T:
    """The value of that kind. Raises `pydantic.ValidationError` (a `ValueError`) when the text is not one."""
    return _adapter(kind).validate_json(text)  # type: ignore[no-any-return]
