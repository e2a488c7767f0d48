"""What a provider of carbon intensity is to us: the seam that ours and other people's are written against.

A plug-in is a class, named in the entry point group `gridsweep.providers`. It is made with its settings and the means
it may use, and keeps nothing but what it can ask for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar, Protocol

from gridsweep.carbon.readings import Reading
from gridsweep.sweep.sweep import CarbonSource

GROUP = "gridsweep.providers"


@dataclass(frozen=True, slots=True)
class Zone:
    """A grid region as the provider names it; `note` says what is particular, such as what a key may read there."""

    id: str
    title: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body that was checked to be JSON (or text, where that was asked for), and when it came."""

    body: object
    fetched_at: datetime
    cached: bool = False


class Http(Protocol):
    """One provider's way to its API: one request at a time, with all that makes a request well behaved.

    `path` is below the base URL. `keep` is how long an answer may be taken from the cache on disk. Headers and `auth`
    (user, password) are sent to that host only, and are no part of the cache's key. Raises `SignalError`.
    """

    def get(
        self,
        path: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        keep: timedelta = timedelta(0),
    ) -> Fetched: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What a source may use: `http` makes its client for a base URL, `secret` reads `env:NAME` or `file:PATH`.

    `secret` raises `CredentialError` where there is none; what it read is redacted from every message from then on.
    """

    http: Callable[[str], Http]
    secret: Callable[[str], str]
    base: Path = Path()


class Source(Protocol):
    """A provider. `keys` are those of the spec's section `carbon` that it takes, beside `provider` and `zone`.

    `live`: it reads the present of the wall clock, through the resolver; else it replays or is constant.
    """

    keys: ClassVar[frozenset[str]]
    live: ClassVar[bool]

    def __init__(self, settings: CarbonSource, means: Means, /) -> None: ...

    def read(self, now: datetime) -> Reading:
        """The past up to the present slot as far as it is known, and the provider's own forecast if it has one.

        Gaps are NaN. Raises `SignalError`; never returns what it does not know to be gCO2eq/kWh of this zone.
        """
        ...

    def past(self, start: datetime, end: datetime) -> Reading:
        """What is known by now of `[start, end)`, revised: for settlement. Raises `SignalError`."""
        ...

    def zones(self) -> Sequence[Zone]:
        """The zones one can ask for, as far as they are known without paying. Raises `SignalError`."""
        ...
