"""How long an attempt may wait for what time alone does not bring, and how it ends when it has not begun."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from gridsweep.executors.kubernetes.api import Unreachable
from gridsweep.executors.kubernetes.conditions import Condition, remedy, same_trouble
from gridsweep.executors.kubernetes.reader import ReaderDown
from gridsweep.state.events import Event, Held, Lost, Paused, Pausing
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.stints import Outcome


class Timers:
    """Since when each attempt is over, or stuck, on a clock in seconds; a new loop begins to count anew."""

    def __init__(self, clock: Callable[[], float], settle: float, stuck: float, leave: float):
        self._clock, self._settle, self.stuck_seconds, self.leave_seconds = clock, settle, stuck, leave
        self._over: dict[str, float] = {}
        self._stuck: dict[str, float] = {}

    def told(self, attempt: str, where: Condition) -> Condition:
        """Take an attempt's present condition; return it, with another reason if a missing pod has none for long."""
        for since, holds in ((self._over, where.kind == "over"), (self._stuck, bool(where.stuck))):
            since.setdefault(attempt, self._clock()) if holds else since.pop(attempt, None)
        if where.stuck == "absent" and self._stuck_for(attempt) > self.stuck_seconds:
            minutes = round(self.stuck_seconds / 60)
            why = f"its pod is not there after {minutes} minutes, and KubeRay names no reason; look at its operator"
            return Condition(where.kind, why, where.by, where.stuck)
        return where

    def settled(self, attempt: str) -> bool:
        """Return whether an attempt has been over for long enough for its last files to be visible."""
        return self._clock() - self._over[attempt] >= self._settle

    def stuck(self, attempt: str, where: Condition) -> bool:
        """Return whether an attempt has been refused for too long."""
        return where.stuck == "refused" and self._stuck_for(attempt) > self.stuck_seconds

    def _stuck_for(self, attempt: str) -> float:
        return self._clock() - self._stuck.get(attempt, self._clock())


def held(attempt: Attempt, now: datetime, where: Condition) -> list[Event]:
    """Return a `Held` event if the reason for holding an attempt has changed; an empty reason means released."""
    why = where.why if where.kind in ("waits", "leaves") else ""
    by, _, told = attempt.held.partition(": ")
    if why == told or same_trouble(why, told):
        return []
    return [Held(now, attempt.id, where.by if why else by, why)]


def unstartable(attempt: Attempt, where: Condition, now: datetime, *, begun: bool) -> Event:
    """Return how an attempt ends that has been refused for too long.

    What refuses it would refuse every attempt alike, so the sweep halts and no retry is spent.
    """
    why = remedy(where.why)
    if begun:  # resumed by another component: it ends with its checkpoint, once its pod is gone
        return Pausing(now, attempt.id, why)
    return Lost(now, attempt.id, why, refused=True)


def not_begun(attempt: Attempt, now: datetime, why: str) -> Paused | Lost:
    """Return the end of an attempt whose worker has not begun: paused at its first step if it was asked to pause."""
    if attempt.pausing_since is None or attempt.killed:
        return Lost(now, attempt.id, why)
    members = attempt.stint.members
    return Paused(now, attempt.id, tuple(Outcome(m.experiment, "paused", m.from_step, why) for m in members))


def unreadable(state: State, error: Unreachable, timers: Timers) -> str:
    """Return why the sweep ends because its files cannot be read; "" if it waits until they can."""
    if not isinstance(error, ReaderDown):
        return ""
    left = bool(state.stopping or state.halted) and error.seconds > timers.leave_seconds
    if not left and not (error.lasting and error.seconds > timers.stuck_seconds):
        return ""
    return remedy(f"{error}; nothing is lost: what workers saved is on the volume, and the next run reads it")


def age(at: datetime) -> str:
    """Return how long ago a moment was, in the largest whole unit of seconds, minutes or hours."""
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
