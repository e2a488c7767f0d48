"""Real runs: a folder with its lease and journal, a live or replayed world, and the report at the end.

runs/<sweep>/state/   journal.db  lease  sweep.yaml  report.html  report.md  report.json
runs/<sweep>/store/   stints/     experiments/<id>/adapter
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.errors import (
    DEADLINE,
    DONE,
    EXECUTOR,
    INTERRUPTED,
    SIGNALLED,
    SOME_FAILED,
    UNFINISHED,
    USAGE,
    ExecutorError,
    GridsweepError,
    MovedError,
    SpecError,
    TraceError,
)
from gridsweep.executors.environment import added
from gridsweep.executors.local import WORKER, Local
from gridsweep.executors.registry import executor_for
from gridsweep.executors.workers import Workers, let_go, reach
from gridsweep.grid.registry import provider_for
from gridsweep.loop import Provider, drive, nothing, record
from gridsweep.records import codec
from gridsweep.records.disk import storing
from gridsweep.records.files import replace_file
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.records.looks import Look
from gridsweep.records.origins import check_driven_here
from gridsweep.runs.amendments import amendments, as_submitted
from gridsweep.runs.desk import Desk
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.glances import Keeper
from gridsweep.runs.interrupt import CTRL_C, Interrupt
from gridsweep.runs.looking import fingerprinted, seen
from gridsweep.runs.worlds import Following, Live, Replayed
from gridsweep.schedule.capacity import check_deadline
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.gate import beside, comparable, gated
from gridsweep.simulation.promises import MOST, promise, promised
from gridsweep.state.events import Event, Promised, Resumed, Submitted
from gridsweep.state.overdue import overdue
from gridsweep.state.state import State
from gridsweep.sweep.constants import ENCODING
from gridsweep.sweep.sweep import Sweep

PATIENCE = timedelta(minutes=10)
"""Longest silence of a worker before it is stopped."""


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a run: its folder, its report, and its exit code."""

    folder: Path
    report: Report
    exit_code: int


def run(
    sweep: Sweep | None,
    folder: str | Path | None = None,
    *,
    tell: Callable[[State, Sequence[Event]], None] = nothing,
    command: Sequence[str] = WORKER,
    stop: str = "",
    noticed: Callable[[str], None] = lambda _: None,
) -> Run:
    """Run a sweep on this machine, or resume the one in the folder; return when it is done or was stopped.

    With `sweep` None, the run resumes the sweep in the journal. `command` starts a worker on an attempt folder. `stop`
    is a reason to stop the running attempts and start no others. `noticed` gets lines on what happens before the
    start. Raise `LeaseError` while another run holds the folder.
    """
    place = _place(sweep, folder)
    interrupt = Interrupt(stop)
    with storing(place.path), lease(place.state) as epoch, interrupt.installed():
        at = datetime.now(UTC)
        state, keeper = State(), Keeper(place.journal)
        journal, executor = Journal(place.journal, epoch=epoch, fold=state.apply), None
        opened: list[Event] = []
        try:
            begun = opening(state, _as_submitted(state, sweep, noticed), journal.epoch or epoch)[0]
            provider = provider_for(begun.sweep.carbon)
            executor = executor_for(begun.sweep, place.store, command)
            ready(begun, provider, executor, command)
            desk = Desk(place.state, at)
            trains = not stop and (state.left or not state.standings or sweep is not None or desk.called())
            look = _look(begun, state, command, noticed) if trains else None  # else nobody says over which data
            constants = fingerprinted(look, state, begun.at)
            opened = [begun, *constants, *the_promise(begun, provider)]
            record(state, journal, opened)
            tell(state, opened)
            keep_spec(place, state.sweep)
            world = world_for(state.sweep, provider, executor, interrupt.event)
            world.called = desk.called
            policy, proposers = desk.chosen(state.sweep)
            drive(
                state, journal, world, policy, proposers=proposers, stop=interrupt, tell=tell, desk=desk,
                rest=lambda: keeper.rested(state, journal.end),
            )  # fmt: skip
        except MovedError:
            _abandon(executor)
            raise
        finally:
            journal.close()
            if not opened:
                place.discard_empty()
            if executor is not None:
                let_go(executor)
            if opened:
                keeper.rested(state, journal.end, last=True)
    return Run(place.path, compared(state), exit_code(state))


def _place(sweep: Sweep | None, folder: str | Path | None) -> RunFolder:
    """Return the folder of a run, before any file is created. Raise `SpecError` or `DeadlineError` if none may run."""
    if sweep is None and folder is None:
        raise SpecError("no sweep and no folder given; name one of them")
    place = RunFolder(Path(folder) if folder else Path("runs") / (sweep.name if sweep else ""))
    check_driven_here(place.state)
    if sweep is None:
        place.check_begun()
    elif place.empty():
        check_deadline(sweep, begin_of(sweep))
    return place


def _as_submitted(state: State, sweep: Sweep | None, noticed: Callable[[str], None]) -> Sweep | None:
    """Return the sweep to go on with, and say where its default rungs are those of an earlier version."""
    if sweep is None or not state.standings:
        return sweep
    kept, note = as_submitted(state.sweep, sweep)
    if note:
        noticed(note)
    return kept


