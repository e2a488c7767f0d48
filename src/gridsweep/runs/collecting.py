"""Run folders of sweeps that another component drives: `gridsweep collect`.

Under a gate no loop runs and there is no journal: `collect` gathers one from the volume and the cluster, and brings it
up to date when it is called again. What the journal holds already is not read again and never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from gridsweep.accounting.certificate import window_of
from gridsweep.accounting.compute_gardener import FACT
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.traces import HOUR, ceil_to, floor_to
from gridsweep.errors import ExecutorError, GridsweepError, SpecError, word
from gridsweep.executors.kubernetes.beginnings import Volume, on_volume, work_of
from gridsweep.executors.kubernetes.gathering import SETTLE, Cluster, Gathering
from gridsweep.executors.kubernetes.manifests.rayjob import COMPUTE_GARDENER
from gridsweep.executors.kubernetes.shelves import Shelf
from gridsweep.executors.publisher import Publisher
from gridsweep.grid.fallbacks import Resolver
from gridsweep.grid.source import Source
from gridsweep.loop import record
from gridsweep.records.disk import storing
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.records.origins import Origin, mark, origin_of
from gridsweep.runs.amendments import amendments, as_submitted
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.glances import Keeper
from gridsweep.runs.run import keep_spec
from gridsweep.runs.settling import patient
from gridsweep.state.collected import Collected
from gridsweep.state.events import Event, Resumed, Submitted
from gridsweep.state.observations import observed
from gridsweep.state.standings import Status
from gridsweep.state.state import State
from gridsweep.sweep.constants import ENCODING
from gridsweep.sweep.sweep import Sweep

GARDENER = COMPUTE_GARDENER.removesuffix("-scheduler")
"""The gate's name in a spec."""


AT_ONCE = timedelta(days=28)
"""The longest span of intensities that a provider is asked for at a time."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What `collect` found. `events` are new in the journal; `unknown` lists what could not be had.

    `warnings` name attempts and adapters that were left out, with the reason.
    """

    folder: Path
    sweep: str
    kind: Literal["collected", "copy"]
    gate: str
    source: str
    events: int
    attempts: int
    counts: dict[Status, int]
    unknown: tuple[str, ...]
    warnings: tuple[str, ...]
    next: str
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gated sweep's jobs are: its volume, what its cluster shows (None if none was asked), and their names."""

    gate: str
    source: str
    shelf: Shelf
    cluster: Cluster | None
    ended: bool = False
    settle: timedelta = SETTLE


def as_rendered(sweep: Sweep) -> Sweep:
    """Return a sweep as its rendered jobs run it: on the wall clock, each experiment to its end, one at a time."""
    return replace(sweep, replay=None, rungs=None, repeats=None, propose=None, pack=1)


def collect(
    sweep: Sweep,
    place: RunFolder,
    found: Place,
    origin: Origin,
    *,
    provider: Source | Resolver | None = None,
    now: datetime | None = None,
) -> Collection:
    """Build the run folder of a gated sweep, or bring it up to date.

    Raise `SpecError` if nothing of the sweep was found, or the folder holds another sweep; `LeaseError` while another
    process holds the folder.
    """
    check_kind(place, "collected")
    sweep, now = as_rendered(sweep), now or datetime.now(UTC)
    with storing(place.path), lease(place.state) as epoch:
        state, keeper = State(), Keeper(place.journal)
        journal = Journal(place.journal, epoch=epoch, fold=state.apply)
        before = state.folded
        try:
            closed = [id for id, attempt in state.attempts.items() if attempt.ended_at is not None]
            volume = on_volume(found.shelf, sweep, closed)
            if state.standings:
                if state.collected is not None and state.collected.gate != found.gate:
                    gate = state.collected.gate
                    raise SpecError(
                        f"{place.path} was collected from gate {gate}, not {found.gate}; give --gate {gate}"
                    )
                _changed(state, journal, sweep, now)
            else:
                _check_strangers(volume, found.source)
                opened = _opened(sweep, found, volume, now)
                mark(place.state, origin)  # before the first fact: an unmarked folder is one that may be driven
                record(state, journal, opened)
            gathering = Gathering(
                state, found.shelf, found.cluster, now, found.gate, ended=found.ended, settle=found.settle
            )
            for events in gathering.events(volume):
                record(state, journal, events)
            unread = (_left(gathering.left), _grid(state, journal, provider, now))
            _end(state, journal, found, unread, now)
            keep_spec(place, state.sweep)
        finally:
            journal.close()
            place.discard_empty()
            if state.folded > before:
                keeper.rested(state, journal.end, last=True)
        warnings = _of_attempts(volume, gathering.left)
        warnings += [*_strangers(volume), *_published(state, found.shelf, place)]
    return told(place, state, "collected", found.source, state.folded - before, warnings)


