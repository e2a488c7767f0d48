"""Registry of providers, built-in and third-party, found by entry points and made ready to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar  # a clock, a transport: any argument of the HTTP client

from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.errors import GridsweepError, SignalError, SpecError
from gridsweep.grid.archive import Archive
from gridsweep.grid.fallbacks import Resolver
from gridsweep.grid.http.cache import default_folder
from gridsweep.grid.http.calls import PAST_SECONDS, READ_SECONDS, one_call
from gridsweep.grid.http.client import HttpClient
from gridsweep.grid.http.secrets import Secrets
from gridsweep.grid.source import GROUP, Http, Means, Source, Zone
from gridsweep.sweep.sweep import CarbonSource

UNTRUE = ("synthetic", "static")
"""Qualities that a strict sweep does not accept for planning or settlement."""


@cache
def names() -> tuple[str, ...]:
    """Return the names of the installed providers, built-in and third-party."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@cache
def plugin(name: str) -> type[Source]:
    """Return a provider's class. Raises `SpecError` for a name not installed or a plug-in that does not load."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                loaded: type[Source] = point.load()
            except (ImportError, AttributeError) as error:
                raise SpecError(f"the provider {name!r} ({point.value}) cannot be loaded: {error}") from None
            return loaded
    raise SpecError(f"there is no provider {name!r}; installed are {', '.join(names())}")


def secrets_of(settings: CarbonSource) -> tuple[str, ...]:
    """Return the references, `env:NAME` or `file:PATH`, of the secrets that a source reads: the spec's, or its own."""
    usual: dict[str, str] = getattr(plugin(settings.provider), "secrets", {})
    named = {key: getattr(settings, key) for key in ("token", "username", "password")}
    return tuple(found for key, value in named.items() if (found := value or usual.get(key)))


def means_for(name: str, folder: Path | None = None, base: Path | None = None, **injected: Any) -> Means:
    """Return the means of a provider; `injected` (a clock, a transport) goes to its HTTP client, for tests."""
    secrets = Secrets(base=base)

    def http(base_url: str) -> Http:
        return HttpClient(base_url=base_url, name=name, folder=folder, secrets=secrets, **injected)

    return Means(http, secrets.read, base or Path())


def source_for(settings: CarbonSource, means: Means | None = None) -> Source:
    """Return the source that a spec names. Raises `SpecError`, `TraceError`, `SignalError`."""
    kind = plugin(settings.provider)
    source = kind(settings, means or means_for(settings.provider, default_folder()))
    return Timed(source) if kind.live else source


def provider_for(settings: CarbonSource, means: Means | None = None, folder: Path | None = None) -> Source | Resolver:
    """Return the provider of a sweep: a live source with its fallbacks, or any other source as it is.

    With `strict`, the source refuses synthetic and static figures. `folder` holds the archive (default: the user's
    cache). Raises `SpecError`, `TraceError`, `SignalError`.
    """
    source = source_for(settings, means)
    if settings.strict:
        source = Strict(source)
    if not plugin(settings.provider).live:
        return source
    archive = Archive(settings, folder or default_folder())
    from gridsweep.grid import yearly_averages as zones  # a table that only live providers need

    average = None if settings.strict else zones.average(settings.zone)
    if average is None:
        return Resolver(source, archive)
    known = Provenance(
        f"the yearly average of {average.title}, {average.year} ({average.source})",
        "static",
        provider="static",
        zone=settings.zone,
        kind="average",
        basis=average.basis,
    )
    return Resolver(source, archive, known, average.g_per_kwh)


def zones_of(name: str) -> tuple[Sequence[Zone], str]:
    """Return the zones that a provider lists, or the reason why it cannot list them."""
    try:
        return source_for(CarbonSource(name, "", None)).zones(), ""
    except GridsweepError as error:
        return (), str(error)


class Timed:
    """A wrapper of a live source whose every call ends within a stated time, however many requests it makes."""

    keys: ClassVar[frozenset[str]] = frozenset()
    live: ClassVar[bool] = True

    def __init__(self, source: Source) -> None:
        self.source = source

    def zones(self) -> Sequence[Zone]:
        with one_call(READ_SECONDS):
            return self.source.zones()

    def read(self, now: datetime) -> Reading:
        with one_call(READ_SECONDS):
            return self.source.read(now)

    def past(self, start: datetime, end: datetime) -> Reading:
        with one_call(PAST_SECONDS):
            return self.source.past(start, end)


class Strict:
    """A wrapper of a source that refuses synthetic and static figures with `SignalError`."""

    keys: ClassVar[frozenset[str]] = frozenset()
    live: ClassVar[bool] = True

    def __init__(self, source: Source) -> None:
        self.source = source

    def zones(self) -> Sequence[Zone]:
        return self.source.zones()

    def read(self, now: datetime) -> Reading:
        return self._true(self.source.read(now))

    def past(self, start: datetime, end: datetime) -> Reading:
        return self._true(self.source.past(start, end))

    @staticmethod
    def _true(reading: Reading) -> Reading:
        for stretch in reading.stretches:
            found = stretch.provenance
            if found.quality in UNTRUE:
                raise SignalError(
                    f"{found.title} is {found.quality}, and the spec says `strict: true`; "
                    "use a key and a zone that give measured data, or take `strict` out"
                )
        return reading
