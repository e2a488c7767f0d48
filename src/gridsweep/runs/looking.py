"""A look at a sweep's data and model before anything waits, by the worker's own code in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TypeVar

from gridsweep.errors import ExecutorError, HubError, SpecError, printable
from gridsweep.executors.assigning import assigned
from gridsweep.executors.environment import passed
from gridsweep.executors.local import WORKER
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.records.looks import ELSEWHERE, HERE, TOLD_BY_THE_FIRST, Look
from gridsweep.state.events import Fingerprinted
from gridsweep.state.state import State
from gridsweep.sweep.axes import shared_of
from gridsweep.sweep.constants import ENCODING, check_constant
from gridsweep.sweep.experiments import Experiment, is_local
from gridsweep.sweep.stints import Member, memory_beside
from gridsweep.sweep.sweep import Sweep

LOOK_SECONDS = 1800.0
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
T = TypeVar("T")
NEEDED = ("torch", "transformers", "datasets")


def looked(sweep: Sweep, at: datetime, command: Sequence[str] = WORKER, *, encoding: int = ENCODING) -> Look | None:
    """Return what can be seen of a sweep's data and model; None if another program than ours trains it.

    Without the extra `train` nothing can be seen, and the look says so. Raise `ExecutorError` if the look itself fails.
    """
    if tuple(command) != WORKER:
        return None
    if sweep.executor.name != "local" and (away := _away(sweep)):
        return Look(unseen=dict.fromkeys(TOLD_BY_THE_FIRST, f"{away} is read where the workers are"))
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        why = f"{missing[0]} is not installed here (pip install 'gridsweep[train]')"
        return Look(unseen=dict.fromkeys(TOLD_BY_THE_FIRST, why))
    asked = replace(_look_at(sweep), encoding=encoding, submitted=at.replace(hour=0, minute=0, second=0, microsecond=0))
    return _printable(answer(Look, "gridsweep.train.look", asked, sweep))


def answer(kind: type[T], program: str, asked: Assignment, sweep: Sweep) -> T:
    """Return what a program of ours answers to an assignment, in a process of its own without what workers do not get.

    Raise `ExecutorError` if it fails, takes too long, or a signal ends it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", program],
            input=codec.dumps(asked),
            env=passed(os.environ, sweep),
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
            check=False,
        )
        return codec.loads(kind, done.stdout)
    except subprocess.TimeoutExpired:
        raise ExecutorError(f"looking at {sweep.model.id} and {sweep.dataset.id} took half an hour") from None
    except ValueError:
        if done.returncode < 0:
            raise _interrupted(-done.returncode) from None
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExecutorError(
            f"data and model could not be looked at: {words[-1][:500]}", remedy="run `gridsweep doctor`"
        ) from None


def _look_at(sweep: Sweep) -> Assignment:
    """Return what is to be looked at: for each kind of stint its largest experiment, and the sweep's own recipe."""
    largest: dict[object, Experiment] = {}
    for experiment in sorted(sweep.experiments, key=lambda e: e.params.r):
        largest[shared_of(experiment.params)] = experiment
    chosen = list(largest.values())
    whole = [Member(e.id, 0, sweep.total_of(e)) for e in chosen]
    smallest = min(sweep.devices, key=lambda device: device.memory_gb or inf)
    attempt = HERE if sweep.executor.name == "local" else ELSEWHERE
    made = assigned(sweep, attempt, smallest, whole)
    own = tuple(replace(part, recipe=sweep.recipe_of(e)) for part, e in zip(made.members, chosen, strict=True))
    beside = memory_beside(sweep.devices, smallest.name) if attempt == HERE else ()
    return replace(made, recipe=sweep.recipe, members=own, beside=beside)


def _printable(look: Look) -> Look:
    """Return a look whose texts, which quote data and model, hold nothing that a terminal would obey."""
    return replace(
        look,
        facts={name: printable(fact) for name, fact in look.facts.items()},
        first=tuple(replace(piece, text=printable(piece.text)) for piece in look.first),
        warnings=tuple(map(printable, look.warnings)),
    )


def _interrupted(number: int) -> ExecutorError:
    """Return the error for a look whose process a signal ended."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        remedy = "if memory ran out, look on a machine with more of it; else run the command again"
    else:
        remedy = "run the command again" if number in ENDING else "run `gridsweep doctor`"
    return ExecutorError(f"the look at data and model was interrupted by {name}", remedy=remedy)


def _away(sweep: Sweep) -> str:
    """Return the model or dataset that is on a path that only workers see; '' if there is none."""
    paths = [id for id in (sweep.model.id, sweep.dataset.id) if is_local(id)]
    return next((id for id in paths if not Path(id).expanduser().exists()), "")


def fingerprinted(look: Look | None, state: State, at: datetime) -> list[Fingerprinted]:
    """Return what a look adds to the constants of a sweep, to be journaled.

    Raise `SpecError` if anything differs from what the sweep began with. A folder of an earlier version has only the
    digest of its data, if a result told it.
    """
    if look is None:
        return []
    known = dict(state.constants.things)
    if not known and (digest := state.facts.get("dataset_digest")):
        known["training data"] = digest
    check_constant(known, look.constants)
    if state.standings and not look.constants.keys() - state.constants.things.keys():
        return []
    missing = tuple(name for name in look.unseen if name not in known)
    return [Fingerprinted(at, known | look.constants, "resume" if state.standings else "submission", missing)]


def seen(sweep: Sweep, at: datetime, command: Sequence[str], state: State) -> Look | None:
    """Return the look at a sweep that is submitted or resumed. Raise `SpecError` if a worker would refuse it.

    A sweep that is resumed keeps the commits that it began with, whatever its revisions name by now.
    """
    encoding, at = (state.constants.encoding, state.submitted_at) if state.standings else (ENCODING, at)
    look = looked(state.constants.pinned(sweep), at, command, encoding=encoding)
    if look is not None and look.error:
        error = SpecError(look.error)
        if state.standings:
            error.remedy = f"{error.remedy}, or if files moved, run a spec that names their place, with --folder"
            raise SpecError(error.what, where=error.where, remedy=error.remedy)
        raise error
    if look is not None and look.unreachable and sweep.executor.name == "local":
        raise HubError(look.unreachable)
    return look
