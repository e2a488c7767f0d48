"""The sections of `sweep.yaml` that define what is trained: model, dataset, recipe, space, design."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gridsweep.spec.values import (
    Flag,
    Number,
    OneOf,
    Shorthand,
    Word,
    choice_of,
    shown,
)
from gridsweep.sweep.experiments import Dataset, Recipe
from gridsweep.sweep.losses import DECIDES

MOST_POINTS = 10_000
DESIGNS = ("published", "grid", "one_factor", "sample")

_RECIPE, _DATASET = Recipe(), Dataset("")

_ID = r"[\w.-]+(/[\w.-]+)?|(\.{1,2}/|/|~)[^\x00-\x1f]{1,1000}|[^\x00-\x1f]{1,1000}\.jsonl?"

Id = Annotated[str, Word(_ID, "a Hugging Face id such as org/name, or a path starting with ./ or /")]
Revision = Annotated[str, Word(r"[\w./-]{1,255}", "a branch, tag or commit")]
Count = Annotated[int, Number(least=1, most=10_000_000, whole=True)]
Seed = Annotated[int, Number(least=0, below=2**32, whole=True)]
Share = Annotated[float, Number(least=0, below=1)]

Rank = Annotated[int, Number(least=1, most=65_536, whole=True)]
Alpha = Annotated[float, Number(above=0, most=1_000_000)]
LearningRate = Annotated[float, Number(above=0, most=100)]
Dropout = Annotated[float, Number(least=0, below=1)]


def _no_duplicates(values: tuple[float, ...]) -> tuple[float, ...]:
    seen: set[float] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{shown(value)} is given twice; delete one")
        seen.add(value)
    return values


def _axis(value: object) -> object:
    return [value] if isinstance(value, int | float | str) else value


def _named(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"must be an id such as org/name or a mapping with the key id, not {shown(value)}")
    return {"id": value} if isinstance(value, str) else value


_ONE_VALUE = Shorthand(_axis, Number().schema())
_JUST_ID = Shorthand(_named, {"type": "string", "pattern": f"^(?:{_ID})$"})
_AXIS = (Field(min_length=1, max_length=MOST_POINTS), AfterValidator(_no_duplicates), _ONE_VALUE)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """The base model that every experiment adapts."""

    id: Id = Field(description="A Hugging Face id, a local folder, or the name of a bundled model.")
    revision: Revision | None = Field(default=None, description="A branch, tag or commit of the model.")


class DatasetSection(Section):
    """The training data: pairs of prompt and response."""

    id: Id = Field(description="A Hugging Face id, a local folder or JSONL file, or `stdlib`.")
    revision: Revision | None = Field(default=None, description="A branch, tag or commit of the dataset.")
    split: Annotated[str, Word(r"[\w.\[\]:%+-]{1,100}", "the name of a split, such as train")] = Field(
        default=_DATASET.split, description="The split that training and validation samples come from."
    )
    train_samples: Count | None = Field(
        default=None, description="Number of training samples; required unless recipe.steps is given."
    )
    validation_samples: Count | None = Field(
        default=None, description="Number of validation samples; default: by recipe.validation_share."
    )


class RecipeSection(Section):
    """How each experiment is trained."""

    epochs: Annotated[float, Number(above=0, most=10_000)] = Field(
        default=_RECIPE.epochs, description="Passes over the training samples."
    )
    steps: Count | None = Field(default=None, description="Number of optimizer steps; overrides epochs.")
    batch_size: Count = Field(default=_RECIPE.batch_size, description="Samples in one forward pass.")
    accumulation: Count = Field(default=_RECIPE.accumulation, description="Forward passes per optimizer step.")
    max_length: Count = Field(default=_RECIPE.max_length, description="Longest sample in tokens; longer ones are cut.")
    learning_rate_schedule: Annotated[str, OneOf(tuple(DECIDES))] = Field(
        default=_RECIPE.learning_rate_schedule, description="The learning-rate schedule after the warm-up."
    )
    warmup: Share = Field(default=_RECIPE.warmup, description="Share of the steps over which the learning rate rises.")
    weight_decay: Annotated[float, Number(least=0, most=10)] = Field(
        default=_RECIPE.weight_decay, description="Weight decay of AdamW on the LoRA weights."
    )
    clip: Annotated[float, Number(above=0)] = Field(
        default=_RECIPE.clip, description="Largest gradient norm; larger gradients are clipped."
    )
    target_modules: Annotated[
        tuple[Annotated[str, Word(r"[\w.]{1,100}", "the name of a module")], ...], Field(min_length=1)
    ] = Field(default=_RECIPE.target_modules, description="The projections that get LoRA layers.")
    seed: Seed = Field(
        default=_RECIPE.seed, description="Seed of the split, the initial weights and the order of the samples."
    )
    validation_share: Annotated[float, Number(above=0, below=1)] = Field(
        default=_RECIPE.validation_share,
        description="Share of the samples used for validation if dataset.validation_samples is not given.",
    )
    checkpoint_every: Count = Field(default=_RECIPE.checkpoint_every, description="Steps between checkpoints.")
    layers: Annotated[str, OneOf(("all", "upper-half"))] = Field(
        default=_RECIPE.layers,
        description="Which decoder layers have adapters; with upper-half the lower half runs once for a whole pack.",
    )
    rslora: Annotated[bool, Flag()] = Field(
        default=_RECIPE.rslora, description="Scale adapters by alpha / sqrt(r) instead of alpha / r."
    )
    lora_plus: Annotated[float, Number(least=1, most=1000)] = Field(
        default=_RECIPE.lora_plus, description="LoRA+: the factor on the learning rate of matrix B."
    )


class ProxySection(Section):
    """Ranks experiments on a cheaper base model; the results are labelled as a proxy's."""

    base: Annotated[str, OneOf(("4-bit",))] = Field(
        description="Train over the base in 4 bits (NF4): less memory, but another model with other losses."
    )


