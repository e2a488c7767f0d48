"""The sweep as a value: model, data, recipe, tiers, and the experiments with the reason for each tier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Literal

from gridsweep.sweep.clusters import LOCAL, ExecutorChoice
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs, steps
from gridsweep.sweep.stints import Device

PARAMS = ("r", "alpha", "lr", "dropout")


@dataclass(frozen=True, slots=True, order=True)
class LoraParams:
    """One point of the space: rank, alpha, peak learning rate, dropout of the LoRA layers."""

    r: int
    alpha: float
    lr: float
    dropout: float


@dataclass(frozen=True, slots=True)
class Percentile:
    """A limit that travels: so many percent of the trailing 28 days' slots lie at or below it."""

    percent: float

    def __str__(self) -> str:
        return f"p{number(self.percent)}"


@dataclass(frozen=True, slots=True)
class Tier:
    """How long work may wait, and for what: a threshold (gCO2eq/kWh or a percentile), a longest delay, a rank."""

    name: str
    threshold: float | Percentile
    max_delay: timedelta
    rank: int

    @property
    def limit(self) -> str:
        """The threshold as people read it."""
        if isinstance(self.threshold, Percentile):
            return f"{self.threshold} of the last 28 days"
        return f"{number(self.threshold)} gCO2eq/kWh"


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison on one hyperparameter: `dropout >= 0.15`."""

    param: str
    op: str
    value: float

    def holds(self, params: LoraParams) -> bool:
        left = getattr(params, self.param)
        return bool(_OPERATORS[self.op](left, self.value))

    def __str__(self) -> str:
        return f"{self.param} {self.op} {number(self.value)}"


_OPERATORS: dict[str, Any] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Sends experiments that meet all its conditions to a tier; the first rule that matches decides."""

    tier: str
    when: tuple[Condition, ...] = ()

    def holds(self, params: LoraParams) -> bool:
        return all(condition.holds(params) for condition in self.when)

    @property
    def reason(self) -> str:
        return " and ".join(map(str, self.when)) if self.when else "no other rule matched"


@dataclass(frozen=True, slots=True)
class Model:
    """The base model: a Hugging Face id, a local folder, or the name of one that comes along."""

    id: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where pairs of prompt and response come from, and how many of them train and validate."""

    id: str
    revision: str | None = None
    split: str = "train"
    train_samples: int | None = None
    validation_samples: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How every experiment is trained; `steps`, where given, overrides `epochs`.

    `layers` says which of the decoder's have adapters; `rslora` scales them by alpha / sqrt(r); `lora_plus` is how many
    times the learning rate B is trained with.
    """

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 2
    accumulation: int = 4
    max_length: int = 384
    learning_rate_schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    seed: int = 42
    validation_share: float = 0.2
    checkpoint_every: int = 50
    layers: Literal["all", "upper-half"] = "all"
    rslora: bool = False
    lora_plus: float = 1.0


Base = Literal["full", "4-bit"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One point of the sweep with its seed, its tier and the reason for that tier.

    `device` names the only device it may run on, where that is settled; None lets the policy choose. `repeats` names
    the experiment that this one trains again, with another seed or over the full base. `base` says in which precision
    the frozen base is: in 4 bits it is a proxy, and its losses are those of another model.
    """

    id: str
    params: LoraParams
    seed: int
    tier: str
    reason: str
    device: str | None = None
    repeats: str | None = None
    base: Base = "full"


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
    """A clock that replays a past grid: begins at `start`, `speed` times as fast while anything trains."""

    start: datetime
    speed: float


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

    @classmethod
    def load(cls, path: str | PurePath) -> Sweep:
        """Read a `sweep.yaml`. Raises `SpecError` with every error of the file at once."""
        from gridsweep.spec import load  # the one door from a core value to the edge that reads files

        return load(path)

    @property
    def staged(self) -> bool:
        """Whether it is more than so many experiments, each by itself from its start to its end."""
        return self.rungs is not None or self.pack > 1 or self.repeats is not None or self.proxied

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

    @property
    def duration_per_step(self) -> timedelta:
        """On a device of speed 1."""
        return self.estimates.duration / self.total_steps

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


def number(value: float) -> str:
    """The shortest text that reads back as the same number: `32`, `1e-4`, `0.05`."""
    exact = Decimal(repr(value)).normalize()
    if -3 <= exact.adjusted() < 6:
        return f"{exact:f}"
    _, digits, _ = exact.as_tuple()
    first, rest = str(digits[0]), "".join(map(str, digits[1:]))
    sign = "-" if exact < 0 else ""
    return f"{sign}{first}{'.' + rest if rest else ''}e{exact.adjusted()}"


def is_local(id: str) -> bool:
    """Whether a model or dataset id is written as a path: `./x`, `../x`, `/x`, `~/x`, or a data file name."""
    return id.startswith(("./", "../", "/", "~")) or id.endswith((".jsonl", ".json"))
