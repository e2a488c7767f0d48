"""The contract of providers that use HTTP, as tests to inherit (pytest collects them; nothing here imports pytest).

    class TestMine(ProviderContract):
        dialect = MyDialect
        source = MyProvider

Each behaviour of `testing_grid.behaviours` is one test, on a loopback server and with the production client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar  # settings of any provider, means of any HTTP client, answers of any question

import numpy as np

from gridsweep.carbon.readings import Reading
from gridsweep.carbon.traces import DAY, HOUR, Trace, ceil_to, floor_to
from gridsweep.errors import SignalError
from gridsweep.grid.http.budget import TokenBucket
from gridsweep.grid.http.client import HttpClient
from gridsweep.grid.http.secrets import Secrets
from gridsweep.grid.source import Means, Source
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.testing.grid.behaviours import BEHAVIOURS, GOOD, Behaviour, Expected
from gridsweep.testing.grid.dialect import Dialect, Grid
from gridsweep.testing.grid.server import GridApi, GridServer, Stranger, silent_address
from gridsweep.testing.grid.transport import GridTransport

NOW = datetime(2026, 5, 4, 14, 20, 30, tzinfo=UTC)
DEADLINE_SECONDS, SHORT_SECONDS = 10.0, 0.3
"""Deadlines of a request on the loopback interface, and of a request that will not be answered."""
RECORDED = "behaviour"
UNNAMED = "https://no-such-host.invalid"


class MovableClock:
    """A clock that moves only when told to, or during a sleep."""

    def __init__(self, now: datetime = NOW):
        self.start = self.moment = now

    def now(self) -> datetime:
        return self.moment

    def seconds(self) -> float:
        return (self.moment - self.start).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def truth(now: datetime = NOW) -> Trace:
    """Five weeks of hourly intensities around `now`, 40 to 660 gCO2eq/kWh, no two neighbours alike."""
    hours = np.arange(38 * 24)
    values = 300 + 200 * np.sin(hours * 2 * np.pi / 24) + 60 * np.cos(hours * 1.7)
    return Trace(floor_to(now, DAY) - 32 * DAY, HOUR, np.round(values))


@dataclass(slots=True)
class Setting:
    """A source on a double: the double, their common clock, and the values that must stay secret."""

    source: Source
    api: GridApi
    clock: MovableClock
    canaries: tuple[str, ...]
    cache: Path

    def secrets_in(self, text: str) -> list[str]:
        """Return the secrets that occur in a text, including tokens issued by the double."""
        return [s for s in (*self.canaries, *getattr(self.api.dialect, "issued", ())) if s in text]


class ProviderContract:
    """Tests for every provider that uses HTTP. A subclass names the provider and a dialect for its API."""

    dialect: ClassVar[Callable[[], Dialect]]
    source: ClassVar[Callable[[CarbonSource, Means], Source]]
    root: ClassVar[str] = ""
    """The path of the base URL, such as `/v3`."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Further settings of the section `carbon`."""
    own: ClassVar[tuple[Behaviour, ...]] = ()
    """Behaviours of this API alone."""
    otherwise: ClassVar[Mapping[str, Expected]] = {}
    """Expected results of canned behaviours that differ for this provider."""
    tolerance: ClassVar[float] = 1.0
    """The allowed difference in gCO2eq/kWh between the double and a reading, due to the API's rounding."""

    hours: ClassVar[int] = 24
    """Hours of reading every five minutes, to count the provider's requests."""

    def make(self, folder: Path, api: GridApi, clock: MovableClock, base_url: str, **means: Any) -> Setting:
        """Return a source with secrets in files and its own cache."""
        folder.mkdir(parents=True, exist_ok=True)
        references = {}
        for key, secret in api.dialect.secrets.items():
            file = folder / f"{key}.secret"
            file.write_text(secret)
            file.chmod(0o600)
            references[key] = f"file:{file}"
        secrets, cache, name = Secrets(), folder / "cache", api.dialect.name
        given = {"jitter": lambda: 0.0, **means}

        def http(url: str) -> HttpClient:
            return HttpClient(url, name=name, folder=cache, secrets=secrets, now=clock.now, **given)

        chosen = {"provider": name, "zone": api.dialect.zone, "file": None, "base_url": base_url}
        source = type(self).source(CarbonSource(**{**chosen, **references, **self.settings}), Means(http, secrets.read))
        return Setting(source, api, clock, tuple(api.dialect.secrets.values()), cache)

    @contextmanager
    def served(self, folder: Path, behaviour: Behaviour = GOOD, elsewhere: str = "") -> Iterator[Setting]:
        """Yield a source on a loopback server with this behaviour."""
        import httpx2

        dialect, clock = type(self).dialect(), MovableClock()
        grid = Grid(dialect.zone, truth(), clock.now)
        with GridServer(dialect, grid) as server:
            server.elsewhere = elsewhere
            server.misbehave(behaviour)
            places = {"here": server.url, "tls": server.url.replace("http:", "https:"), "unnamed": UNNAMED}
            url = places.get(behaviour.place) or silent_address()
            answered = behaviour.place == "here" and behaviour.delivery != "drip"
            deadline = DEADLINE_SECONDS if answered else SHORT_SECONDS
            means = {"deadline": deadline, "sleep": lambda seconds: None, "budget": TokenBucket(1000, 1000.0)}
            plain = url.startswith("http:")  # no certificates needed then; loading them takes 40 ms
            transport = httpx2.HTTPTransport(verify=False) if plain else None
            yield self.make(folder, server, clock, url + self.root, transport=transport, **means)

    def virtual(self, folder: Path, transport: GridTransport, clock: MovableClock, **means: Any) -> Setting:
        """Return a source on a double without a socket, on a clock that only moves when told to."""
        virtual = {"transport": transport, "monotonic": clock.seconds, "sleep": clock.sleep}
        return self.make(folder, transport, clock, f"https://api.invalid{self.root}", **{**virtual, **means})

    def double(self, clock: MovableClock) -> GridTransport:
        dialect = type(self).dialect()
        return GridTransport(dialect, Grid(dialect.zone, truth(clock.now()), clock.now))

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "behaviour" in metafunc.fixturenames:
            every = (*BEHAVIOURS, *self.own)
            metafunc.parametrize("behaviour", every, ids=[one.name for one in every])

    def test_whatever_the_api_does_there_is_a_reading_or_a_typed_error(
        self, behaviour: Behaviour, tmp_path: Path, record_property: Callable[[str, object], None]
    ) -> None:
        expected = self.otherwise.get(behaviour.name, behaviour.expected)
        with Stranger() as stranger, self.served(tmp_path / "here", behaviour, stranger.url) as setting:
            reading, error = tried(lambda: setting.source.read(NOW))
            spoiled = setting.api.spoiled > 0 or behaviour.place != "here"
            if not spoiled:
                expected = Expected((), "truth")
            if reading is None:
                assert isinstance(error, expected.errors), f"{error!r} is not one of {expected.errors}"
                assert len(str(error)) > 20, "the message says too little"
            else:
                assert expected.tells, f"an error was expected, and this came: {reading!r}"
                self.sound(reading, setting)
                self.honest(reading, expected, self.told(tmp_path / "good") if expected.tells == "truth" else 0)
            if behaviour.place == "here" and behaviour.delivery == "whole":
                start = NOW - 2 * DAY
                for ask in (lambda: setting.source.past(start, start + 6 * HOUR), setting.source.zones):
                    self.quiet(setting, tried(ask)[1])
            self.quiet(setting, error)
            assert stranger.heard == []
        record_property(RECORDED, (setting.api.dialect.name, behaviour.name, spoiled))

    def told(self, folder: Path) -> int:
        """Return the number of known slots in a good reading."""
        clock = MovableClock()
        return known(self.virtual(folder, self.double(clock), clock).source.read(NOW))

    def honest(self, reading: Reading, expected: Expected, told: int) -> None:
        """Check that a reading has the expected slots and no false values."""
        values, grid = reading.history.values, truth()
        if expected.tells == "nothing":
            assert known(reading) == 0
        elif expected.tells == "zero":
            assert not values[np.isfinite(values)].any()
        else:
            for i in np.flatnonzero(np.isfinite(values)):
                start = reading.history.start + int(i) * reading.history.step
                so = grid.mean(start, start + reading.history.step)
                assert abs(values[i] - so) <= self.tolerance, f"{values[i]} at {start}, where {so} is true"
        if expected.tells == "truth":
            assert known(reading) == told

    def sound(self, reading: Reading, setting: Setting) -> None:
        """Check the properties that hold for every reading."""
        history, now = reading.history, setting.clock.now()
        assert history.end <= floor_to(now, history.step) + history.step, "the history reaches into the future"
        assert not (history.values < 0).any() and not np.isinf(history.values).any()
        assert reading.stretches[0].start <= history.start
        starts = [stretch.start for stretch in reading.stretches]
        assert starts == sorted(starts) and starts[-1] < max(history.end, now)
        for stretch in reading.stretches:
            p = stretch.provenance
            assert (p.provider, p.zone) == (setting.api.dialect.name, setting.api.dialect.zone)
            assert p.kind in ("average", "marginal") and p.basis in ("lifecycle", "direct", "unknown") and p.title
            assert p.quality in ("measured", "estimated", "forecast", "imputed", "synthetic")
            assert p.fetched_at is not None and p.fetched_at <= now
            assert all(t.tzinfo is UTC for t in (stretch.start, p.fetched_at, p.issued_at) if t)
        forecast = reading.forecast
        if forecast is not None:
            assert forecast.paths.ndim == 2 and len(forecast.paths) >= 1
            assert forecast.start.tzinfo is UTC and forecast.issued_at.tzinfo is UTC
            assert floor_to(now, forecast.step) <= forecast.start and forecast.issued_at <= now + HOUR
            assert not (forecast.paths < 0).any() and not np.isinf(forecast.paths).any()

    def quiet(self, setting: Setting, error: BaseException | None) -> None:
        """Check that no secret appears in messages or stored files."""
        while error is not None:
            assert setting.secrets_in(f"{error} {error!r}") == []
            error = error.__cause__ or error.__context__
        kept = [file for file in setting.cache.rglob("*") if file.is_file()]
        assert [file for file in kept if setting.secrets_in(file.read_text(errors="replace"))] == []

    def test_a_good_reading_tells_of_the_present_or_the_recent_past(self, tmp_path: Path) -> None:
        with self.served(tmp_path) as setting:
            reading = setting.source.read(NOW)
            assert known(reading) > 0 and reading.freshness == "live"
            assert setting.secrets_in(repr((reading, reading.stretches, reading.why, setting.source))) == []

    def test_of_the_past_it_tells_the_window_that_was_asked_for_and_no_more(self, tmp_path: Path) -> None:
        start, end = floor_to(NOW, HOUR) - 2 * DAY, floor_to(NOW, HOUR) - 2 * DAY + 6 * HOUR
        with self.served(tmp_path) as setting:
            reading = setting.source.past(start, end)
            self.sound(reading, setting)
            self.honest(reading, Expected((), "part"), 0)
            history = reading.history
            assert known(reading) and history.start >= start and history.end <= ceil_to(end, history.step)

    def test_its_zones_include_the_one_that_is_read(self, tmp_path: Path) -> None:
        with self.served(tmp_path) as setting:
            zones = setting.source.zones()
            assert setting.api.dialect.zone in {zone.id for zone in zones}
            assert all(zone.id and zone.title for zone in zones)

    def test_a_time_without_a_zone_is_refused(self, tmp_path: Path) -> None:
        with self.served(tmp_path) as setting:
            try:
                setting.source.read(NOW.replace(tzinfo=None))
            except ValueError:
                assert setting.api.count() == 0
            else:
                raise AssertionError("a naive time was taken")

    def test_a_day_of_reads_every_five_minutes_stays_within_the_budget(self, tmp_path: Path) -> None:
        clock = MovableClock()
        with self.double(clock) as double:
            setting = self.virtual(tmp_path, double, clock)
            setting.source.read(clock.now())
            assert double.count() <= 4, "the first read asks too much"
            for _ in range(self.hours * 12):
                clock.sleep(300)
                self.sound(setting.source.read(clock.now()), setting)
            assert double.most_in(HOUR) <= 12
            assert double.most_in_flight == 1
            assert (
                setting.secrets_in("".join(f"{seen.request.path}{seen.request.params}" for seen in double.seen)) == []
            )


def tally(properties: Iterable[tuple[str, object]]) -> list[str]:
    """Return one line per provider with its number of tested behaviours, from the properties the tests recorded."""
    tried: dict[str, set[str]] = {}
    for key, value in properties:
        if key == RECORDED and isinstance(value, tuple | list):
            provider, name, spoiled = value
            if spoiled or name == GOOD.name:
                tried.setdefault(str(provider), set()).add(str(name))
    return [f"{provider}: {len(names)} behaviours of its API tried" for provider, names in sorted(tried.items())]


def known(reading: Reading) -> int:
    """Return the number of known slots in a reading."""
    return int(np.isfinite(reading.history.values).sum())


def tried(ask: Callable[[], Any]) -> tuple[Any, SignalError | None]:
    """Return the result and None, or None and the `SignalError`; other errors propagate."""
    try:
        return ask(), None
    except SignalError as error:
        return None, error
