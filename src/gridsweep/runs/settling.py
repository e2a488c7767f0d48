"""Settling of a sweep: its figures recomputed on the provider's revised grid data."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from gridsweep.accounting.certificate import window_of
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report
from gridsweep.carbon.traces import ceil_to, floor_to
from gridsweep.errors import SpecError
from gridsweep.grid.fallbacks import Resolver
from gridsweep.grid.http.budget import TokenBucket
from gridsweep.grid.http.cache import default_folder
from gridsweep.grid.registry import means_for, provider_for
from gridsweep.grid.source import Source
from gridsweep.loop import record
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.records.origins import check_driven_here, origin_of
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import summarize
from gridsweep.simulation.baseline import baseline
from gridsweep.state.events import Settled
from gridsweep.state.observations import facts
from gridsweep.state.state import State
from gridsweep.sweep.sweep import CarbonSource


def settle(folder: str | Path, provider: Source | None = None, at: datetime | None = None) -> Report:
    """Read the grid data of the sweep's hours again, journal it as settled, and report both figures.

    The hours from the sweep's end to its deadline are read too, because the achievable saving needs them. The latest
    settlement counts. Raise `LeaseError` while a run holds the folder, `SignalError` if the provider does not answer,
    `SpecError` if no experiment has ended yet.
    """
    place = RunFolder(Path(folder))
    place.check_begun()
    if (origin := origin_of(place.state)) is not None and origin.kind == "copy":
        check_driven_here(place.state)  # its journal must stay the one that it was copied from
    with lease(place.state) as epoch:
        state = State()
        journal = Journal(place.journal, epoch=epoch, fold=state.apply)
        try:
            other = baseline(state)
            if other is None:
                raise SpecError(f"{folder}: no experiment has ended yet; settle after the first one ends")
            step = state.history.step
            now = at or datetime.now(UTC)
            start = floor_to(state.submitted_at, step)
            ended = max(ledger(state).ended_at, other[1].ended_at)
            end = max(ceil_to(ended, step), min(ceil_to(window_of(state), step), floor_to(now, step)))
            reading = (provider or patient(state.sweep.carbon)).past(start, end)
            events = [
                Settled(now, fact.start, fact.step, fact.values, fact.provenance) for fact in facts(reading, 0, now)
            ]
            if not events:
                raise SpecError(f"{reading.provenance.title} has no data from {start:%Y-%m-%d} to {end:%Y-%m-%d} yet")
            record(state, journal, events)
        finally:
            journal.close()
    return summarize(state)


def patient(carbon: CarbonSource) -> Source | Resolver:
    """Return the sweep's provider with an hour's request budget upfront, because reading weeks takes many requests."""
    budget = TokenBucket(capacity=12, refill=0.001)
    return provider_for(carbon, means_for(carbon.provider, default_folder(), budget=budget))
