"""A simulated executor: durations and energy of stints come from estimates or profiles, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from gridsweep.accounting.pieces import Profile
from gridsweep.carbon.traces import HOUR
from gridsweep.state.events import Ended, Event, Paused, Progressed, Running, Segment
from gridsweep.state.standings import Attempt
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Checkpoint, Outcome, device_named


class Simulated:
    """Executor without workers: a stint occupies `[start, start + duration)`, derived from the state.

    Durations and energy come from the sweep's estimates, or from `profiles` by experiment and last step of the stint;
    the members' energies add up, and the longest duration counts. `factors` multiply the estimated duration, by
    experiment; `restart` is the time a resumed stint needs before its next step. `stopped` gives the step of the rung
    at which an experiment was stopped; `scored` returns the losses of an experiment at a step (None: unknown).
    """

    def __init__(
        self,
        profiles: Mapping[tuple[str, int], Profile] | None = None,
        factors: Mapping[str, float] | None = None,
        restart: timedelta = timedelta(0),
        stopped: Mapping[str, int] | None = None,
        scored: Callable[[Experiment, int], Losses] | None = None,
    ):
        self.profiles = profiles or {}
        self.stopped = stopped or {}
        self.scored = scored
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
        """Do nothing: the state is the whole world."""

    def next_end(self, state: State) -> datetime | None:
        """Return when the next attempt ends or pauses; None without an active attempt."""
        return min((self._end(state, attempt)[0] for attempt in state.active.values()), default=None)

    def _end(self, state: State, attempt: Attempt) -> tuple[datetime, int]:
        """Return when an attempt ends and after how many steps: all, or, if pausing, those begun by then."""
        start, steps = attempt.requested_at, attempt.stint.steps
        ids = [member.experiment for member in attempt.stint.members]
        if profiles := self._profiles(attempt):
            span = max(profile.duration for profile in profiles)
        else:  # the spec's estimate is the truth here; durations learned by the loop are guesses
            speed = device_named(state.sweep.devices, attempt.device).speed
            factor = max(self.factors[id] for id in ids) if self.factors else 1.0
            span = state.sweep.taken(attempt.stint.members) / speed * factor
        if min(member.from_step for member in attempt.stint.members) > 0:
            start += self.restart
            if attempt.pausing_since is not None and attempt.pausing_since <= start:
                return start, 0
        if attempt.pausing_since is not None and attempt.pausing_since < start + span:
            begun = -(-(attempt.pausing_since - start) * steps // span)
            return start + span * begun / steps, begun
        return start + span, steps

    def _profiles(self, attempt: Attempt) -> list[Profile]:
        members = attempt.stint.members
        return [self.profiles[m.experiment, m.to_step] for m in members if (m.experiment, m.to_step) in self.profiles]

    def _closing(self, state: State, attempt: Attempt, at: datetime, steps: int) -> list[Event]:
        """Return the progress up to a moment, then the end or the pause."""
        outcomes = []
        for member in attempt.stint.members:
            step = min(member.from_step + steps, member.to_step)
            saved = Checkpoint(member.experiment, step, "", "")
            if step < member.to_step:
                outcomes.append(Outcome(member.experiment, "paused", step, checkpoint=saved))
            elif self.stopped.get(member.experiment) == step:
                outcomes.append(Outcome(member.experiment, "stopped", step))
            else:
                outcomes.append(self._arrived(state, member.experiment, saved))
        step = min(m.from_step for m in attempt.stint.members) + steps
        energy = tuple(self._energy(state, attempt, at, step))
        close = Paused if any(outcome.status == "paused" for outcome in outcomes) else Ended
        return [
            Progressed(at, attempt.id, 1, step, {}, energy),
            close(at, attempt.id, tuple(outcomes)),
        ]

    def _arrived(self, state: State, experiment: str, at: Checkpoint) -> Outcome:
        """Return the outcome of an experiment that has reached a rung or its end."""
        losses = self.scored(state.standings[experiment].experiment, at.step) if self.scored else None
        mean = losses.mean if losses else None
        if at.step < state.sweep.total_of(state.standings[experiment].experiment):
            return Outcome(experiment, "reached", at.step, train_loss=mean, checkpoint=at, losses=losses)
        return Outcome(experiment, "done", at.step, train_loss=mean, validation_loss=mean, losses=losses)

    def _energy(self, state: State, attempt: Attempt, at: datetime, step: int) -> list[Segment]:
        start = attempt.requested_at
        if profiles := self._profiles(attempt):
            parts = [part for profile in profiles for part in profile.segments]
            return [
                Segment(start + offset, start + offset + span, kwh, "replayed", step) for offset, span, kwh in parts
            ]
        device = device_named(state.sweep.devices, attempt.device)
        power = device.power_w if device.power_w is not None else state.sweep.estimates.power_w
        kwh = power / 1000 * ((at - start) / HOUR)
        return [Segment(start, at, kwh, "estimated", step)]
