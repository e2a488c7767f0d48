"""The sections of `sweep.yaml` that define what is trained: model, dataset, recipe, space, design."""

from __future__ import annotations

from typing import Annotated, Any  # values of a point

from pydantic import ConfigDict, Field

from gridsweep.spec.axes import KINDS, Section
from gridsweep.spec.space import BaselineSection, Points
from gridsweep.spec.values import Number, OneOf, Shorthand, Word, choice_of, shown
from gridsweep.sweep.experiments import ALL_LINEAR, DATA_SUFFIXES, Dataset, Recipe

DESIGNS = ("published", "grid", "one_factor", "sample", "points")

_RECIPE, _DATASET = Recipe(), Dataset("")

_SUFFIXES = "|".join("".join(rf"[{c}{c.upper()}]" for c in suffix[1:]) for suffix in DATA_SUFFIXES)
_PATH = rf"(\.{{1,2}}/|/|~)[^\x00-\x1f]{{1,1000}}|[^\x00-\x1f]{{1,1000}}\.({_SUFFIXES})(\.[gG][zZ])?"
_ID = rf"[\w.-]+(/[\w.-]+)?|{_PATH}"
_SPLIT = r"[\w.\[\]:%+-]{1,100}"

Id = Annotated[str, Word(_ID, "a Hugging Face id such as org/name, or a path starting with ./ or /")]
Split = Annotated[str, Word(_SPLIT, "the name of a split, such as train")]
Validation = Annotated[str, Word(rf"{_SPLIT}|{_PATH}", "the name of a split, or a path starting with ./ or /")]
Column = Annotated[str, Word(r"[^\x00-\x1f]{1,200}", "the name of a column")]
Revision = Annotated[str, Word(r"[\w./-]{1,255}", "a branch, tag or commit")]
Count = Annotated[int, KINDS["steps"]]
Seed = Annotated[int, KINDS["seed"]]
Targets = Annotated[tuple[str, ...], KINDS["target_modules"]]
Share = Annotated[float, Number(least=0, below=1)]


def _named(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"must be an id such as org/name or a mapping with the key id, not {shown(value)}")
    return {"id": value} if isinstance(value, str) else value


def _of_split(value: object) -> object:
    return value["split"] if isinstance(value, dict) and value.keys() == {"split"} else value


_SPLIT_OF = {
    "type": "object",
    "properties": {"split": {"type": "string", "pattern": f"^(?:{_SPLIT})$", "description": "The name of a split."}},
    "required": ["split"],
    "additionalProperties": False,
}
_JUST_SPLIT = Shorthand(_of_split, _SPLIT_OF)
_JUST_ID = Shorthand(_named, {"type": "string", "pattern": f"^(?:{_ID})$"})


class ModelSection(Section):
    """The base model that every experiment adapts."""

    id: Id = Field(description="A Hugging Face id, a local folder, or the name of a bundled model.")
    revision: Revision | None = Field(default=None, description="A branch, tag or commit of the model.")
    chat_template: Annotated[str, Word(r"[^\x00-\x1f]{1,1000}", "the path of a Jinja file")] | None = Field(
        default=None,
        description="A Jinja file, relative to this file, in place of the tokenizer's chat template. Its text is kept.",
    )


class ColumnsSection(Section):
    """Which columns hold what, where their names are not understood: messages, or text, or prompt and response."""

    prompt: Column | None = Field(default=None, description="The column with the prompt.")
    response: Column | None = Field(default=None, description="The column with the response.")
    context: Column | None = Field(default=None, description="The column with a text that follows the prompt.")
    system: Column | None = Field(default=None, description="The column with the system turn.")
    history: Column | None = Field(default=None, description="The column with earlier questions and answers.")
    messages: Column | None = Field(default=None, description="The column with a whole conversation.")
    text: Column | None = Field(default=None, description="The column with a plain text, all of which is learned.")


class DatasetSection(Section):
    """The training data: conversations, pairs of prompt and response, or plain texts."""

    id: Id = Field(description="A Hugging Face id, a local folder or data file, or `stdlib`.")
    revision: Revision | None = Field(default=None, description="A branch, tag or commit of the dataset.")
    config: Column | None = Field(
        default=None, description="The configuration, where the dataset's card names several."
    )
    split: Split = Field(
        default=_DATASET.split, description="The split that training and validation samples come from."
    )
    train_samples: Count | None = Field(
        default=None, description="Number of training samples; required unless recipe.steps is given."
    )
    validation_samples: Count | None = Field(
        default=None, description="Number of validation samples; default: by recipe.validation_share."
    )
    columns: ColumnsSection | None = Field(
        default=None, description="Which columns hold what; default: by their names."
    )
    validation: Annotated[Validation, _JUST_SPLIT] | None = Field(
        default=None, description="A split or a path with the validation samples; default: a part of `split`."
    )
    train_on: Annotated[str, OneOf(("all_answers", "last_answer"))] = Field(
        default=_DATASET.train_on, description="Which answers of a conversation are learned."
    )
    skip_at_most: Share = Field(
        default=_DATASET.skip_at_most, description="Largest share of rows that may be unusable, such as blank ones."
    )


