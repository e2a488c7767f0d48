"""The loop that drives a sweep, and the interfaces that it needs.

`drive` takes a clock, a provider and an executor, real or simulated, and treats both alike. The loop is synchronous
and level-triggered: observe, fold, decide, journal, act, wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from gridsweep.carbon.readings import Reading
from gridsweep.carbon.traces import Trace
from gridsweep.policy.situation import Policy
from gridsweep.schedule.asking import over
from gridsweep.schedule.step import step, wake_at
from gridsweep.selection.joining import added
from gridsweep.selection.proposers import Proposers
from gridsweep.selection.rung_decisions import ranked
from gridsweep.state.events import Event
from gridsweep.state.observations import answered, observed
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked
from gridsweep.sweep.sweep import Sweep


class Journal(Protocol):
    """A store of facts; a list is enough. It raises before the loop acts if it can no longer hold any."""

    def extend(self, events: Iterable[Event], /) -> object: ...


class Provider(Protocol):
    """Reads the grid."""

    def read(self, now: datetime) -> Reading: ...


class Executor(Protocol):
    """Starts, stops and observes workers; keeps no state.

    `observe` returns the events since the last fold. `act` makes the world match the state: it starts requested
    attempts, tells pausing attempts to pause, and publishes finished ones; calling it again changes nothing.
    """

    def observe(self, state: State, now: datetime) -> Sequence[Event]: ...

    def act(self, state: State) -> None: ...


class World(Protocol):
    """A clock with its provider and executor. Time passes only in `wait`, which returns early if a worker ends.

    `clock` returns facts about the clock itself, to be journaled. `silences` returns how long each attempt has been
    silent, or None if the world's own time measures silence.
    """

    @property
    def provider(self) -> Provider: ...

    @property
    def executor(self) -> Executor: ...

    def now(self) -> datetime: ...

    def clock(self, state: State) -> Sequence[Event]: ...

    def silences(self, state: State) -> Mapping[str, timedelta] | None: ...

    def wait(self, until: datetime, state: State) -> None: ...


class Desk(Protocol):
    """Where users ask something of a sweep while it runs.

    `take` returns new requests, and what follows from them, as facts; `answered` is told once they are journaled.
    `called` returns whether more wait.
    `chosen` returns policy and proposers for a sweep that was changed.
    """

    def take(self, state: State, now: datetime) -> Sequence[Event]: ...

    def answered(self) -> None: ...

    def called(self) -> bool: ...

    def chosen(self, sweep: Sweep) -> tuple[Policy, Proposers | None]: ...


def nothing(state: State, events: Sequence[Event]) -> None:
    """Do nothing: the default listener."""


def record(state: State, journal: Journal, events: Sequence[Event]) -> None:
    """Fold facts, then journal them, before anything acts on them: no fact is journaled that cannot be folded.

    Without facts the journal is asked all the same whether it is still there.
    """
    for event in events:
        state.apply(event)
    journal.extend(events)


def drive(
    state: State,
    journal: Journal,
    world: World,
    policy: Policy,
    *,
    proposers: Proposers | None = None,
    stop: Callable[[], str] = lambda: "",
    tell: Callable[[State, Sequence[Event]], None] = nothing,
    desk: Desk | None = None,
    rest: Callable[[], None] = lambda: None,
) -> State:
    """Drive a submitted sweep until no attempt runs and none may start; return its state.

    `proposers` builds the proposer that suggests new points. `stop` returns the reason to stop, "" for none. `tell`
    receives every event after it is folded. `rest` is called before each wait. Users ask at the `desk`; without one
    nobody can.
    """

    def commit(events: Sequence[Event]) -> None:
        record(state, journal, events)
        if events:
            tell(state, events)

    shown: Trace | None = None
    while True:
        commit(world.clock(state))
        now = world.now()
        commit(world.executor.observe(state, now))
        reading = world.provider.read(now)
        if reading.history is not shown:  # most readings show the same slots as the last one
            commit(observed(state, reading, now))
            shown = reading.history
        commit(answered(state, reading, now))
        if desk is not None:
            commit(asked := desk.take(state, now))
            desk.answered()
            if any(isinstance(event, Asked) and event.changes for event in asked):
                policy, proposers = desk.chosen(state.sweep)
        commit(over(state, now))
        commit(ranked(state, now))
        commit(added(state, now, proposers))
        commit(step(state, policy, reading, now, stop(), world.silences(state)))
        commit(world.clock(state))
        world.executor.act(state)
        if state.finished:
            if desk is None or not desk.called() or state.stopping or state.halted:
                return state
            continue  # the sweep ends only after all that was asked is answered
        rest()
        world.wait(wake_at(state, now), state)
