"""The sweep as a value: model, data, recipe, tiers, and the experiments with the reason for their tier."""

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
    """The source of the carbon signal: a provider, a grid zone, and how to access them.

    `file` is a trace's path or the name of a bundled one; `value` a constant in gCO2eq/kWh. `token`, `username` and
    `password` name the location of a secret, as `env:NAME` or `file:PATH`, and never hold the secret. `strict` rejects
    values that are not measured. `on_signal_loss` is what waiting work does while the grid is unknown.
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
    """The expected time and power of one experiment on a device of speed 1.

    `loss_noise` is the measured effect of the seed on a validation loss; None if not measured. `packed` holds, by
    number of members, the time of a stint relative to training its members one after another; values in between are
    interpolated. `evaluation` is the time to evaluate one experiment at a rung, as a share of its whole run. With
    `guess` the duration is said to be uncertain, and one stint starts at once to show how long stints take.
    """

    duration: timedelta
    power_w: float
    loss_noise: float | None = None
    packed: tuple[tuple[int, float], ...] = ()
    evaluation: float = 0.0
    measured: str = ""
    guess: bool = False

    def share(self, members: int) -> float:
        """Return the time of a stint of `members` relative to training them one after another."""
        known = sorted(self.packed) or [(1, 1.0)]
        below = [point for point in known if point[0] <= members] or known[:1]
        above = [point for point in known if point[0] >= members] or known[-1:]
        (a, low), (b, high) = below[-1], above[0]
        return low if a == b else low + (high - low) * (members - a) / (b - a)


@dataclass(frozen=True, slots=True)
class Replay:
    """A past grid from `start` on, `speed` times as fast while anything trains; `auto`: time follows the work done."""

    start: datetime
    speed: float | Literal["auto"]

    @property
    def per_second(self) -> float:
        """Grid seconds per second of the clock that measures patience; with `auto` this is the wall clock."""
        return 1.0 if self.speed == "auto" else self.speed


@dataclass(frozen=True, slots=True)
class Sweep:
    """The content of `sweep.yaml`, checked and expanded; nothing else is read to run the sweep.

    Without `rungs` every experiment is trained to its end; at most `pack` of them are trained together. `repeats` and
    `propose` define the experiments added during the sweep. `env` are variables for the workers' environment, by name;
    `env:NAME` stands for the value of a variable of the loop.
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
    env: tuple[tuple[str, str], ...] = ()

    @property
    def clock_speed(self) -> float:
        """How fast grid time passes while workers run, against the wall clock."""
        return self.replay.per_second if self.replay else 1.0

    @property
    def staged(self) -> bool:
        """Whether the sweep has rungs, packs, repeats or a proxy, rather than only independent experiments."""
        return self.rungs is not None or self.pack > 1 or self.repeats is not None or self.proxied

    @property
    def follows_work(self) -> bool:
        """Whether grid time follows the work done: a replayed clock with the speed `auto`."""
        return self.replay is not None and self.replay.speed == "auto"

    @property
    def proxied(self) -> bool:
        """Whether experiments are ranked on a proxy base, after which the winner is trained on the full base."""
        return any(experiment.base != "full" for experiment in self.experiments)

    @property
    def retrained(self) -> Experiment | None:
        """The winner on the full base, once it is added; None before."""
        return next((e for e in self.experiments if e.base == "full" and e.repeats), None) if self.proxied else None

    @property
    def stages(self) -> tuple[int, ...]:
        """The steps at which stints end: the rungs, then the last step."""
        return (*(steps(self.rungs, self.total_steps) if self.rungs else ()), self.total_steps)

    def next_stage(self, step: int) -> int:
        """Return the first stage after a step, or the last step if there is none."""
        return next((stage for stage in self.stages if stage > step), self.total_steps)

    def tier(self, name: str) -> Tier:
        return next(tier for tier in self.tiers if tier.name == name)

    def experiment(self, id: str) -> Experiment:
        return next(experiment for experiment in self.experiments if experiment.id == id)

    def span(self, members: int, from_step: int, to_step: int) -> timedelta:
        """Return the estimated time of `members` experiments together over these steps, on a device of speed 1."""
        return self.taken([(from_step, to_step)] * members)

    def taken(self, parts: Sequence[tuple[int, int]]) -> timedelta:
        """Return the estimated time of members together, each over its own steps, on a device of speed 1.

        Evaluation at a rung is added; evaluation at the end is part of `estimates.duration`.
        """
        shares = sum((end - begin) / self.total_steps for begin, end in parts)
        if self.rungs is not None:
            shares += self.estimates.evaluation * sum(end in self.stages[:-1] for _, end in parts)
        return self.estimates.duration * shares * self.estimates.share(len(parts))

    def deadline(self, submitted_at: datetime) -> datetime | None:
        """Return when the whole sweep should have ended, or None without `finish_by`."""
        if isinstance(self.finish_by, timedelta):
            return submitted_at + self.finish_by
        return self.finish_by
