"""What may stand in a `sweep.yaml`: a class a section, a field a key, each with its description."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gridsweep.spec.values import (
    Compared,
    Comparison,
    Moment,
    Number,
    OneOf,
    Shorthand,
    Span,
    SpanOrMoment,
    Word,
    choice_of,
    shown,
)
from gridsweep.sweep import CarbonSource, Dataset, Recipe

MOST_POINTS = 10_000
PROVIDERS = ("trace",)
EXECUTORS = ("local",)
SCHEDULES = ("cosine", "linear", "constant")
DESIGNS = ("published", "grid", "one_factor", "sample")
POLICIES = ("threshold", "immediate", "on_off")

_RECIPE, _DATASET = Recipe(), Dataset("")

_ID = r"[\w.-]+(/[\w.-]+)?|(\.{1,2}/|/|~)[^\x00-\x1f]{1,1000}"
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"

Id = Annotated[str, Word(_ID, "a Hugging Face id such as org/name, or a path starting with ./ or /")]
Revision = Annotated[str, Word(r"[\w./-]{1,255}", "a branch, tag or commit")]
Name = Annotated[str, Word(_NAME, "a name of letters, digits, '-', '_' and '.', at most 63 long")]
Count = Annotated[int, Number(least=1, most=10_000_000, whole=True)]
Seed = Annotated[int, Number(least=0, below=2**32, whole=True)]
Intensity = Annotated[float, Number(least=0, most=5000)]
Power = Annotated[float, Number(above=0, most=1_000_000)]
Share = Annotated[float, Number(least=0, below=1)]

Rank = Annotated[int, Number(least=1, most=65_536, whole=True)]
Alpha = Annotated[float, Number(above=0, most=1_000_000)]
LearningRate = Annotated[float, Number(above=0, most=100)]
Dropout = Annotated[float, Number(least=0, below=1)]


def _no_duplicates(values: tuple[float, ...]) -> tuple[float, ...]:
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ValueError(f"{shown(twice)} is given twice; delete one")
    return values


def _axis(value: Any) -> Any:
    return [value] if isinstance(value, int | float | str) else value


def _named(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError(f"must be an id such as org/name, or a mapping with the key id, not {shown(value)}")
    return {"id": value} if isinstance(value, str) else value


_ONE_VALUE = Shorthand(_axis, {"type": ["number", "string"]})
_JUST_ID = Shorthand(_named, {"type": "string", "pattern": f"^(?:{_ID})$"})
_AXIS = (Field(min_length=1, max_length=MOST_POINTS), AfterValidator(_no_duplicates), _ONE_VALUE)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """The base model every experiment adapts."""

    id: Id = Field(description="A Hugging Face id, a local folder, or the name of a model that comes along.")
    revision: Revision | None = Field(None, description="A branch, tag or commit of the model.")


class DatasetSection(Section):
    """Pairs of prompt and response."""

    id: Id = Field(description="A Hugging Face id, a local folder or JSONL file, or `stdlib`.")
    revision: Revision | None = Field(None, description="A branch, tag or commit of the dataset.")
    split: Annotated[str, Word(r"[\w.\[\]:%+-]{1,100}", "the name of a split, such as train")] = Field(
        _DATASET.split, description="The split both samples are taken from."
    )
    train_samples: Count | None = Field(None, description="Samples to train on; needed unless recipe.steps is given.")
    validation_samples: Count | None = Field(None, description="Samples to validate on; default by validation_share.")


class RecipeSection(Section):
    """How every experiment is trained."""

    epochs: Annotated[float, Number(above=0, most=10_000)] = Field(
        _RECIPE.epochs, description="Passes over the training samples."
    )
    steps: Count | None = Field(None, description="Optimizer steps; overrides epochs.")
    batch_size: Count = Field(_RECIPE.batch_size, description="Samples in one forward pass.")
    accumulation: Count = Field(_RECIPE.accumulation, description="Forward passes to one optimizer step.")
    max_length: Count = Field(_RECIPE.max_length, description="Tokens a sample is cut to.")
    learning_rate_schedule: Annotated[str, OneOf(SCHEDULES)] = Field(
        _RECIPE.learning_rate_schedule, description="How the learning rate falls after the warm-up."
    )
    warmup: Share = Field(_RECIPE.warmup, description="Share of the steps over which the learning rate rises.")
    weight_decay: Annotated[float, Number(least=0, most=10)] = Field(
        _RECIPE.weight_decay, description="Of AdamW, on the LoRA weights."
    )
    clip: Annotated[float, Number(above=0)] = Field(_RECIPE.clip, description="The largest norm of the gradient.")
    target_modules: Annotated[
        tuple[Annotated[str, Word(r"[\w.]{1,100}", "the name of a module")], ...], Field(min_length=1)
    ] = Field(_RECIPE.target_modules, description="The projections that get LoRA layers.")
    seed: Seed = Field(_RECIPE.seed, description="Seeds the split, the initial weights and the order of the samples.")
    validation_share: Annotated[float, Number(above=0, below=1)] = Field(
        _RECIPE.validation_share, description="Share of the samples to validate on where no number is given."
    )
    checkpoint_every: Count = Field(_RECIPE.checkpoint_every, description="Steps from checkpoint to checkpoint.")


class SpaceSection(Section):
    """The values each hyperparameter may take: a list, or one number."""

    r: Annotated[tuple[Rank, ...], *_AXIS] = Field(description="LoRA rank.")
    alpha: Annotated[tuple[Alpha, ...], *_AXIS] = Field(description="LoRA alpha.")
    lr: Annotated[tuple[LearningRate, ...], *_AXIS] = Field(description="Peak learning rate.")
    dropout: Annotated[tuple[Dropout, ...], *_AXIS] = Field(description="Dropout of the LoRA layers, in [0, 1).")


class Plain(Section):
    """Takes no options."""


class BaselineSection(Section):
    """A point of the space; a missing key takes the first value of its axis."""

    r: Rank | None = Field(None, description="LoRA rank.")
    alpha: Alpha | None = Field(None, description="LoRA alpha.")
    lr: LearningRate | None = Field(None, description="Peak learning rate.")
    dropout: Dropout | None = Field(None, description="Dropout of the LoRA layers.")


class OneFactorSection(Section):
    """The baseline, then each axis varied alone."""

    baseline: BaselineSection = Field(
        BaselineSection(), description="The point to vary from; default: the first value of every axis."
    )


class SampleSection(Section):
    """Some points of the grid, each tier with its share."""

    n: Count = Field(description="How many points, at most the size of the grid.")
    seed: Seed = Field(42, description="Which points; the same seed draws the same ones.")


class Choice(Section):
    """Exactly one of its keys."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})


