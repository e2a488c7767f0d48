"""The worlds that drive a sweep: live, replayed at a fixed speed, and replayed at the speed of the work.

Each is a clock with a provider and an executor; time passes only in its `wait`. The virtual world is in
`simulation.virtual`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from gridsweep.executors.workers import Workers
from gridsweep.loop import Provider
from gridsweep.schedule.asking import at_rest
from gridsweep.schedule.timetable import next_moment
from gridsweep.state.events import ClockAnchored, Event
from gridsweep.state.state import State
from gridsweep.sweep.sweep import Replay

POLL_SECONDS = 0.2
LOOK_SECONDS = 30.0
"""Longest interval in seconds between checks of the workers' files."""
JUMP = timedelta(minutes=1)
"""Largest drift of the wall clock against the boot clock that is not journaled as a jump."""


class Live:
    """The wall clock with real workers. `interrupt` ends a wait early, and so does a user who has `called`."""

    look_every = LOOK_SECONDS

    def __init__(self, provider: Provider, executor: Workers, interrupt: threading.Event | None = None):
        self.provider = provider
        self.executor: Workers = executor
        self.interrupt = interrupt or threading.Event()
        self.called: Callable[[], bool] = lambda: False
        self._offset = self.wall_minus_boot()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def clock(self, state: State) -> Sequence[Event]:
        """Return a jump of the wall clock, if there was one."""
        offset = self.wall_minus_boot()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) <= JUMP:
            return ()
        now = self.now()
        return [ClockAnchored(now, now, 1.0, f"the wall clock jumped by {jump.total_seconds():+.0f} s", jump)]

    def silences(self, state: State) -> Mapping[str, timedelta] | None:
        """Return None: this world's own time measures silence."""
        return None

    def wait(self, until: datetime, state: State) -> None:
        patience = min(self.look_every, self._wall_seconds(until))
        end = time.monotonic() + patience
        interrupted = self.interrupt.is_set()
        while (left := end - time.monotonic()) > 0:
            if self.executor.changed(state) or self.interrupt.is_set() != interrupted or self.called():
                return
            # After an interrupt the event is set and no longer blocks, so the poll has to sleep.
            time.sleep(min(POLL_SECONDS, left)) if interrupted else self.interrupt.wait(min(POLL_SECONDS, left))

    def _wall_seconds(self, until: datetime) -> float:
        return (until - self.now()).total_seconds()

    def wall_minus_boot(self) -> timedelta:
        """Return the wall clock minus the time since boot: constant unless the clock is set."""
        return timedelta(seconds=time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


class Replayed(Live):
    """A replay of a past grid: time runs `speed` times as fast while a worker runs, and jumps while none does.

    Anchors are journaled at every start, jump and resume, so that a crash does not shift the clock.
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
        wall, speed = datetime.now(UTC), self.replay.per_second if state.active else 0.0
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
        """Return the grid time at a resume: the running clock if a worker lives, else the last sign of a worker."""
        if not state.anchors:
            return max(self.replay.start, state.now or self.replay.start)
        if state.active and self.executor.alive(state):
            return state.grid_time(wall)
        sign = self.executor.last_sign(state)
        known = state.now or self.replay.start
        return max(known, state.grid_time(sign)) if sign else known

    def wait(self, until: datetime, state: State) -> None:
        if state.active or at_rest(state):  # the time of a sweep at rest stands still, for nobody knows how long
            super().wait(until, state)
        else:
            self._jump_to = until

    def _wall_seconds(self, until: datetime) -> float:
        speed = self.anchor.speed if self.anchor else 0.0
        return (until - self.now()).total_seconds() / speed if speed else POLL_SECONDS


class Following(Live):
    """A replay of a past grid at the speed of the work: time follows the workers' steps, and jumps while none runs.

    The sweep's time moves from one moment to the next, as soon as every running attempt has passed that moment. A
    moment is a wake-up of the loop or the end of an attempt (`timetable.next_moment`). Decisions are made at these
    moments only, so they do not depend on the speed of a worker or of this machine. Every moment is journaled, so a
    crash does not shift the clock.
    """

    look_every = 0.5

    def __init__(
        self,
        replay: Replay,
        provider: Provider,
        executor: Workers,
        interrupt: threading.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        super().__init__(provider, executor, interrupt)
        self.replay = replay
        self.at: datetime | None = None
        self._next: datetime | None = None
        self._decided: object = None
        self._stopwatch = Stopwatch(monotonic)

    def now(self) -> datetime:
        assert self.at, "the loop asks for the clock's facts before the time"
        return self.at

    def clock(self, state: State) -> Sequence[Event]:
        if self.at is None:
            resumed = bool(state.anchors)
            self.at = state.anchors[-1].at if resumed else max(self.replay.start, state.now or self.replay.start)
            why = "resume" if resumed else "start"
        elif self._next is not None and self._next > self.at:
            self.at, why = self._next, "work" if state.active else "jump"
        else:
            return ()
        self._next = None
        return [ClockAnchored(self.at, datetime.now(UTC), 0.0, why)]

    def silences(self, state: State) -> Mapping[str, timedelta]:
        """Return silences by the monotonic clock, because a hanging worker stops this world's own time."""
        return self._stopwatch.silences(state)

    def wait(self, until: datetime, state: State) -> None:
        """Wait until the next moment, or until the next check of the workers.

        After a decision, the policy is asked again at the same moment until it decides nothing new, so a crash in
        between changes nothing.
        """
        decided = _decided(state)
        if decided != self._decided:
            self._decided = decided
            return
        self._next = None if at_rest(state) else next_moment(state, until)
        if self._next is None:
            super().wait(until, state)

    def _wall_seconds(self, until: datetime) -> float:
        return self.look_every


def _decided(state: State) -> object:
    """Return a value that changes whenever an attempt is requested, paused or ended, a rung decided, work added or
    something asked."""
    told = sum((attempt.pausing_since is not None) + attempt.killed for attempt in state.active.values())
    made = len(state.rankings), len(state.additions), len(state.asks.taken)
    return len(state.attempts), len(state.active), told, *made


class Stopwatch:
    """Measures how long each running attempt has been silent, or has ignored a pause, by a monotonic clock.

    The stopwatch restarts with the process, so after a crash of the loop a silent worker has its full patience again.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic):
        self._monotonic = monotonic
        self._since: dict[str, tuple[object, float]] = {}

    def silences(self, state: State) -> dict[str, timedelta]:
        moment = self._monotonic()
        before, self._since = self._since, {}
        for attempt in state.active.values():
            sign: object = attempt.seq, attempt.running_at, attempt.held
            if attempt.pausing_since is not None:
                sign = attempt.killed
            last = before.get(attempt.id)
            self._since[attempt.id] = last if last and last[0] == sign else (sign, moment)
        return {id: timedelta(seconds=moment - since) for id, (_, since) in self._since.items()}
