"""The worlds a sweep can be driven in: virtual, live, and replayed.

Each is a clock with a provider and an executor. Only here does time pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gridsweep.executors.workers import Workers
from gridsweep.loop import Provider
from gridsweep.state.events import ClockAnchored, Event
from gridsweep.state.state import State
from gridsweep.sweep.sweep import Replay

POLL_SECONDS = 0.2
LOOK_SECONDS = 30.0
"""A live world looks at its workers' files at least so often."""
JUMP = timedelta(minutes=1)
"""The wall clock may drift so far against the boot clock before the jump is journaled."""


class Live:
    """The wall clock and real workers. `interrupt` ends a wait early."""

    look_every = LOOK_SECONDS

    def __init__(self, provider: Provider, executor: Workers, interrupt: threading.Event | None = None):
        self.provider = provider
        self.executor: Workers = executor
        self.interrupt = interrupt or threading.Event()
        self._offset = self.wall_minus_boot()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def clock(self, state: State) -> Sequence[Event]:
        """A jump of the wall clock, if there was one."""
        offset = self.wall_minus_boot()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) <= JUMP:
            return ()
        now = self.now()
        return [ClockAnchored(now, now, 1.0, f"the wall clock jumped by {jump.total_seconds():+.0f} s")]

    def wait(self, until: datetime, state: State) -> None:
        patience = min(self.look_every, self._wall_seconds(until))
        end = time.monotonic() + patience
        interrupted = self.interrupt.is_set()
        while (left := end - time.monotonic()) > 0:
            if self.executor.changed(state) or self.interrupt.is_set() != interrupted:
                return
            # Once interrupted the event no longer waits, so that the poll has to sleep by itself.
            time.sleep(min(POLL_SECONDS, left)) if interrupted else self.interrupt.wait(min(POLL_SECONDS, left))

    def _wall_seconds(self, until: datetime) -> float:
        return (until - self.now()).total_seconds()

    def wall_minus_boot(self) -> timedelta:
        """How far the wall clock is ahead of the time since boot: constant, unless somebody sets the clock."""
        return timedelta(seconds=time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


class Replayed(Live):
    """A past grid replayed: time runs `speed` times as fast while a worker runs, and jumps while none does.

    Its anchors are journaled at every start, jump and resume, so that a crash moves nothing.
    """

    look_every = 1.0

    def __init__(self, replay: Replay, provider: Provider, executor: Workers, interrupt: threading.Event | None = None):
        super().__init__(provider, executor, interrupt)
        self.replay = replay
        self.anchor: ClockAnchored | None = None
        self._jump_to: datetime | None = None

    def now(self) -> datetime:
        return self._at(datetime.now(UTC))

    def _at(self, wall: datetime) -> datetime:
        assert self.anchor, "the loop asks for the clock's facts before the time"
        return self.anchor.at + (wall - self.anchor.wall) * self.anchor.speed

    def clock(self, state: State) -> Sequence[Event]:
        wall, speed = datetime.now(UTC), self.replay.speed if state.active else 0.0
        if self.anchor is None:
            at, why = self._resumed_at(state, wall), "start" if not state.anchors else "resume"
            if why == "resume" and state.active and not self.executor.alive(state):
                speed = 0.0
        elif self._jump_to is not None:
            at, why = self._jump_to, "jump"
        elif speed != self.anchor.speed:
            at, why = self._at(wall), "start of work" if speed else "end of work"
        else:
            return ()
        self._jump_to = None
        self.anchor = ClockAnchored(at, wall, speed, why)
        return [self.anchor]

    def _resumed_at(self, state: State, wall: datetime) -> datetime:
        """Where the clock stood: where it would be if a worker still lives, else at the last sign of one."""
        if not state.anchors:
            return max(self.replay.start, state.now or self.replay.start)
        if state.active and self.executor.alive(state):
            return state.grid_time(wall)
        sign = self.executor.last_sign(state)
        known = state.now or self.replay.start
        return max(known, state.grid_time(sign)) if sign else known

    def wait(self, until: datetime, state: State) -> None:
        if state.active:
            super().wait(until, state)
        else:
            self._jump_to = until

    def _wall_seconds(self, until: datetime) -> float:
        speed = self.anchor.speed if self.anchor else 0.0
        return (until - self.now()).total_seconds() / speed if speed else POLL_SECONDS
