"""The loop that drives a sweep, and all it asks of a world.

`drive` is handed a clock, a provider and an executor and never asks whether they are real. It is synchronous and
level-triggered: observe, fold, decide, journal, act, wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from gridsweep.carbon.readings import Reading
from gridsweep.carbon.traces import Trace
from gridsweep.policy.situation import Policy
from gridsweep.schedule.step import step, wake_at
from gridsweep.selection.joining import added
from gridsweep.selection.proposers import Proposers
from gridsweep.selection.rung_decisions import ranked
from gridsweep.state.events import Event
from gridsweep.state.observations import answered, observed
from gridsweep.state.state import State


class Journal(Protocol):
    """Where facts are kept; a list will do."""

    def extend(self, events: Iterable[Event], /) -> object: ...


class Provider(Protocol):
    """Reads the grid."""

    def read(self, now: datetime) -> Reading: ...


class Executor(Protocol):
    """Starts, stops and observes workers; keeps no state.

    `observe` returns what is new since the state was folded. `act` makes the world match the state: requested attempts
    run, pausing ones are told, finished ones are published; doing it again changes nothing.
    """

    def observe(self, state: State, now: datetime) -> Sequence[Event]: ...

    def act(self, state: State) -> None: ...


class World(Protocol):
    """A clock with what it governs. `wait` is the only place where time passes; it returns early when a worker ends.

    `clock` returns facts about the clock itself that are to be journaled, given what is known. `silences` says how long
    each attempt has been silent; None where the world's own time tells it.
    """

    @property
    def provider(self) -> Provider: ...

    @property
    def executor(self) -> Executor: ...

    def now(self) -> datetime: ...

    def clock(self, state: State) -> Sequence[Event]: ...

    def silences(self, state: State) -> Mapping[str, timedelta] | None: ...

    def wait(self, until: datetime, state: State) -> None: ...


def nothing(state: State, events: Sequence[Event]) -> None:
    """The listener of whom nobody listens to."""


def drive(
    state: State,
    journal: Journal,
    world: World,
    policy: Policy,
    *,
    proposers: Proposers | None = None,
    stop: Callable[[], str] = lambda: "",
    tell: Callable[[State, Sequence[Event]], None] = nothing,
) -> State:
    """Drive a submitted sweep until nothing runs and nothing may start any more; returns its state.

    `proposers` makes whoever is asked for points that join the sweep. `stop` says who asked to stop, "" while nobody
    has. `tell` hears of every event after it is folded.
    """

    def commit(events: Sequence[Event]) -> None:
        if events:
            journal.extend(events)  # a fact is written before the act it announces
            for event in events:
                state.apply(event)
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
        commit(ranked(state, now))
        commit(added(state, now, proposers))
        commit(step(state, policy, reading, now, stop(), world.silences(state)))
        commit(world.clock(state))
        world.executor.act(state)
        if state.finished:
            return state
        world.wait(wake_at(state, now), state)
