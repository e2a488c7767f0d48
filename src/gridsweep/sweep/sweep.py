"""The sweep as a value: model, data, recipe, tiers, and the experiments with the reason for each tier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from gridsweep.sweep.clusters import LOCAL, ExecutorChoice
from gridsweep.sweep.experiments import Dataset, Experiment, Model, Recipe
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs, steps
from gridsweep.sweep.stints import Device
from gridsweep.sweep.tiers import Tier

SignalLoss = Literal["wait_until_deadline", "wait", "run"]


@dataclass(frozen=True, slots=True)
class CarbonSource:
    """Which provider reads which zone of the grid, and how.

    `file` is a trace's path or the name of a bundled one; `value` a constant in gCO2eq/kWh. `token`, `username` and
    `password` say where a secret is, as `env:NAME` or `file:PATH`, and are never one. `strict` refuses what is no
    measurement. `on_signal_loss` is what waiting work does while nothing is known of the grid.
    """

    provider: str = "trace"
    zone: str = "synthetic-solar-valley"
    file: str | None = "solar-valley"
    token: str | None = None
    username: str | None = None
    password: str | None = None
    base_url: str | None = None
    basis: str | None = None
    value: float | None = None
    strict: bool = False
    on_signal_loss: SignalLoss = "wait_until_deadline"


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """A policy by name, with its options."""

    name: str = "planned"
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimates:
    """What one experiment is expected to take on a device of speed 1.

    `loss_noise` is how far another seed is known to move a validation loss; None where nobody measured it. `packed`
    says what a stint of so many members takes of the time they take one after another, by number of members; in between
    it is interpolated. `evaluation` is what judging one experiment at a rung takes, as a share of its whole run.
    """

    duration: timedelta
    power_w: float
    loss_noise: float | None = None
    packed: tuple[tuple[int, float], ...] = ()
    evaluation: float = 0.0
    measured: str = ""

    def share(self, members: int) -> float:
        """What so many members together take of the time they take one after another."""
        known = sorted(self.packed) or [(1, 1.0)]
        below = [point for point in known if point[0] <= members] or known[:1]
        above = [point for point in known if point[0] >= members] or known[-1:]
        (a, low), (b, high) = below[-1], above[0]
        return low if a == b else low + (high - low) * (members - a) / (b - a)


@dataclass(frozen=True, slots=True)
class Replay:
    """A past grid from `start` on, `speed` times as fast while anything trains; `auto`: as the work is done."""

    start: datetime
    speed: float | Literal["auto"]

    @property
    def per_second(self) -> float:
        """Grid seconds to a second of the clock by which patience is counted: with `auto` that is the wall clock."""
        return 1.0 if self.speed == "auto" else self.speed


@dataclass(frozen=True, slots=True)
class Sweep:
    """Everything `sweep.yaml` says, checked and expanded; nothing else is read to run it.

    Without `rungs` every experiment is trained to its end; `pack` of them at most are trained together. `repeats` and
    `propose` say which experiments are added on the way.
    """

    name: str
    model: Model
    dataset: Dataset
    recipe: Recipe
    experiments: tuple[Experiment, ...]
    tiers: tuple[Tier, ...]
    estimates: Estimates
    devices: tuple[Device, ...]
    total_steps: int
    carbon: CarbonSource = CarbonSource()
    policy: PolicyChoice = PolicyChoice()
    executor: ExecutorChoice = LOCAL
    tick: timedelta = timedelta(minutes=30)
    min_wait: timedelta = timedelta(minutes=10)
    finish_by: timedelta | datetime | None = None
    replay: Replay | None = None
    baseline: str | None = None
    rungs: Rungs | None = None
    pack: int = 1
    repeats: Repeats | None = None
    propose: Proposals | None = None

    @property
    def staged(self) -> bool:
        """Whether it is more than so many experiments, each by itself from its start to its end."""
        return self.rungs is not None or self.pack > 1 or self.repeats is not None or self.proxied

    @property
    def follows_work(self) -> bool:
        """Whether grid time follows the work done, on a replayed clock with the speed `auto`."""
        return self.replay is not None and self.replay.speed == "auto"

    @property
    def proxied(self) -> bool:
        """Whether experiments are ranked over a base that stands in for the full one, on which the winner follows."""
        return any(experiment.base != "full" for experiment in self.experiments)

    @property
    def retrained(self) -> Experiment | None:
        """The winner over the full base, once it has joined."""
        return next((e for e in self.experiments if e.base == "full" and e.repeats), None) if self.proxied else None

    @property
    def stages(self) -> tuple[int, ...]:
        """The steps at which stints end: those of the rungs, then the last."""
        return (*(steps(self.rungs, self.total_steps) if self.rungs else ()), self.total_steps)

    def next_stage(self, step: int) -> int:
        """The first of the stages that is after a step; the last step, where none is."""
        return next((stage for stage in self.stages if stage > step), self.total_steps)

    def tier(self, name: str) -> Tier:
        return next(tier for tier in self.tiers if tier.name == name)

    def experiment(self, id: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.id == id)

    def span(self, members: int, from_step: int, to_step: int) -> timedelta:
        """What so many members together take over these steps by the estimates, on a device of speed 1."""
        return self.taken([(from_step, to_step)] * members)

    def taken(self, parts: Sequence[tuple[int, int]]) -> timedelta:
        """The same of members each over their own steps.

        At a rung they are judged, too; what judging them at the end takes is in `estimates.duration`.
        """
        shares = sum((end - begin) / self.total_steps for begin, end in parts)
        if self.rungs is not None:
            shares += self.estimates.evaluation * sum(end in self.stages[:-1] for _, end in parts)
        return self.estimates.duration * shares * self.estimates.share(len(parts))

    def deadline(self, submitted_at: datetime) -> datetime | None:
        """When the whole sweep should have ended, if it says so."""
        if isinstance(self.finish_by, timedelta):
            return submitted_at + self.finish_by
        return self.finish_by
