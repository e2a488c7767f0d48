"""On-disk archive of provider answers: history grows with use, and survives outages and crashes."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Reading, Stretch
from gridsweep.carbon.traces import DAY, Trace, or_nan, or_none, or_nones
from gridsweep.records import codec
from gridsweep.records.files import replace_file
from gridsweep.state.events import Observed
from gridsweep.state.observations import facts
from gridsweep.state.observed_grid import Grid
from gridsweep.sweep.sweep import CarbonSource

KEPT = timedelta(days=60)
LONGEST_AHEAD = timedelta(days=8)
JUDGED = 28
"""Number of past forecasts by which a provider is judged."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A stored forecast: the mean path, None where unknown."""

    issued_at: datetime
    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    source: str


@dataclass(frozen=True, slots=True)
class _Page:
    """The content of an archive file: the time of the last answer, the known slots, the last and earlier forecasts."""

    fetched_at: datetime
    observed: tuple[Observed, ...]
    told: _Told | None
    earlier: tuple[_Told, ...] = ()


class Archive:
    """The last 60 days of a source's answers for a zone. With `folder` None they stay in memory only.

    A damaged file or a failing disk loses history, but never prevents an answer.
    """

    def __init__(self, settings: CarbonSource, folder: Path | None):
        key = "|".join((settings.provider, settings.zone, settings.basis or "", settings.base_url or ""))
        name = f"{settings.provider}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
        self.path = folder / "grid" / name if folder else None
        self.grid = Grid()
        self.fetched_at: datetime | None = None
        self.told: Forecast | None = None
        self.earlier: list[Forecast] = []
        """Earlier forecasts of the source, one a day, for judging how accurate they were."""
        if self.path is not None:
            self._load(self.path)

    def keep(self, reading: Reading, now: datetime) -> None:
        """Store an answer; later answers revise earlier ones."""
        known = self.grid.trace(now)
        if len(known) and known.step != reading.history.step:
            self.grid = Grid()  # the provider has changed its slot length: earlier answers no longer fit
        elif len(known) and self.told is not None:
            self._passed(known, self.told, reading, now)
        for fact in facts(reading, 0, now):
            self.grid.take(fact)
        self.told = reading.forecast
        self.fetched_at = now
        if self.told and (not self.earlier or self.told.issued_at - self.earlier[-1].issued_at >= DAY):
            self.earlier = [*self.earlier, self.told][-JUDGED:]
        if self.path is not None:
            self._save(self.path, now)

    def _passed(self, known: Trace, told: Forecast, reading: Reading, now: datetime) -> None:
        """Fill slots that passed between two answers with their forecast, until the provider reports them."""
        first = max(known.start, told.start)
        values = [
            told.mean.at(slot) if known.at(slot) != known.at(slot) else float("nan")
            for slot in (first + i * known.step for i in range(max(0, (now - first) // known.step)))
        ]
        expected = tuple(map(or_none, values))
        if any(value is not None for value in expected):
            provenance = replace(reading.provenance, title=told.source, quality="forecast", issued_at=told.issued_at)
            self.grid.take(Observed(now, first, known.step, expected, provenance))

    def history(self, start: datetime, end: datetime) -> tuple[Trace, tuple[Stretch, ...]]:
        """Return the known slots in `[start, end)`, with their provenance."""
        trace = self.grid.trace(start).between(start, end)
        runs = self.grid.runs(start)
        return trace, tuple(Stretch(first, provenance) for first, _, provenance in runs if first < end)

    def _load(self, path: Path) -> None:
        with suppress(OSError, ValueError):
            page = codec.loads(_Page, path.read_bytes())
            for fact in page.observed:
                self.grid.take(fact)
            self.fetched_at = page.fetched_at
            self.told = _read(page.told) if page.told else None
            self.earlier = [_read(told) for told in page.earlier]

    def _save(self, path: Path, now: datetime) -> None:
        told = _written(self.told) if self.told else None
        page = _Page(now, tuple(self.grid.facts(now - KEPT, now)), told, tuple(map(_written, self.earlier)))
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(path.parent, 0o700)  # noqa: PTH101
            replace_file(path, codec.dumps(page))


def _written(told: Forecast) -> _Told:
    mean = told.mean.between(told.start, told.start + LONGEST_AHEAD)
    return _Told(told.issued_at, mean.start, mean.step, or_nones(mean.values), told.source)


def _read(told: _Told) -> Forecast:
    return Forecast(told.issued_at, told.start, told.step, or_nan(told.values)[np.newaxis, :], source=told.source)