class RecipeSection(Section):
    """How each experiment is trained."""

    epochs: Annotated[float, KINDS["epochs"]] = Field(
        default=_RECIPE.epochs, description="Passes over the training samples."
    )
    steps: Count | None = Field(default=None, description="Number of optimizer steps; overrides epochs.")
    batch_size: Count = Field(default=_RECIPE.batch_size, description="Samples in one forward pass.")
    accumulation: Count = Field(default=_RECIPE.accumulation, description="Forward passes per optimizer step.")
    max_length: Count = Field(default=_RECIPE.max_length, description="Longest sample in tokens; longer ones are cut.")
    learning_rate_schedule: Annotated[str, KINDS["learning_rate_schedule"]] = Field(
        default=_RECIPE.learning_rate_schedule, description="The learning-rate schedule after the warm-up."
    )
    warmup: Annotated[float, KINDS["warmup"]] = Field(
        default=_RECIPE.warmup, description="Share of the steps over which the learning rate rises."
    )
    weight_decay: Annotated[float, KINDS["weight_decay"]] = Field(
        default=_RECIPE.weight_decay, description="Weight decay of AdamW on the LoRA weights."
    )
    clip: Annotated[float, KINDS["clip"]] = Field(
        default=_RECIPE.clip, description="Largest gradient norm; larger gradients are clipped."
    )
    target_modules: Targets = Field(
        default=_RECIPE.target_modules,
        description=f"The projections that get LoRA layers: names, or {ALL_LINEAR} for every one of the decoder.",
    )
    seed: Seed = Field(
        default=_RECIPE.seed, description="Seed of the split, the initial weights and the order of the samples."
    )
    validation_share: Annotated[float, Number(above=0, below=1)] = Field(
        default=_RECIPE.validation_share,
        description="Share of the samples used for validation if dataset.validation_samples is not given.",
    )
    checkpoint_every: Count = Field(default=_RECIPE.checkpoint_every, description="Steps between checkpoints.")
    layers: Annotated[str, KINDS["layers"]] = Field(
        default=_RECIPE.layers,
        description="Which decoder layers have adapters; with upper-half the lower half runs once for a whole pack.",
    )
    rslora: Annotated[bool, KINDS["rslora"]] = Field(
        default=_RECIPE.rslora, description="Scale adapters by alpha / sqrt(r) instead of alpha / r."
    )
    lora_plus: Annotated[float, KINDS["lora_plus"]] = Field(
        default=_RECIPE.lora_plus, description="LoRA+: the factor on the learning rate of matrix B."
    )


class ProxySection(Section):
    """Ranks experiments on a cheaper base model; the results are labelled as a proxy's."""

    base: Annotated[str, OneOf(("4-bit",))] = Field(
        description="Train over the base in 4 bits (NF4): less memory, but another model with other losses."
    )


class Plain(Section):
    """A choice without options."""


class OneFactorSection(Section):
    """The baseline, then each axis varied alone."""

    baseline: BaselineSection = Field(
        default=BaselineSection(),
        description="The point to vary from; default: the first value of every axis.",
    )


class SampleSection(Section):
    """A sample of the space."""

    n: Count = Field(description="How many points; at most the size of the grid.")
    seed: Seed = Field(default=42, description="Seed of the draw; the same seed draws the same points.")
    method: Annotated[str, OneOf(("tiers", "sobol", "random"))] | None = Field(
        default=None,
        description="tiers: of the grid, each tier keeps its share (the default without ranges); sobol: evenly spread "
        "(the default with ranges); random: independent draws.",
    )


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
    sample: SampleSection | None = Field(
        default=None, description="A sample: of a grid proportional to the tiers, or of ranges."
    )
    points: Annotated[tuple[dict[str, Any], ...] | str, Points()] | None = Field(
        default=None, description="The points themselves: a list of mappings, or the path of a CSV file with a header."
    )


Designs = Annotated[DesignSection, choice_of(DESIGNS, never_alone=("sample", "points"))]
Models = Annotated[ModelSection, _JUST_ID]
Datasets = Annotated[DatasetSection, _JUST_ID]
