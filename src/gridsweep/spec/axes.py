"""The axes in `sweep.yaml`: what each may hold, as one value, as a value of a space, or as a range."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any  # a JSON schema, or a YAML value

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gridsweep.spec.values import Flag, Number, OneOf, Shorthand, Value, Word, nearest, shown
from gridsweep.spec.yaml_lines import NUMBER
from gridsweep.sweep.experiments import ALL_LINEAR
from gridsweep.sweep.losses import DECIDES
from gridsweep.sweep.space import Range, Relation

MOST_POINTS = 10_000


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetModules(Value):
    """Names of modules, or `all-linear` alone."""

    _word = Word(rf"{ALL_LINEAR}|[\w.]{{1,100}}", "the name of a module")

    def read(self, value: object) -> tuple[str, ...]:
        given = [value] if value == ALL_LINEAR else value
        if not isinstance(given, list | tuple) or not given:
            if difflib.get_close_matches(_letters(value), ["alllinear"], cutoff=0.85):
                raise ValueError(f"unknown value {shown(value)}; did you mean {ALL_LINEAR}?")
            raise ValueError(f"must be a list of names, or {ALL_LINEAR}, not {shown(value)}")
        for name in given:
            if name != ALL_LINEAR and difflib.get_close_matches(_letters(name), ["alllinear"], cutoff=0.85):
                raise ValueError(f"unknown value {shown(name)}; did you mean {ALL_LINEAR}?")
        names = tuple(self._word.read(name) for name in given)
        if ALL_LINEAR in names and len(names) > 1:
            raise ValueError(f"{ALL_LINEAR} stands for all modules; write target_modules: {ALL_LINEAR} or names alone")
        return names

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": ALL_LINEAR}, {"type": "array", "items": self._word.schema(), "minItems": 1}]}


def _letters(value: object) -> str:
    return re.sub(r"[^a-z]", "", value.lower()) if isinstance(value, str) else ""


_COUNT = Number(least=1, most=10_000_000, whole=True)
KINDS: dict[str, Value] = {
    "r": Number(least=1, most=65_536, whole=True),
    "alpha": Number(above=0, most=1_000_000),
    "lr": Number(above=0, most=100),
    "dropout": Number(least=0, below=1),
    "accumulation": _COUNT,
    "batch_size": _COUNT,
    "clip": Number(above=0),
    "epochs": Number(above=0, most=10_000),
    "layers": OneOf(("all", "upper-half")),
    "learning_rate_schedule": OneOf(tuple(DECIDES)),
    "lora_plus": Number(least=1, most=1000),
    "max_length": _COUNT,
    "rslora": Flag(),
    "seed": Number(least=0, below=2**32, whole=True),
    "steps": _COUNT,
    "target_modules": TargetModules(),
    "warmup": Number(least=0, below=1),
    "weight_decay": Number(least=0, most=10),
}
"""What each axis may hold, as the recipe."""

RANGES = ("uniform", "log_uniform", "int")


@dataclass(frozen=True)
class Element(Value):
    """One value of an axis: of its kind, or a relation to another axis (`2*r`, `r/2`), or a range already read."""

    key: str

    def read(self, value: object) -> object:
        kind = KINDS[self.key]
        if isinstance(value, Range):
            self._fits(value)
            for bound in (value.low, value.high):
                kind.read(bound)
            return value
        if isinstance(kind, Number) and isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
            return self._relation(value)
        return kind.read(value)

    def _fits(self, value: Range) -> None:
        """Raise `ValueError` for a range of another kind than the axis has."""
        kinds = ranges_of(self.key)
        if not kinds:
            raise ValueError("has words or truth values, of which there is no range; list them")
        if value.kind not in kinds:
            bounds = f"[{shown(value.low)}, {shown(value.high)}]"
            numbers = "whole numbers" if kinds == ("int",) else "more than whole numbers"
            raise ValueError(f"has {numbers}; write {{{kinds[0]}: {bounds}}}")

    def _relation(self, value: str) -> Relation:
        number = NUMBER.pattern.replace("(", "(?:")
        match = re.fullmatch(rf"(?:({number})\s*\*\s*)?([a-z_]+)(?:\s*/\s*({number}))?", value.strip(), re.ASCII)
        numbers = [key for key, kind in KINDS.items() if isinstance(kind, Number)]
        if match is None:
            allowed = KINDS[self.key].allowed  # type: ignore[attr-defined]  # a Number's
            raise ValueError(f"must be {allowed}, or follow from another axis as in 2*r, not {shown(value)}")
        if match[2] == self.key:
            raise ValueError(f"{shown(value)} follows its own axis; name another")
        if match[2] not in numbers:
            raise ValueError(f"{match[2]} is no axis to follow; {nearest(match[2], numbers)}")
        times, over = float(match[1] or 1), float(match[3] or 1)
        factor = times / over if over else 0.0
        if factor <= 0:
            raise ValueError(f"{shown(value)} is not above 0")
        return Relation(factor, match[2])

    def schema(self) -> dict[str, Any]:
        own = KINDS[self.key].schema()
        if not isinstance(KINDS[self.key], Number):
            return own
        return {"anyOf": [own, {"type": "string", "pattern": r"^[-+.\d eE*]*[a-z_]+( */ *[.\d]+)?$"}]}


def _values(value: object) -> object:
    """Return the values of an axis as a list: one value, or a range, stands alone."""
    if isinstance(value, dict):
        return [_range(value)]
    return value if isinstance(value, list) else [value]


def _range(value: Mapping[str, Any]) -> Range:
    if len(value) != 1 or (kind := next(iter(value))) not in RANGES:
        unknown = next((key for key in value if key not in RANGES), "")
        hint = f"; {nearest(str(unknown), RANGES)}" if unknown else ""
        raise ValueError(f"must be a list, or a range such as {{log_uniform: [1e-5, 1e-3]}}{hint}")
    bounds = value[kind]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise ValueError(f"{kind} needs two bounds, such as [1e-5, 1e-3], not {shown(bounds)}")
    low, high = (Number(whole=kind == "int").read(bound) for bound in bounds)
    if not low < high:
        raise ValueError(f"{kind} must rise, and goes from {shown(low)} to {shown(high)}")
    if kind == "log_uniform" and low <= 0:
        raise ValueError(f"log_uniform must begin above 0, not at {shown(low)}")
    return Range(kind, low, high)  # type: ignore[arg-type]  # one of RANGES


def _no_duplicates(values: tuple[object, ...]) -> tuple[object, ...]:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value if isinstance(value, Relation) else shown(value)} is given twice; delete one")
        seen.add(value)
    return values


def ranges_of(key: str) -> tuple[str, ...]:
    """Return the kinds of ranges that an axis may be."""
    kind = KINDS[key]
    if not isinstance(kind, Number):
        return ()
    return ("int",) if kind.whole else ("uniform", "log_uniform")


def _range_schema(key: str) -> dict[str, Any]:
    hows = {"uniform": "evenly", "log_uniform": "each order of magnitude alike", "int": "whole numbers"}
    bounds = {"type": "array", "items": Number().schema(), "minItems": 2, "maxItems": 2}
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {
            kind: {**bounds, "description": f"From the first to the second value, {hows[kind]}."}
            for kind in ranges_of(key)
        },
    }


def axis(key: str) -> Any:
    """Return the type of an axis in a space: a list of its values, or one range."""
    forms = [Element(key).schema(), *([_range_schema(key)] if ranges_of(key) else [])]
    short = Shorthand(_values, {"anyOf": forms})
    size = Field(min_length=1, max_length=MOST_POINTS)
    return Annotated[tuple[Annotated[Any, Element(key)], ...], size, AfterValidator(_no_duplicates), short]
