"""Asking something of a sweep, from another process than the one that drives it."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gridsweep.errors import GridsweepError, LeaseError, SpecError, StorageError
from gridsweep.executors.local import WORKER
from gridsweep.records import requests
from gridsweep.records.bounded import UnfitError
from gridsweep.records.disk import AGAIN, DISK
from gridsweep.records.lease import holder
from gridsweep.records.origins import check_driven_here
from gridsweep.records.process import Process, seen, suspended, tell
from gridsweep.records.requests import Found, Request
from gridsweep.runs.amendments import amendments
from gridsweep.runs.desk import added, judged
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import run
from gridsweep.schedule.capacity import check_remaining
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked
from gridsweep.sweep.counting import counted
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.sweep import Sweep

ANSWER_PATIENCE = 10.0
"""Seconds that a run has to take a request; the loop looks five times a second, unless a provider keeps it waiting."""
FROZEN_PATIENCE = 10.0
"""Seconds after which a run that is suspended is not waited for."""
STOP_PATIENCE = 180.0
"""Seconds that a run has to save and end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: `waiting` in the folder, because nothing drives the sweep or it is busy, or `taken`."""

    id: str
    answer: Literal["taken", "waiting"]
    asked: Asked | None
    driven: bool
    state: State


def ask(folder: str | Path, request: Request) -> Answer:
    """Leave a request in a run's folder, and wait for its answer while a run drives it.

    Raise `SpecError` if the request was refused, would be refused by the next run, or cannot be left.
    """
    place = RunFolder(Path(folder))
    check_driven_here(place.state)
    state = place.read()
    driver = holder(place.state)
    if driver is None and not requests.left(place.state):  # what waits may change what fits
        now = datetime.now(UTC)
        found = Found("", requests.name_of(os.geteuid()), now, request)
        told = judged(state, found, state.now or state.submitted_at if state.sweep.replay else now, now)[0]
        if isinstance(told, Asked) and told.refused and request.what != "stop":
            raise SpecError(f"refused: {told.refused}")
    id = _leave(place, request)
    taken = driver is not None and _taken(place, id, driver)
    state = place.read()
    asked = state.asks.taken.get(id)
    if asked is not None and asked.refused:
        raise SpecError(f"refused: {asked.refused}")
    return Answer(id, "taken" if taken and asked else "waiting", asked, driver is not None, state)


def to_add(state: State, spec: Sweep) -> tuple[Request, tuple[str, ...]]:
    """Return the request for what a spec has and a sweep has not, and notes on what stays as it is.

    Experiments of the sweep that the spec does not have stay. Raise `SpecError` for a change that is not allowed.
    """
    sweep, notes = state.sweep, []
    there = {e.id for e in spec.experiments}
    new = tuple(e for e in spec.experiments if e.id not in state.standings)
    moved = tuple(
        replace(state.standings[e.id].experiment, tier=e.tier, reason=e.reason)
        for e in spec.experiments
        if _moved(e, state)
    )
    kept = replace(spec, rungs=sweep.rungs, baseline=sweep.baseline, name=sweep.name, experiments=moved)
    if spec.rungs != sweep.rungs:
        notes.append("the rungs stay as they were submitted")
    own = {e.id for event in state.additions for e in event.experiments if not event.request}
    if gone := len(state.standings.keys() - there - own):
        notes.append(f"the spec lacks {counted(gone, 'experiment')} of the sweep: kept; `gridsweep cancel` ends one")
    request = Request("add", datetime.now(UTC), sweep=kept, added=new)
    now = state.now or state.submitted_at if sweep.replay else datetime.now(UTC)
    check_remaining(state, replace(kept, experiments=sweep.experiments), new, now)
    amendments(sweep, replace(kept, experiments=sweep.experiments))  # refused at once, and by the run again
    added(state, request)
    return request, tuple(notes)


def _moved(experiment: Experiment, state: State) -> bool:
    """Return whether an experiment of the sweep has another tier, or another reason for it."""
    standing = state.standings.get(experiment.id)
    now = standing.experiment if standing else experiment
    return (now.tier, now.reason) != (experiment.tier, experiment.reason)


def stop(folder: str | Path, command: Sequence[str] = WORKER) -> State:
    """Stop the sweep in a folder at its checkpoints, whether a run drives it or only its workers are alive.

    The run is asked; it gets a signal if it has not answered in ten seconds. Raise `LeaseError` if it does not end
    within three minutes, or lives elsewhere and does not answer.
    """
    place = RunFolder(Path(folder))
    check_driven_here(place.state)
    place.read()
    driver = holder(place.state)
    if driver is None:
        if place.read().active:
            run(None, place.path, command=command, stop="stopped by gridsweep stop")
        return place.read()
    try:
        id = _leave(place, Request("stop", datetime.now(UTC)))
        asked = _taken(place, id, driver)
    except GridsweepError:  # a full disk does not keep a signal away
        id, asked = "", False
    if not asked:
        if seen(driver) == "elsewhere":
            raise LeaseError(
                f"{driver.where} drives {folder} from another machine or container; it was asked to stop and has not "
                "answered yet; stop it there"
            )
        tell(driver, signal.SIGTERM)
        gone = _until(lambda: holder(place.state) != driver, time.monotonic() + FROZEN_PATIENCE)
        if not gone and suspended(driver):
            raise LeaseError(
                f"{driver.where} drives {folder} and is suspended, so that it cannot end; "
                f"`kill -CONT {driver.pid}` lets it, and it stops then"
            )
    end = time.monotonic() + STOP_PATIENCE
    if not _until(lambda: holder(place.state) != driver, end):
        raise LeaseError(f"{driver.where} was asked to stop {folder} and still runs; its workers may be saving")
    if id:
        _file(place, id).unlink(missing_ok=True)  # answered by a signal: the next run is not meant
    return place.read()


def _leave(place: RunFolder, request: Request) -> str:
    try:
        return requests.leave(place.state, request)
    except UnfitError as error:
        raise SpecError(str(error), remedy="put that right, or ask for less at once") from None
    except OSError as error:
        if error.errno in DISK - {errno.EACCES, errno.EPERM}:
            raise StorageError(f"cannot write in {place.state}: {error.strerror}", remedy=AGAIN) from None
        raise SpecError(
            f"cannot write in {place.state}: {error.strerror}; ask as the user who runs the sweep"
        ) from None


def _taken(place: RunFolder, id: str, driver: Process) -> bool:
    """Wait until a request is taken, at most `ANSWER_PATIENCE`; return whether it was."""
    file = _file(place, id)
    end = time.monotonic() + ANSWER_PATIENCE
    return _until(lambda: not file.exists() or holder(place.state) != driver, end) and not file.exists()


def _until(true: Callable[[], bool], end: float) -> bool:
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _file(place: RunFolder, id: str) -> Path:
    return requests.folder_of(place.state) / (id + requests.SUFFIX)
