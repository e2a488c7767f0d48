"""Changes that spoil good answers; a change knows only where a dialect has its points and its zone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any  # JSON, as a provider's API answers

from gridsweep.testing.grid.dialect import Dialect, Grid, Request, Response, as_json

BIG = 50_000_000
"""Bytes of a body that a client must refuse."""
OTHER_ZONE = "XX-ELSEWHERE"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request with the good answer to it; `elsewhere` is the URL of another host, for redirects."""

    request: Request
    good: Response
    dialect: Dialect
    grid: Grid
    elsewhere: str = ""


Change = Callable[[Exchange], Response | None]
"""Returns a spoiled answer, or None if there is nothing to spoil."""
Edit = Callable[[Exchange, list[dict[str, Any]], Any], Any]
"""Changes the points of a parsed body, or returns another body."""


def body_of(response: Response) -> Any:
    """Return the parsed body of a good answer; None if it is not JSON."""
    try:
        return json.loads(response.body) if response.status == 200 else None
    except ValueError:
        return None


def edited(edit: Edit) -> Change:
    """Return a change of the points in a body, if it has any."""

    def change(exchange: Exchange) -> Response | None:
        body = body_of(exchange.good)
        points = exchange.dialect.points(body) if body is not None else None
        if not points:
            return None
        other = edit(exchange, points, body)
        return replace(exchange.good, body=json.dumps(body if other is None else other).encode())

    return change


def each(make: Callable[[Any, Mapping[str, Any]], Any], *, time: bool = False, every: int = 1) -> Change:
    """Return a change of the value (or, with `time`, the time) of every `every`-th point; `KeyError` removes it."""

    def edit(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> None:
        key = exchange.dialect.time_key if time else exchange.dialect.value_key
        for point in points[:: every or len(points)]:
            try:
                point[key] = make(point.get(key), point)
            except KeyError:
                point.pop(key, None)

    return edited(edit)


def constant(value: object) -> Callable[[Any, Mapping[str, Any]], Any]:
    return lambda old, point: value


def removed(old: Any, point: Mapping[str, Any]) -> Any:
    raise KeyError


def status(code: int, message: str = "told to fail", **headers: str) -> Change:
    """Return a change to another status, with a JSON error; underscores in header names stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def change(exchange: Exchange) -> Response:
        answer = as_json({"status": "error", "error": message, "message": message}, code)
        return replace(answer, headers={**answer.headers, **named})

    return change


def whole(body: bytes, code: int = 200, content_type: str = "application/json", **headers: str) -> Change:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: Response(code, body, {"content-type": content_type, **named})


def as_if(ahead: timedelta) -> Change:
    """Return a change to the good answer of an API whose clock is ahead by this much."""

    def change(exchange: Exchange) -> Response | None:
        grid = replace(exchange.grid, now=lambda: exchange.grid.now() + ahead)
        body = body_of(exchange.good)
        if body is None or not exchange.dialect.points(body):
            return None
        return exchange.dialect.respond(exchange.request, grid)

    return change


_FORMATS = {13: "%Y-%m-%dT%H", 17: "%Y-%m-%dT%H:%MZ", 20: "%Y-%m-%dT%H:%M:%SZ", 24: "%Y-%m-%dT%H:%M:%S.000Z"}


def moved(text: str, by: timedelta) -> str:
    """Shift a time in a body, in the same format."""
    moment = datetime.fromisoformat(text) + by
    return moment.strftime(_FORMATS[len(text)]) if len(text) in _FORMATS else moment.isoformat()


def list_removed(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: without(inner) for key, inner in value.items() if not _holds(inner, points)}
            return kept if value not in points else {}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return {} if _holds(body, points) else without(body)


def _holds(value: Any, points: list[dict[str, Any]]) -> bool:
    return isinstance(value, list) and bool(value) and value[0] is points[0]


def doubled(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    return _listed(points, body, [twice for point in points for twice in (point, dict(point))])


def unordered(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    return _listed(points, body, points[::-2] + points[-2::-2])


def gapped(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    return _listed(points, body, [point for i, point in enumerate(points) if i % 3 != 1])


def widened(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> None:
    for point in points:
        point["new"] = {"a": [1]}


def emptied(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    return _listed(points, body, [])


def overlapping(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    key = exchange.dialect.time_key
    if len(points) < 2:
        return None
    times = sorted({datetime.fromisoformat(point[key]) for point in points})
    half = (times[1] - times[0]) / 2
    return _listed(points, body, [p for point in points for p in (point, {**point, key: moved(point[key], half)})])


def last_tomorrow(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> None:
    key = exchange.dialect.time_key
    last = max(points, key=lambda point: str(point[key]))
    last[key] = moved(last[key], timedelta(days=1))


def _listed(points: list[dict[str, Any]], body: Any, other: Sequence[Any]) -> Any:
    """Return the body with another list of points; a body that is itself a point stays as it is."""
    if isinstance(body, list) and _holds(body, points):
        return list(other)

    def put(value: Any) -> None:
        for key, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
            if _holds(inner, points):
                value[key] = list(other)
            elif isinstance(inner, dict | list):
                put(inner)

    put(body)
    return None


def numbers(exchange: Exchange, points: list[dict[str, Any]], body: Any) -> Any:
    return _listed(points, body, [1, 2, 3])


def other_zone(exchange: Exchange) -> Response | None:
    body = body_of(exchange.good)
    if body is None or not exchange.dialect.rename_zone(body, OTHER_ZONE):
        return None
    return replace(exchange.good, body=json.dumps(body).encode())


def literal(text: str) -> Change:
    """Return a change of every value to a literal that JSON does not have, or that no number type can hold."""
    mark = each(constant("@@"))

    def change(exchange: Exchange) -> Response | None:
        marked = mark(exchange)
        return marked and replace(marked, body=marked.body.replace(b'"@@"', text.encode()))

    return change


def of_good(make: Callable[[Response], Response]) -> Change:
    return lambda exchange: make(exchange.good)


@cache
def bomb() -> bytes:
    return gzip.compress(b" " * BIG, 6)


@cache
def huge() -> bytes:
    return b'{"data": "' + b"x" * BIG + b'"}'


def redirect(exchange: Exchange, to: str) -> Response:
    return Response(302, b"", {"location": to + exchange.request.path})


def echoed(exchange: Exchange) -> Response | None:
    """Return a refusal that repeats every header of the request, as debug pages do."""
    return status(400, " ".join(f"{name}: {value}" for name, value in sorted(exchange.request.headers.items())))(
        exchange
    )


def limited_until(exchange: Exchange) -> Response | None:
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    return status(429, retry_after=at)(exchange)