def _abandon(executor: Workers | None) -> None:
    if isinstance(executor, Local):
        executor.abandon()


def _look(
    begun: Submitted | Resumed, state: State, command: Sequence[str], noticed: Callable[[str], None]
) -> Look | None:
    """Look at data and model, and say what is to be warned of."""
    noticed("looking at the model and the data ...")
    look = seen(begun.sweep, begun.at, command, state)
    for warning in look.warnings if look is not None else ():
        noticed(f"warning: {warning}")
    return look


def world_for(sweep: Sweep, provider: Provider, executor: Workers, interrupt: threading.Event) -> Live:
    """Return the world for a sweep: its clock with provider and executor."""
    if sweep.replay is None:
        return Live(provider, executor, interrupt)
    kind = Following if sweep.follows_work else Replayed
    return kind(sweep.replay, provider, executor, interrupt)


def ready(opened: Submitted | Resumed, provider: Provider, executor: Workers, command: Sequence[str]) -> None:
    """Check for errors that would fail the run at once.

    Raise `TraceError` if the trace does not cover the start, `ExecutorError` if the trainer or the executor is missing,
    `DeadlineError` if the deadline cannot be met, `SpecError` if `env` refers to a variable that is not set.
    """
    local = opened.sweep.executor.name == "local"
    if local and tuple(command) == WORKER and find_spec("torch") is None:
        raise ExecutorError("training needs the extra `train`; pip install 'gridsweep[train]'")
    if local:
        added(os.environ, opened.sweep)
    if isinstance(opened, Resumed):
        return
    check_deadline(opened.sweep, opened.at)
    reach(executor)
    reading = provider.read(opened.at)
    level = reading.history.at(opened.at)
    if level != level and reading.freshness == "live":
        raise TraceError(
            f"{reading.provenance.title} has no data at {opened.at:%Y-%m-%d %H:%M} UTC, the start of the sweep; "
            "replay a time that it covers (`clock: {replay: {from: ..., speed: ...}}`), or use `file: solar-valley`"
        )


def keep_spec(place: RunFolder, sweep: Sweep) -> None:
    """Write the spec beside the journal for users; no code reads it. Raise `ExecutorError` if it cannot be written."""
    try:
        replace_file(place.state / "sweep.json", codec.dumps(sweep, indent=1))
    except OSError as error:
        raise ExecutorError(
            f"cannot write in {place.state}: {error.strerror}; fix this and run again (no result is lost)"
        ) from None


def opening(state: State, sweep: Sweep | None, epoch: int) -> list[Submitted | Resumed]:
    """Return the first event of a run: submitted or resumed. Raise `SpecError` for a change that is not allowed."""
    if not state.standings:
        assert sweep is not None
        speed = sweep.clock_speed
        return [Submitted(begin_of(sweep), sweep, PATIENCE * speed, ENCODING)]
    if state.collected is not None:
        raise SpecError(f"the folder was collected from {state.collected.source}; run the sweep in another folder")
    now = state.now or state.submitted_at
    if not state.sweep.replay:
        now = max(now, datetime.now(UTC))
    added = {experiment.id for addition in state.additions for experiment in addition.experiments}
    changes = tuple(amendments(state.sweep, sweep or state.sweep, added))
    return [Resumed(now, epoch, sweep or state.sweep, changes)]


def begin_of(sweep: Sweep) -> datetime:
    """Return the moment of a submission made now: the start of the replay, if the clock is replayed."""
    return sweep.replay.start if sweep.replay else datetime.now(UTC)


def the_promise(opened: Submitted | Resumed, provider: Provider) -> list[Promised]:
    """Return the plan's promise at a submission, to be journaled with it; empty if unknown, or on a resume."""
    if isinstance(opened, Resumed):
        return []
    made = promised(opened.sweep, provider.read(opened.at), opened.at)
    return [made] if made else []


def exit_code(state: State) -> int:
    """Return the exit code of a run that ended in this state."""
    if state.halted:
        return USAGE if state.refused else EXECUTOR
    if state.stopping and state.left:
        return INTERRUPTED if state.stopping == CTRL_C else SIGNALLED
    if state.left:
        return UNFINISHED
    if state.count("failed"):
        return SOME_FAILED
    return DEADLINE if overdue(state) else DONE


def summarize(state: State) -> Report:
    """Return the report of a state: its ledger, the replay of running at once, and the plan's promise."""
    book, other = ledger(state), baseline(state)
    return make_report(state, book, other, promise(state, book, other))


def compared(state: State) -> Report:
    """Return the report of a state; if a trace covers it, also compare with the gate of the tiers."""
    made = summarize(state)
    if not comparable(state):
        return made
    if len(state.standings) > MOST:
        why = f"Not compared with the gate of the tiers: more than {MOST} experiments are too many for a report."
        return replace(made, notes=(*made.notes, why))
    try:
        other = gated(state, provider_for(state.sweep.carbon))
    except GridsweepError:
        return made  # the trace is gone; the rest of the report needs only the journal
    return replace(made, alternatives=beside(made, other))


def report(folder: str | Path) -> Report:
    """Return the report of the sweep in a folder, as of now."""
    return compared(RunFolder(Path(folder)).read())