class SpaceSection(Section):
    """The values of each hyperparameter: a list, or one number."""

    r: Annotated[tuple[Rank, ...], *_AXIS] = Field(description="LoRA rank.")
    alpha: Annotated[tuple[Alpha, ...], *_AXIS] = Field(description="LoRA alpha.")
    lr: Annotated[tuple[LearningRate, ...], *_AXIS] = Field(description="Peak learning rate.")
    dropout: Annotated[tuple[Dropout, ...], *_AXIS] = Field(description="Dropout of the LoRA layers, in [0, 1).")


class Plain(Section):
    """A choice without options."""


class BaselineSection(Section):
    """A point of the space; a missing key defaults to the first value of its axis."""

    r: Rank | None = Field(default=None, description="LoRA rank.")
    alpha: Alpha | None = Field(default=None, description="LoRA alpha.")
    lr: LearningRate | None = Field(default=None, description="Peak learning rate.")
    dropout: Dropout | None = Field(default=None, description="Dropout of the LoRA layers.")


class OneFactorSection(Section):
    """The baseline, then each axis varied alone."""

    baseline: BaselineSection = Field(
        default=BaselineSection(),
        description="The point to vary from; default: the first value of every axis.",
    )


class SampleSection(Section):
    """A sample of the grid in which each tier keeps its share."""

    n: Count = Field(description="How many points; at most the size of the grid.")
    seed: Seed = Field(default=42, description="Seed of the draw; the same seed draws the same points.")


class Choice(Section):
    """A mapping with exactly one key."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})


class DesignSection(Choice):
    """Which points of the space are trained; exactly one key."""

    published: Plain | None = Field(
        default=None, description="The 21 experiments of the published sweep; takes no space."
    )
    grid: Plain | None = Field(default=None, description="Every combination of the values.")
    one_factor: OneFactorSection | None = Field(default=None, description="The baseline, then each axis varied alone.")
    sample: SampleSection | None = Field(default=None, description="A sample of the grid, proportional to the tiers.")


Designs = Annotated[DesignSection, choice_of(DESIGNS, never_alone=("sample",))]
Models = Annotated[ModelSection, _JUST_ID]
Datasets = Annotated[DatasetSection, _JUST_ID]
