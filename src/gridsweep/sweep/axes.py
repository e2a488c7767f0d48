"""Axes: the keys of the recipe that a sweep may vary besides rank, alpha, learning rate and dropout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any, Literal  # values of any field

from gridsweep.sweep.experiments import Dataset, LoraParams, Recipe, Setting

Scale = Literal["factor", "difference"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A key that may be varied.

    `short` names it in ids. Members of a stint have equal values on axes that are `shared`: the order of the samples,
    their number in a step, their length, and the layers of the base that have adapters are of the whole stint. `scale`
    says how a value beyond the outermost one continues: None for words, and for numbers that are no quantity.
    """

    short: str
    shared: bool = False
    scale: Scale | None = None
    whole: bool = False


AXES = {
    "accumulation": Axis("acc", shared=True, scale="factor", whole=True),
    "batch_size": Axis("b", shared=True, scale="factor", whole=True),
    "clip": Axis("clip", scale="factor"),
    "epochs": Axis("e", shared=True, scale="factor"),
    "layers": Axis("on", shared=True),
    "learning_rate_schedule": Axis(""),
    "lora_plus": Axis("lp", scale="factor"),
    "max_length": Axis("len", shared=True, scale="factor", whole=True),
    "rslora": Axis("rs"),
    "seed": Axis("seed", shared=True, whole=True),
    "steps": Axis("s", shared=True, scale="factor", whole=True),
    "target_modules": Axis("to", shared=True),
    "warmup": Axis("w", scale="difference"),
    "weight_decay": Axis("wd", scale="factor"),
}
"""By key."""

UNEVEN = ("accumulation", "batch_size", "epochs", "steps")
"""Axes on which experiments differ in their number of steps, or in the samples of one."""

SCALES: dict[str, Scale] = {"r": "factor", "alpha": "factor", "lr": "factor", "dropout": "difference"}
WHOLE = ("r",)


def scale_of(key: str) -> Scale | None:
    """Return how values on an axis continue; None if they have no order."""
    return SCALES[key] if key in SCALES else AXES[key].scale


def whole(key: str) -> bool:
    """Return whether an axis has whole numbers only."""
    return key in WHOLE or (key in AXES and AXES[key].whole)


def recipe_of(recipe: Recipe, params: LoraParams) -> Recipe:
    """Return the recipe of a point: the sweep's, with the values of its further axes. The seed is the experiment's."""
    own: dict[str, Any] = {key: value for key, value in params.more if key != "seed"}
    return replace(recipe, **own) if own else recipe


def shared_of(params: LoraParams) -> tuple[tuple[str, Setting], ...]:
    """Return the values that all members of a point's stint have."""
    return tuple((key, value) for key, value in params.more if AXES[key].shared)


def total_steps(dataset: Dataset, recipe: Recipe) -> int:
    """Return the number of optimizer steps. Raise `ValueError` if it follows from an unknown number of samples."""
    if recipe.steps is not None:
        return recipe.steps
    if dataset.train_samples is None:
        raise ValueError("without recipe.steps, dataset.train_samples must be given")
    per_epoch = ceil(Fraction(dataset.train_samples, recipe.batch_size * recipe.accumulation))
    # exact arithmetic: in floats 500 * 0.07 is more than 35
    return ceil(per_epoch * Fraction(Decimal(repr(recipe.epochs))))


def work_of_a_step(own: Recipe, of: Recipe) -> float:
    """Return the samples of a step relative to those of a step of another recipe."""
    return own.batch_size * own.accumulation / (of.batch_size * of.accumulation)