def check_kind(place: RunFolder, kind: Literal["collected", "copy"]) -> None:
    """Raise `SpecError` if a folder holds a run that is not one of this kind."""
    origin = origin_of(place.state)
    if not place.empty() and (origin is None or origin.kind != kind):
        what = "a copy of a loop's folder" if origin else "a run that is driven on this machine"
        what = "a sweep that was collected" if origin and origin.kind == "collected" else what
        raise SpecError(f"{place.path} holds {what}; name another folder")


def told(
    place: RunFolder,
    state: State,
    kind: Literal["collected", "copy"],
    source: str,
    events: int,
    warnings: Sequence[str] = (),
) -> Collection:
    """Return what was found, for the user."""
    then = "report" if any(standing.ended_at for standing in state.standings.values()) else "status"
    return Collection(
        folder=place.path,
        sweep=state.sweep.name,
        kind=kind,
        gate=state.collected.gate if state.collected else "none",
        source=source,
        events=events,
        attempts=len(state.attempts),
        counts={status: count for status in get_args(Status) if (count := state.count(status))},
        unknown=state.collected.unknown if state.collected else (),
        warnings=tuple(warnings),
        next=f"gridsweep {then} {word(place.path)}",
    )


def _changed(state: State, journal: Journal, sweep: Sweep, now: datetime) -> None:
    """Journal what has changed in the spec since the last collection. Raise `SpecError` for another sweep."""
    sweep, _ = as_submitted(state.sweep, replace(sweep, devices=state.sweep.devices))
    if changes := tuple(amendments(state.sweep, sweep)):
        record(state, journal, [Resumed(now, journal.epoch or state.epoch, sweep, changes)])


def _opened(sweep: Sweep, found: Place, volume: Volume, now: datetime) -> list[Event]:
    """Return the submission: when the first RayJob was created or, without one, when the first worker began.

    Raise `SpecError` if nothing of the sweep is there.
    """
    starts = [begun.at for begun in volume.begun]
    moments = [*starts, *(found.cluster.submitted if found.cluster is not None else ())]
    if not moments:
        if volume.left:
            name, why = next(iter(volume.left.items()))
            raise SpecError(
                f"no attempt of the sweep {sweep.name} in {found.source} can be read: stints/{name}: {why}",
                remedy="restore its files",
            )
        raise SpecError(
            f"nothing of the sweep {sweep.name} was found in {found.source}: no attempt on the volume, no RayJob",
            remedy="apply its manifests first, or name the spec that they were rendered from",
        )
    encoding = min((begun.encoding for begun in volume.begun), default=ENCODING)
    return [Submitted(min(*moments, now), sweep, None, encoding), Collected(now, found.gate, found.source)]


