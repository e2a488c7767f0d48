"""An executor that trains nothing: stints take what a profile says they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsweep.carbon import HOUR
from gridsweep.events import Ended, Event, Paused, Progressed, Running, Segment
from gridsweep.schedule import device_named
from gridsweep.state import Attempt, State
from gridsweep.stint import Checkpoint, Outcome


@dataclass(frozen=True, slots=True)
class Profile:
    """What one experiment took from its start: segments of (offset from the start, length, kWh)."""

    duration: timedelta
    segments: tuple[tuple[timedelta, timedelta, float], ...]


class Simulated:
    """Ends are derived from the state: a stint occupies `[start, start + duration)`.

    Durations and energy come from the sweep's estimates, or from `profiles` by experiment where those are given;
    `factors` by experiment say how many times its estimate one really takes, `restart` how long a resumed one runs
    before its next step.
    """

    def __init__(
        self,
        profiles: Mapping[str, Profile] | None = None,
        factors: Mapping[str, float] | None = None,
        restart: timedelta = timedelta(0),
    ):
        self.profiles = profiles or {}
        self.factors = factors or {}
        self.restart = restart

    def observe(self, state: State, now: datetime) -> Sequence[Event]:
        events: list[Event] = []
        for attempt in sorted(state.active.values(), key=lambda a: (self._end(state, a), a.id)):
            end, steps = self._end(state, attempt)
            if attempt.running_at is None:
                events.append(Running(attempt.requested_at, attempt.id))
            if end <= now:
                events += self._closing(state, attempt, end, steps)
        return events

    def act(self, state: State) -> None:
        """Nothing to do: there is no world but the state."""

    def next_end(self, state: State) -> datetime | None:
        """When the next attempt ends by itself, or has heeded a pause."""
        return min((self._end(state, attempt)[0] for attempt in state.active.values()), default=None)

    def _end(self, state: State, attempt: Attempt) -> tuple[datetime, int]:
        """When an attempt ends and after how many steps: all, or, told to pause, those it had begun."""
        start, steps = attempt.requested_at, attempt.stint.steps
        ids = [member.experiment for member in attempt.stint.members]
        if ids[0] in self.profiles:
            span = max(self.profiles[id].duration for id in ids)
        else:  # of the spec's estimate: what the loop has learned is a guess
            speed = device_named(state, attempt.device).speed
            factor = max(self.factors[id] for id in ids) if self.factors else 1.0
            span = state.sweep.duration_per_step * steps / speed * factor
        if min(member.from_step for member in attempt.stint.members) > 0:
            start += self.restart
            if attempt.pausing_since is not None and attempt.pausing_since <= start:
                return start, 0
        if attempt.pausing_since is not None and attempt.pausing_since < start + span:
            begun = -(-(attempt.pausing_since - start) * steps // span)
            return start + span * begun / steps, begun
        return start + span, steps

    def _closing(self, state: State, attempt: Attempt, at: datetime, steps: int) -> list[Event]:
        """Progress up to a moment, then the end or the pause."""
        outcomes = []
        for member in attempt.stint.members:
            step = min(member.from_step + steps, member.to_step)
            done = step == member.to_step
            saved = None if done else Checkpoint(member.experiment, step, "", "")
            outcomes.append(Outcome(member.experiment, "done" if done else "paused", step, checkpoint=saved))
        step = min(m.from_step for m in attempt.stint.members) + steps
        energy = tuple(self._energy(state, attempt, at, step))
        close = Ended if all(outcome.status == "done" for outcome in outcomes) else Paused
        return [
            Progressed(at, attempt.id, 1, step, {}, energy),
            close(at, attempt.id, tuple(outcomes)),
        ]

    def _energy(self, state: State, attempt: Attempt, at: datetime, step: int) -> list[Segment]:
        start = attempt.requested_at
        ids = [member.experiment for member in attempt.stint.members]
        if ids[0] in self.profiles:
            parts = [part for id in ids for part in self.profiles[id].segments]
            return [
                Segment(start + offset, start + offset + span, kwh, "replayed", step) for offset, span, kwh in parts
            ]
        device = device_named(state, attempt.device)
        power = device.power_w if device.power_w is not None else state.sweep.estimates.power_w
        kwh = power / 1000 * ((at - start) / HOUR)
        return [Segment(start, at, kwh, "estimated", step)]
