"""The interface of carbon-intensity providers, built-in and third-party.

A plug-in is a class, named in the entry point group `gridsweep.providers`. Its arguments are its settings and the means
it may use; it keeps no state that it cannot request again.
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
    """A grid region by the provider's name; `note` holds particulars, such as the access rights of a key there."""

    id: str
    title: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body that was checked to be JSON (or text, if requested), and the time it was fetched."""

    body: object
    fetched_at: datetime
    cached: bool = False


class Http(Protocol):
    """The HTTP client of one provider's API: one request at a time, with timeouts, retries, budget and cache.

    `path` is below the base URL. `keep` is the maximum age of an answer from the cache on disk. Headers and `auth`
    (user, password) are sent to that host only, and are not part of the cache key. Raises `SignalError`.
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
    """The means of a source: `http` makes its client for a base URL, `secret` reads `env:NAME` or `file:PATH`.

    `secret` raises `CredentialError` if there is none; each secret that was read is redacted from all later messages.
    """

    http: Callable[[str], Http]
    secret: Callable[[str], str]
    base: Path = Path()


class Source(Protocol):
    """A provider. `keys` are the keys of the spec's section `carbon` that it accepts, besides `provider` and `zone`.

    A `live` provider reads the present of the wall clock, through the resolver; any other replays or is constant.
    """

    keys: ClassVar[frozenset[str]]
    live: ClassVar[bool]

    def __init__(self, settings: CarbonSource, means: Means, /) -> None: ...

    def read(self, now: datetime) -> Reading:
        """Return the known past up to the present slot, and the provider's own forecast if it has one.

        Gaps are NaN. Raises `SignalError`; never returns values that are not certainly gCO2eq/kWh of this zone.
        """
        ...

    def past(self, start: datetime, end: datetime) -> Reading:
        """Return the current, revised data for `[start, end)`, for settlement. Raises `SignalError`."""
        ...

    def zones(self) -> Sequence[Zone]:
        """Return the available zones, as far as they are known without payment. Raises `SignalError`."""
        ...
