"""The state of a sweep: an incremental fold over its events. Same events, same state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any  # Any: a fold takes its own kind of event

from gridsweep.carbon.readings import Freshness
from gridsweep.carbon.traces import Trace
from gridsweep.errors import JournalError
from gridsweep.state.asks import Asks
from gridsweep.state.collected import Collected, take
from gridsweep.state.constants import Constants
from gridsweep.state.events import (
    Added,
    Answered,
    ClockAnchored,
    Decided,
    Ended,
    Event,
    Halted,
    Held,
    Lost,
    Observed,
    Paused,
    Pausing,
    Progressed,
    Promised,
    Ranked,
    Requested,
    Resumed,
    Reverted,
    Running,
    Settled,
    Stopping,
    Submitted,
)
from gridsweep.state.observed_grid import Grid
from gridsweep.state.standings import ALIVE, Attempt, Change, Standing, Status
from gridsweep.state.wishes import Asked
from gridsweep.sweep.stints import device_named
from gridsweep.sweep.sweep import Sweep


class State:
    """Everything known of a sweep after some events; `apply` adds the next one."""

    sweep: Sweep
    submitted_at: datetime

    def __init__(self, events: Iterable[Event] = ()):
        self.standings: dict[str, Standing] = {}
        self.attempts: dict[str, Attempt] = {}
        self.active: dict[str, Attempt] = {}
        self.tries: dict[str, int] = {}
        self.anchors: list[ClockAnchored] = []
        self.patience: timedelta | None = None
        self.now: datetime | None = None
        self.epoch = self.folded = 0  # folded: the number of events
        self.amendments: list[Resumed] = []
        self.promised: Promised | None = None
        self.stopping: str = ""
        self.halted: str = ""
        self.refused = False  # halted because of what the sweep asks for
        self.storage = ""  # why the disk of a worker that this run started could not be used
        self.adopted: frozenset[str] = frozenset()  # attempts that ran when this run began
        self.constants = Constants()
        self.facts: dict[str, str] = {}
        self.grid = Grid()
        self.rankings: list[Ranked] = []
        self.additions: list[Added] = []
        self.foreseen: tuple[Added, ...] | None = None  # replaying the past: its additions
        self.asks = Asks()
        self.collected: Collected | None = None  # other components start its jobs
        self.settled: Grid | None = None
        self.settled_at: datetime | None = None
        self.answers: list[Answered] = []
        self.paces: list[float] = []  # measured over estimated time of each completed stint, at speed 1
        self.early_losses: list[tuple[tuple[str, ...], str]] = []  # consecutive attempts: their experiments, the reason
        self.changes: dict[Change, int] = {"sweep": 0, "work": 0, "pace": 0}
        for event in events:
            self.apply(event)

    @property
    def history(self) -> Trace:
        """The observed grid, gCO2eq/kWh."""
        return self.grid.trace(self.submitted_at)

    @property
    def freshness(self) -> Freshness:
        """The freshness of the grid's latest answer."""
        return self.answers[-1].rung if self.answers else "live"

    @property
    def finished(self) -> bool:
        """Whether nothing runs, and nothing waits to run (or nothing may start any more)."""
        to_come = {event.request for event in self.foreseen or ()} - {"", *(event.request for event in self.additions)}
        if self.active or to_come:
            return False
        left = any(standing.status in ("waiting", "reached") for standing in self.standings.values())
        return bool(self.stopping or self.halted) or not left

    @property
    def left(self) -> int:
        """The number of experiments that have not ended."""
        return sum(standing.status in ALIVE for standing in self.standings.values())

    def start_of(self, experiment: str) -> datetime | None:
        """Return when an experiment's first worker started, loading included; None before that."""
        starts = (self.attempts[id].started_at for id in self.standings[experiment].attempts)
        return next((start for start in starts if start is not None), None)

    def count(self, status: Status) -> int:
        return sum(standing.status == status for standing in self.standings.values())

    def grid_time(self, wall: datetime) -> datetime:
        """Return the grid time at a wall time, by the anchors; the wall time itself without anchors."""
        for anchor in reversed(self.anchors):
            if anchor.wall <= wall or anchor is self.anchors[0]:
                return anchor.at + (wall - anchor.wall) * anchor.speed
        return wall

    def apply(self, event: Event) -> None:
        """Add one event. Raise `JournalError` if it does not fit to those before; then this state is of no more use."""
        self.folded += 1
        try:
            if self.now is None or event.at > self.now:
                self.now = event.at
            _FOLDS[event.kind](self, event)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise JournalError(
                f"event {self.folded}: {event.kind} does not fit to those before it ({type(error).__name__}: {error})"
            ) from error

    def _changed(self, *what: Change) -> None:
        for each in what:
            self.changes[each] += 1

    # -- the grid

    def _observed(self, event: Observed) -> None:
        self.grid.take(event)

    def _answered(self, event: Answered) -> None:
        self.answers.append(event)

    def _settled(self, event: Settled) -> None:
        if event.at != self.settled_at:  # a new settlement replaces the last one
            self.settled, self.settled_at = Grid(), event.at
        assert self.settled is not None
        self.settled.take(event)

    def _anchored(self, event: ClockAnchored) -> None:
        self.anchors.append(event)

    # -- the sweep

    def _submitted(self, event: Submitted) -> None:
        self.sweep, self.submitted_at, self.patience = event.sweep, event.at, event.patience
        self.constants.encoding = event.encoding
        self.standings = {e.id: Standing(e, event.at) for e in event.sweep.experiments}
        self._changed("sweep", "work")

    def _promised(self, event: Promised) -> None:
        self.promised = event

    def _resumed(self, event: Resumed) -> None:
        for experiment in event.sweep.experiments:
            self.standings[experiment.id].experiment = experiment
        joined = tuple(standing.experiment for standing in self.standings.values())
        self.sweep, self.epoch = replace(event.sweep, experiments=joined), event.epoch
        if event.changes:
            self.amendments.append(event)
        if self.halted:  # the cause is taken as fixed: experiments that failed with all others run again
            for standing in self.standings.values():
                if standing.status == "failed" and standing.outcome is None:
                    standing.status, standing.fruitless, standing.ended_at = "waiting", 0, None
        self.stopping = self.halted = self.asks.stop = ""
        self.refused, self.constants.refusal, self.storage = False, "", ""
        self.early_losses.clear()
        self.adopted = frozenset(self.active)
        self._changed("sweep", "work", "pace")

    def _stopping(self, event: Stopping) -> None:
        self.stopping = event.why

    def _halted(self, event: Halted) -> None:
        self.halted, self.refused = event.why, event.refused

    def _decided(self, event: Decided) -> None:
        standing = self.standings[event.experiment]
        standing.until, standing.why = event.until, event.why

    def _ranked(self, event: Ranked) -> None:
        self.rankings.append(event)
        stopped, kept = set(event.stopped), set(event.kept)
        for standing in self.standings.values():
            if standing.experiment.id in stopped:
                standing.status, standing.reason, standing.ended_at = "stopped", event.why, event.at
            elif standing.status == "reached" and standing.experiment.id in kept:
                standing.status, standing.ready_at = "waiting", event.at
        self._changed("work")

    def _added(self, event: Added) -> None:
        self.additions.append(event)
        self.sweep = replace(self.sweep, experiments=(*self.sweep.experiments, *event.experiments))
        self.standings |= {e.id: Standing(e, event.at) for e in event.experiments}
        self._changed("sweep", "work")

    def _asked(self, event: Asked) -> None:
        self.sweep = self.asks.take(event, self.sweep, self.standings)
        self._changed("sweep", "work")

    # -- attempts

    def _requested(self, event: Requested) -> None:
        attempt = Attempt(event.attempt, event.stint, event.device, event.why, event.due, event.at, seen_at=event.at)
        attempt.step = attempt.kept_step = min(m.from_step for m in event.stint.members)
        self.attempts[event.attempt] = self.active[event.attempt] = attempt
        self.tries[event.stint.id] = self.tries.get(event.stint.id, 0) + 1
        for member in event.stint.members:
            standing = self.standings[member.experiment]
            if self.start_of(member.experiment) is None:
                standing.latest_start = standing.submitted_at + self.sweep.tier(standing.experiment.tier).max_delay
            standing.status = "running"
            standing.until, standing.why = None, event.why
            standing.attempts.append(event.attempt)
        self.asks.started(member.experiment for member in event.stint.members)
        self._changed("work")

    def _held(self, event: Held) -> None:
        attempt = self.active[event.attempt]
        attempt.held = f"{event.by}: {event.why}" if event.why else ""  # an empty reason ends the hold
        attempt.seen_at = event.at  # silence is counted from here, since a held attempt cannot report
        if attempt.running_at is None:
            attempt.held_back = attempt.held_back or bool(event.why)
            attempt.let_go_at = None if event.why else event.at

    def _running(self, event: Running) -> None:
        attempt = self.attempts[event.attempt]
        attempt.running_at, attempt.held = event.at, ""
        attempt.seen_at = event.at
        for member in attempt.stint.members:
            standing = self.standings[member.experiment]
            standing.first_running_at = standing.first_running_at or event.at

    def _progressed(self, event: Progressed) -> None:
        attempt = self.attempts[event.attempt]
        if event.seq <= attempt.seq:
            return
        attempt.seq, attempt.step, attempt.cursor, attempt.seen_at = event.seq, event.step, event.cursor, event.at
        if attempt.first_told is None and event.step > min(m.from_step for m in attempt.stint.members):
            attempt.first_told = event.step, event.at
        attempt.energy.extend(event.energy)
        attempt.over_at, attempt.clock = event.over_at or attempt.over_at, event.clock
        if len(self.paces) < 2:  # until stints have completed, the first steps tell the pace
            self._changed("work", "pace")
        for id, loss in event.losses.items():
            self.standings[id].loss = loss

    def _pausing(self, event: Pausing) -> None:
        attempt = self.active[event.attempt]
        attempt.pausing_since = attempt.pausing_since or event.at
        attempt.reason, attempt.killed = event.why, attempt.killed or event.kill

    def _closed(self, event: Ended | Paused) -> None:
        attempt = self._close(event)
        if isinstance(event, Ended):
            self.facts.update(event.facts)
            whole = min(m.from_step for m in attempt.stint.members) == 0  # a resumed stint also spent time loading
            if whole and attempt.running_at and attempt.stint.steps > 0 and event.at > attempt.running_at:
                speed = device_named(self.sweep.devices, attempt.device).speed
                self._changed("pace")
                expected = self.sweep.taken(attempt.stint.members)
                if expected > timedelta(0) and not self.sweep.follows_work:  # otherwise it takes the estimate
                    self.paces.append((event.at - attempt.running_at) * speed / expected)
        self.early_losses.clear()
        for outcome in event.outcomes:
            self.standings[outcome.experiment].take(attempt, outcome, event.at)
        self.asks.settle(self.standings, (outcome.experiment for outcome in event.outcomes), event.at)

    def _lost(self, event: Lost) -> None:
        attempt = self._close(event)
        attempt.reason = event.why
        kept = {checkpoint.experiment: checkpoint for checkpoint in event.checkpoints}
        told = bool(attempt.pausing_since) and not attempt.killed  # asked to stop: not a failure
        if self.sweep.follows_work:
            early = attempt.step <= min(m.from_step for m in attempt.stint.members)  # lost before its first step
        else:
            minute = timedelta(minutes=1) * self.sweep.clock_speed
            early = event.at - attempt.requested_at <= minute
        early = early and not attempt.pausing_since
        counts, fruits = not told and not event.refused and not event.storage, False
        for member in attempt.stint.members:
            standing = self.standings[member.experiment]
            fruits |= standing.lose(attempt, kept.get(member.experiment), event.why, event.at, counts=counts)
        if event.refused:
            self.constants.refusal = event.why
        if event.storage and event.attempt not in self.adopted:  # else the disk may be well by now
            self.storage = event.why
        self.asks.settle(self.standings, (member.experiment for member in attempt.stint.members), event.at)
        if early and not fruits:
            self.early_losses.append((tuple(m.experiment for m in attempt.stint.members), event.why))
        elif not told:
            self.early_losses.clear()

    def _close(self, event: Ended | Paused | Lost) -> Attempt:
        attempt = self.active.pop(event.attempt)
        attempt.ended_at = event.at
        attempt.end = "ended" if isinstance(event, Ended) else "paused" if isinstance(event, Paused) else "lost"
        self._changed("work")
        return attempt

    def _reverted(self, event: Reverted) -> None:
        self.standings[event.experiment].revert(event.checkpoint)
        self.early_losses.clear()
        self._changed("work")


_FOLDS: dict[str, Callable[[State, Any], None]] = {
    "Submitted": State._submitted,
    "Fingerprinted": lambda state, event: state.constants.take(event),
    "Promised": State._promised,
    "Resumed": State._resumed,
    "Observed": State._observed,
    "Answered": State._answered,
    "Settled": State._settled,
    "Requested": State._requested,
    "Held": State._held,
    "Running": State._running,
    "Progressed": State._progressed,
    "Pausing": State._pausing,
    "Ended": State._closed,
    "Paused": State._closed,
    "Lost": State._lost,
    "Reverted": State._reverted,
    "Decided": State._decided,
    "Ranked": State._ranked,
    "Added": State._added,
    "Asked": State._asked,
    "Collected": take,
    "Stopping": State._stopping,
    "Halted": State._halted,
    "ClockAnchored": State._anchored,
}
