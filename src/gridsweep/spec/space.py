"""The sections of `sweep.yaml` that name axes: the space, conditions on it, its baseline, single points."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any  # a JSON schema, or a YAML value

from pydantic import ConfigDict, Field, create_model

from gridsweep.spec.axes import KINDS, Section, TargetModules, axis
from gridsweep.spec.values import Compared, Comparison, Flag, Number, Value, Word, nearest, shown
from gridsweep.sweep.experiments import text

NAMES = {
    "r": "LoRA rank.",
    "alpha": "LoRA alpha.",
    "lr": "Peak learning rate.",
    "dropout": "Dropout of the LoRA layers, in [0, 1).",
    "accumulation": "Forward passes per optimizer step.",
    "batch_size": "Samples in one forward pass.",
    "clip": "Largest gradient norm.",
    "epochs": "Passes over the training samples.",
    "layers": "Which decoder layers have adapters.",
    "learning_rate_schedule": "The learning-rate schedule after the warm-up.",
    "lora_plus": "LoRA+: the factor on the learning rate of matrix B.",
    "max_length": "Longest training sample in tokens; validation samples are cut as the recipe says.",
    "rslora": "Scale adapters by alpha / sqrt(r) instead of alpha / r.",
    "seed": "Seed of the initial weights and the order of the samples; the split keeps the recipe's.",
    "steps": "Number of optimizer steps.",
    "target_modules": "The projections that get LoRA layers: a list of lists.",
    "warmup": "Share of the steps over which the learning rate rises.",
    "weight_decay": "Weight decay of AdamW on the LoRA weights.",
}
"""The axes with what they are."""


@dataclass(frozen=True)
class Mappings(Value):
    """A list of mappings, each read by `one`."""

    what: str

    def read(self, value: object) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"must be {self.what}, not {shown(value)}")
        found = []
        for n, each in enumerate(value):
            if not isinstance(each, dict) or not each:
                raise ValueError(f"[{n}] must be a mapping of axes to values, not {shown(each)}")
            found.append({str(key): self._one(n, str(key), one) for key, one in each.items()})
        return tuple(found)

    def _one(self, n: int, key: str, value: object) -> object:
        if key not in KINDS:
            raise ValueError(f"[{n}].{key} is unknown; {nearest(key, KINDS)}")
        try:
            return self.one(key, value)
        except ValueError as error:
            raise ValueError(f"[{n}].{key} {error}") from None

    def one(self, key: str, value: object) -> object:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "minItems": 1, "items": self._point_schema()}

    def _point_schema(self) -> dict[str, Any]:
        return {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": self.properties()}

    def properties(self) -> dict[str, Any]:
        return {key: {**kind.schema(), "description": NAMES[key]} for key, kind in KINDS.items()}


@dataclass(frozen=True)
class Excluded(Mappings):
    """Conditions on points that are not tried: `[{r: 64, lr: ">= 1e-3"}]`."""

    what: str = 'a list of conditions such as [{r: 64, lr: ">= 1e-3"}]'

    def one(self, key: str, value: object) -> Comparison:
        return condition(key, value)

    def properties(self) -> dict[str, Any]:
        return {key: {**Condition(key).schema(), "description": what} for key, what in NAMES.items()}


@dataclass(frozen=True)
class Points(Mappings):
    """The points of a design: mappings, or the path of a CSV file."""

    what: str = "a list of points such as [{r: 16, lr: 1e-4}], or the path of a CSV file"

    def read(self, value: object) -> Any:
        if isinstance(value, str):
            return Word(r"[^\x00-\x1f]{1,1000}\.[cC][sS][vV]", "a list of points, or the path of a CSV file").read(
                value
            )
        return super().read(value)

    def one(self, key: str, value: object) -> object:
        return KINDS[key].read(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, super().schema()]}


def condition(key: str, value: object) -> Comparison:
    """Return a condition on an axis: a comparison of numbers, or a word that it must be (`"!= linear"`: not)."""
    kind = KINDS[key]
    if isinstance(kind, Number):
        return Compared().read(value)
    op, given = "==", value
    if isinstance(value, str) and (match := re.fullmatch(r"(==|!=)\s*(.*)", value.strip())):
        op, given = match[1], match[2]
        given = {"true": True, "false": False}.get(match[2], match[2]) if isinstance(kind, Flag) else match[2]
    if isinstance(kind, TargetModules) and isinstance(given, str):
        given = given.split("+")
    return Comparison(op, text(kind.read(given)))


class Condition(Value):
    """A condition on one axis."""

    def __init__(self, key: str):
        self.key = key

    def read(self, value: object) -> Comparison:
        return condition(self.key, value)

    def schema(self) -> dict[str, Any]:
        kind = KINDS[self.key]
        return Compared().schema() if isinstance(kind, Number) else {"anyOf": [kind.schema(), {"type": "string"}]}


def _fields(kind: Callable[[str], Any]) -> Any:
    """Return a section with an optional field for each axis, of the type that `kind` gives it."""
    fields = {key: (kind(key) | None, Field(default=None, description=what)) for key, what in NAMES.items()}
    return create_model("Axes", __base__=Section, **fields)  # type: ignore[call-overload]  # the names are data


_SPACE = _fields(axis)
_WHEN = _fields(lambda key: Annotated[Comparison, Condition(key)])
_BASELINE = _fields(lambda key: Annotated[Any, KINDS[key]])


class SpaceSection(_SPACE):  # type: ignore[misc, valid-type]  # its fields are the axes
    """The values of each hyperparameter: a list, one value, or a range; `exclude` leaves points out."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    exclude: Annotated[tuple[dict[str, Any], ...], Excluded()] = Field(
        default=(), description='Points that are not tried: [{r: 64, lr: ">= 1e-3"}].'
    )


class WhenSection(_WHEN):  # type: ignore[misc, valid-type]  # its fields are the axes
    """Conditions on the hyperparameters; all must hold."""


class BaselineSection(_BASELINE):  # type: ignore[misc, valid-type]  # its fields are the axes
    """A point of the space; a missing key defaults to the first value of its axis."""
