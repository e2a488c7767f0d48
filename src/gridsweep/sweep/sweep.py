"""The sweep as a value: model, data, recipe, tiers, and the experiments with the reason for their tier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

from gridsweep.sweep.axes import UNEVEN, recipe_of, total_steps, work_of_a_step
from gridsweep.sweep.clusters import LOCAL, ExecutorChoice
from gridsweep.sweep.experiments import Dataset, Experiment, Model, Recipe
from gridsweep.sweep.losses import ScoreName, which_score
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs, steps
from gridsweep.sweep.stints import Device, Member
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


@dataclass(frozen=True)
class Sweep:
    """The content of `sweep.yaml`, checked and expanded; nothing else is read to run the sweep.

    `recipe` and `total_steps` are those of a point without further axes; an experiment's own are `recipe_of` and
    `total_of`. A rung has one name, its step of `total_steps`, wherever the own step of an experiment is another.
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
        """The steps at which stints end, of `total_steps`: the rungs, then the last step."""
        return self._stages(self.total_steps)

    def _stages(self, total: int) -> tuple[int, ...]:
        return (*(steps(self.rungs, total) if self.rungs else ()), total)

    def tier(self, name: str) -> Tier:
        return next(tier for tier in self.tiers if tier.name == name)

    def experiment(self, id: str) -> Experiment:
        return self._by_id[id]

    @cached_property
    def _by_id(self) -> dict[str, Experiment]:
        return {experiment.id: experiment for experiment in self.experiments}

    @cached_property
    def varied(self) -> bool:
        """Whether experiments differ in more than rank, alpha, learning rate, dropout and seed."""
        return any(key != "seed" for experiment in self.experiments for key, _ in experiment.params.more)

    @cached_property
    def uneven(self) -> bool:
        """Whether experiments differ in their number of steps, or in the samples of one."""
        return any(key in UNEVEN for experiment in self.experiments for key, _ in experiment.params.more)

    @cached_property
    def decides(self) -> ScoreName:
        """The score that decides at rungs: of the averaged weights, unless no schedule of the sweep decays."""
        names = {self.recipe_of(e).learning_rate_schedule for e in self.experiments}
        return "averaged" if any(which_score(name) == "averaged" for name in names) else "raw"

    # -- an experiment's own

    def recipe_of(self, experiment: Experiment) -> Recipe:
        return recipe_of(self.recipe, experiment.params)

    def total_of(self, experiment: Experiment) -> int:
        """Return the number of optimizer steps of an experiment."""
        if not self.uneven:
            return self.total_steps
        return total_steps(self.dataset, self.recipe_of(experiment))

    def stages_of(self, experiment: Experiment) -> tuple[int, ...]:
        """Return the steps at which the experiment's stints end, one for each of `stages`."""
        return self._stages(self.total_of(experiment))

    def next_stage(self, experiment: Experiment, step: int) -> int:
        """Return the experiment's first stage after a step, or its last step if there is none."""
        stages = self.stages_of(experiment)
        return next((stage for stage in stages if stage > step), stages[-1])

    def level(self, experiment: Experiment, step: int) -> float:
        """Return how far an experiment is, in steps of `total_steps`; at one of its stages, the name of that stage."""
        if not self.uneven:
            return step
        names, own = (0, *self.stages), (0, *self.stages_of(experiment))
        if step in own:
            return names[own.index(step)]
        at = sum(stage < step for stage in own)
        share = (step - own[at - 1]) / (own[at] - own[at - 1])
        return names[at - 1] + share * (names[at] - names[at - 1])

    def own_step(self, experiment: Experiment, stage: int) -> int:
        """Return the step of an experiment at the stage of that name."""
        return self.stages_of(experiment)[self.stages.index(stage)] if self.uneven else stage

    # -- time

    def work_of_a_step(self, experiment: Experiment) -> float:
        """Return the samples of a step of an experiment, relative to the recipe's."""
        return work_of_a_step(self.recipe_of(experiment), self.recipe) if self.uneven else 1.0

    def span(self, members: int, from_step: int, to_step: int) -> timedelta:
        """Return the estimated time of `members` usual experiments together over these steps of `total_steps`."""
        return self._taken(
            [(to_step - from_step) / self.total_steps] * members, (to_step in self.stages[:-1]) * members
        )

    def taken(self, members: Sequence[Member], *, evaluated: bool = True) -> timedelta:
        """Return the estimated time of members together, each over its own steps, on a device of speed 1.

        Evaluation at a rung is added unless it is left out; that at the end is part of `estimates.duration`, which is
        of the recipe: an experiment with other steps, or other samples in one, takes as long as it sees samples.
        """
        shares, ends = [], 0
        for member in members:
            experiment = self.experiment(member.experiment)
            share = (member.to_step - member.from_step) / self.total_steps
            shares.append(share * self.work_of_a_step(experiment))
            ends += member.to_step in self.stages_of(experiment)[:-1]
        return self._taken(shares, ends * evaluated)

    def _taken(self, shares: Sequence[float], evaluations: int) -> timedelta:
        """Return the time of as many members as there are shares of a usual experiment."""
        whole = sum(shares)
        if self.rungs is not None:
            whole += self.estimates.evaluation * evaluations
        return self.estimates.duration * whole * self.estimates.share(len(shares))

    def deadline(self, submitted_at: datetime) -> datetime | None:
        """Return when the whole sweep should have ended, or None without `finish_by`."""
        if isinstance(self.finish_by, timedelta):
            return submitted_at + self.finish_by
        return self.finish_by
