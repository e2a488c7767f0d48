"""The interface of a provider's dialect: answers made from a grid's truth, and the places of an answer's parts."""

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
    """The truth behind a double: intensities of a zone in gCO2eq/kWh, and the current time.

    The trace extends into the future, which a dialect may use for a forecast.
    """

    zone: str
    trace: Trace
    now: Callable[[], datetime]


class Dialect(Protocol):
    """One provider's API format. Stateless, except for the tokens it has issued."""

    name: str
    zone: str
    """A zone the provider has, for the tests."""
    secrets: Mapping[str, str]
    """Credential settings of the spec's `carbon` section, with their values: {"token": "canary-..."}."""
    time_key: str
    value_key: str
    """`time_key` and `value_key`: the keys of a point's start and of its value."""

    def respond(self, request: Request, grid: Grid) -> Response:
        """Return the good answer, or the API's own error for a wrong path, token or zone."""
        ...

    def points(self, body: Any) -> list[dict[str, Any]] | None:
        """Return the list of points within a parsed good body, to be changed in place; None if it has none."""
        ...

    def rename_zone(self, body: Any, zone: str) -> bool:
        """Rename the zone in a parsed good body, in place; return False if the body does not name its zone."""
        ...