class DesignSection(Choice):
    """Which points of the space are trained; exactly one key."""

    published: Plain | None = Field(None, description="The 21 experiments of the published sweep; takes no space.")
    grid: Plain | None = Field(None, description="Every combination.")
    one_factor: OneFactorSection | None = Field(None, description="The baseline, then each axis varied alone.")
    sample: SampleSection | None = Field(None, description="A sample of the grid, proportional to its tiers.")


class TierSection(Section):
    """How long experiments may wait, and for what; tiers listed first start first."""

    name: Name = Field(description="What rules and reports call it.")
    threshold: Intensity = Field(description="gCO2eq/kWh at or below which its experiments start.")
    max_delay: Annotated[timedelta, Span(timedelta(0))] = Field(
        description="How long they may wait; then they start at any intensity."
    )


class WhenSection(Section):
    """Conditions on the hyperparameters; all must hold."""

    r: Annotated[Comparison, Compared()] | None = Field(None, description='LoRA rank: 16, or ">= 16".')
    alpha: Annotated[Comparison, Compared()] | None = Field(None, description='LoRA alpha: 128, or "< 128".')
    lr: Annotated[Comparison, Compared()] | None = Field(None, description='Peak learning rate: "<= 1e-5".')
    dropout: Annotated[Comparison, Compared()] | None = Field(None, description='LoRA dropout: ">= 0.15".')


class RuleSection(Section):
    """Sends experiments to a tier; the first rule whose conditions hold decides."""

    tier: Name = Field(description="The name of a tier.")
    when: WhenSection = Field(WhenSection(), description="Conditions, all of which must hold; none: every experiment.")


class CarbonSection(Section):
    """Where the carbon intensity comes from."""

    provider: Annotated[str, OneOf(PROVIDERS)] = Field("trace", description="Who reads the grid.")
    zone: Annotated[str, Word(r"[\w.:/-]{1,64}", "the name of a grid zone, such as US-CAL-CISO")] | None = Field(
        None, description="The grid zone, as the provider names it; default: the trace's own."
    )
    file: Annotated[str, Word(r"[^\x00-\x1f]{1,1000}", "the path of a CSV file or the name of a bundled trace")] = Field(
        str(CarbonSource().file), description="A CSV trace, relative to this file, or the bundled `solar-valley`."
    )


