"""What it takes to speak like a provider: answers made from a grid's truth, and where the parts of an answer are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol  # JSON, as a provider's API answers

from gridsweep.carbon.traces import Trace


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a dialect sees it; header names are lower case."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """A response; `body` is bytes on the wire."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


def as_json(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode())


@dataclass(frozen=True, slots=True)
class Grid:
    """The truth that a double tells: intensities of a zone in gCO2eq/kWh, and what time it is.

    The trace reaches into the future, which a dialect may use for a forecast.
    """

    zone: str
    trace: Trace
    now: Callable[[], datetime]


class Dialect(Protocol):
    """One provider's way of speaking. Stateless, but for tokens it has handed out."""

    name: str
    zone: str
    """A zone the provider has, for the tests."""
    secrets: Mapping[str, str]
    """Settings of the spec's `carbon` section for credentials, to their values: {"token": "canary-..."}."""
    time_key: str
    value_key: str
    """What a point calls its beginning and its value."""

    def respond(self, request: Request, grid: Grid) -> Response:
        """The well-behaved answer, or the API's own error for a wrong path, token or zone."""
        ...

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        """The list of points within a parsed good body, to be changed in place; None where it has none."""
        ...

    def rename_zone(self, body: Any, zone: str) -> bool:
        """Have a parsed good body speak of another zone, in place; False where it does not name its zone."""
        ...