def _grid(state: State, journal: Journal, provider: Source | Resolver | None, now: datetime) -> str:
    """Journal the intensities of the sweep's hours, as far as the provider has them; return why some are missing.

    The hours up to the last deadline are read too, because the achievable saving needs them.
    """
    start = floor_to(state.submitted_at, HOUR)
    end = ceil_to(min(now, max(ledger(state).ended_at, window_of(state))), HOUR)
    known = state.history.between(start, end) if len(state.history) else None
    if (
        known is not None
        and known.start <= start
        and state.history.end >= end
        and not (known.values != known.values).any()
    ):
        return ""
    hours = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    try:
        source = provider or patient(state.sweep.carbon)
        for part in range(-(-(end - start) // AT_ONCE)):
            reading = source.past(start + part * AT_ONCE, min(end, start + (part + 1) * AT_ONCE))
            record(state, journal, observed(state, reading, now))
    except GridsweepError as error:
        return f"the intensities from {hours} ({error})"
    if not len(state.history):
        return f"the intensities from {hours}, of which the provider has none"
    had = state.history.between(start, end)
    whole = (
        had.start <= start and had.end >= min(end, floor_to(now, had.step)) and bool((had.values == had.values).all())
    )
    return (
        "" if len(had) and whole else f"some intensities from {hours}, which {reading.provenance.title} does not have"
    )


def _end(state: State, journal: Journal, found: Place, unread: Sequence[str], now: datetime) -> None:
    """Journal what the cluster's objects say, and what could not be had, if that is new."""
    assert state.collected is not None, "a collected journal says so at its beginning"
    fresh = found.cluster.facts(work_of(state.sweep)) if found.cluster is not None else {}
    fresh = {name: text for name, text in fresh.items() if state.facts.get(name) != text}
    unknown = tuple(filter(None, (_unknown_submission(state, found), *unread, _ungardened(state, found, fresh))))
    before = state.collected
    if fresh or (before.unknown, before.gate, before.source) != (unknown, found.gate, found.source):
        record(state, journal, [Collected(now, found.gate, found.source, fresh, unknown)])


def _left(left: Mapping[str, str]) -> str:
    """Return of which attempts neither the work nor the energy is known."""
    if not left:
        return ""
    name, why = next(iter(left.items()))
    if len(left) == 1:
        return f"the work and the energy of 1 attempt that was left out (stints/{name}: {why})"
    return f"the work and the energy of {len(left)} attempts that were left out (stints/{name}: {why}; and more)"


def _unknown_submission(state: State, found: Place) -> str:
    """Return that the time of the submission is unknown, if the first worker's start stands for it."""
    starts = [attempt.requested_at for attempt in state.attempts.values()]
    if not starts or state.submitted_at < min(starts):
        return ""
    return "when the jobs were applied (no RayJob tells it, and the sweep counts from its first worker's start)"


def _ungardened(state: State, found: Place, fresh: dict[str, str]) -> str:
    """Return for how many experiments Compute Gardener's own figures are not known."""
    if found.gate != GARDENER:
        return ""
    noted = {name.split("/")[1] for name in {**state.facts, **fresh} if name.startswith(f"{FACT}/")}
    missing = sum(bool(s.attempts) and s.experiment.id not in noted for s in state.standings.values())
    if not missing:
        return ""
    return (
        f"Compute Gardener's figures of {missing} of {len(state.standings)} experiments (it delayed none of their "
        "pods, or the pods were gone before they were collected)"
    )


def _check_strangers(volume: Volume, source: str) -> None:
    """Raise `SpecError` if a volume holds attempts that a spec cannot have rendered: it may be the wrong one."""
    if names := volume.strangers:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise SpecError(
            f"{source} holds stints/{names[0]}{more}, of no experiment of this spec; is it the one that was rendered?",
            remedy="give that spec, or move those folders away",
        )


def _of_attempts(volume: Volume, left: Mapping[str, str]) -> list[str]:
    """Return the warnings on attempts that were left out, and on those whose beginning is known by other files."""
    warnings = [f"stints/{name} on the volume was left out: {why}" for name, why in left.items()]
    warnings += [f"stints/{one.name}: {one.note}" for one in volume.begun if one.note]
    if undated := sum(one.undated for one in volume.begun):
        warnings.append(
            f"{undated} of {len(volume.begun)} attempts began before their files were written: the files' times are "
            "those of a copy, and when attempts began is known by their lines alone"
        )
    return warnings


def _strangers(volume: Volume) -> list[str]:
    """Return the warning on attempts of other experiments."""
    names = volume.strangers
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"stints/{names[0]}{more} on the volume: of no experiment of this spec, left out"] if names else []


def _published(state: State, shelf: Shelf, place: RunFolder) -> list[str]:
    """Bring finished adapters and publish them; return which could not be had."""
    publisher, warnings = Publisher(shelf.store), []
    for id, standing in state.standings.items():
        adapter = standing.outcome.adapter if standing.status == "done" and standing.outcome else None
        if adapter is None or (shelf.store / "experiments" / id / "adapter").exists():
            continue
        try:
            shelf.bring(adapter)
            publisher.put(id, adapter)
        except ExecutorError as error:
            warnings.append(f"the adapter of {id}: {error}")
    return warnings