class OnOffSection(Section):
    """Pauses running work above one intensity, resumes it below another."""

    pause_above: Intensity = Field(description="gCO2eq/kWh above which running work pauses at a checkpoint.")
    resume_below: Intensity = Field(description="gCO2eq/kWh at or below which it goes on; at most pause_above.")


class PolicySection(Choice):
    """When experiments start; exactly one key."""

    threshold: Plain | None = Field(None, description="At or below their tier's threshold, or past its max_delay.")
    immediate: Plain | None = Field(None, description="As soon as a device is free.")
    on_off: OnOffSection | None = Field(None, description="Between two limits, pausing what runs.")


class DeviceSection(Section):
    """One accelerator, or one share of a CPU."""

    name: Name = Field(description="What reports call it.")
    memory_gb: Annotated[float, Number(above=0, most=1_000_000)] | None = Field(None, description="Memory, in GB.")
    speed: Annotated[float, Number(least=0.001, most=1000)] = Field(
        1.0, description="Divides the estimated duration: 2 is twice as fast."
    )
    power_w: Power | None = Field(None, description="Draw at full load, in W; default: estimates.power_w.")
    idle_power_w: Annotated[float, Number(least=0, most=1_000_000)] = Field(
        0.0, description="Draw in W while the sweep goes on and nothing runs on it."
    )


class EstimatesSection(Section):
    """What one experiment takes on a device of speed 1."""

    duration: Annotated[timedelta, Span()] = Field(description="How long it trains.")
    power_w: Power = Field(description="What it draws, in W.")


class ReplaySection(Section):
    """Lives through a past stretch of the grid."""

    start: Annotated[datetime, Moment()] = Field(alias="from", description="The instant of the grid at which it begins.")
    speed: Annotated[float, Number(above=0, most=1_000_000)] = Field(
        description="Seconds of the grid to one second of training."
    )


class ClockSection(Section):
    """What time it is for the sweep."""

    replay: ReplaySection = Field(description="Replay a past grid while training for real.")


_HOW_MANY = Number(least=1, most=1000, whole=True)

Designs = Annotated[DesignSection, choice_of(DESIGNS)]
Policies = Annotated[PolicySection, choice_of(POLICIES)]
Devices = Annotated[
    Annotated[tuple[DeviceSection, ...], Field(min_length=1, max_length=1000)],
    Shorthand(
        lambda value: (
            [{"name": f"device{i}"} for i in range(int(_HOW_MANY.read(value)))]
            if isinstance(value, int | float | str)
            else value
        ),
        _HOW_MANY.schema(),
    ),
]


class SpecFile(Section):
    """A sweep: what to train, when it may run, and on what."""

    name: Annotated[
        str, Word(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "lower-case letters, digits and '-', at most 63")
    ] | None = Field(None, description="The sweep's name; default: the file's.")
    model: Annotated[ModelSection, _JUST_ID] = Field(description="The base model: its id, or id and revision.")
    dataset: Annotated[DatasetSection, _JUST_ID] = Field(description="The dataset: its id, or a section.")
    recipe: RecipeSection = Field(RecipeSection(), description="How every experiment is trained.")
    space: SpaceSection | None = Field(None, description="The values of each hyperparameter.")
    design: Designs | None = Field(
        None, description="Which points are trained; default: grid where there is a space, else published."
    )
    tiers: Annotated[tuple[TierSection, ...], Field(min_length=1, max_length=100)] | None = Field(
        None, description="How long experiments may wait, and for what; default: the published three."
    )
    rules: Annotated[tuple[RuleSection, ...], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Which experiment goes to which tier; default: the published rules."
    )
    carbon: CarbonSection = Field(CarbonSection(), description="Where the carbon intensity comes from.")
    policy: Policies = Field(
        PolicySection(threshold=Plain()), description="When experiments start.", json_schema_extra={"default": "threshold"}
    )
    executor: Annotated[str, OneOf(EXECUTORS)] = Field("local", description="Where the workers run.")
    devices: Devices = Field(
        (DeviceSection(name="device0"),),
        description="How many devices, or a list of them.",
        json_schema_extra={"default": 1},
    )
    estimates: EstimatesSection = Field(description="The duration and power of one experiment, for plan and simulate.")
    tick: Annotated[timedelta, Span()] = Field(
        timedelta(minutes=30), description="How often the policy is asked.", json_schema_extra={"default": "30m"}
    )
    finish_by: Annotated[timedelta | datetime, SpanOrMoment()] | None = Field(
        None, description="When all must have ended: a span from the first submission, or an instant."
    )
    clock: ClockSection | None = Field(None, description="Default: the wall clock.")
