"""The space of a sweep: what each axis may be, by itself or in relation to another, and which points are excluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, floor, log, prod
from typing import Any, Literal, TypeAlias  # values of any axis

from gridsweep.sweep.axes import whole
from gridsweep.sweep.experiments import PARAMS, LoraParams, Setting, number
from gridsweep.sweep.tiers import Condition


@dataclass(frozen=True, slots=True)
class Relation:
    """A value that follows from another axis of the same point: `2*r`."""

    factor: float
    key: str

    def __str__(self) -> str:
        return self.key if self.factor == 1 else f"{number(self.factor)}*{self.key}"


@dataclass(frozen=True, slots=True)
class Range:
    """All values from `low` to `high`; `log_uniform` draws each order of magnitude alike, `int` whole numbers."""

    kind: Literal["uniform", "log_uniform", "int"]
    low: float
    high: float

    def at(self, share: float) -> float | int:
        """Return the value at a share in [0, 1) of the range, to three digits."""
        if self.kind == "int":
            return int(self.low) + floor(share * (int(self.high) - int(self.low) + 1))
        if self.kind == "log_uniform":
            value = exp(log(self.low) + share * (log(self.high) - log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(float(f"{value:.3g}"), self.low), self.high)


Listed: TypeAlias = tuple[Setting | Relation, ...]
Values: TypeAlias = Listed | Range


@dataclass(frozen=True, slots=True)
class Space:
    """The values of each axis, in the order they are tried, without duplicates; the four of LoRA first.

    A point that meets all conditions of one of `exclude` is not tried.
    """

    r: Values
    alpha: Values
    lr: Values
    dropout: Values
    more: tuple[tuple[str, Values], ...] = ()
    exclude: tuple[tuple[Condition, ...], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The axes, in the order in which they vary, the last fastest."""
        return (*PARAMS, *(key for key, _ in self.more))

    def axis(self, key: str) -> Values:
        values: Values = getattr(self, key) if key in PARAMS else dict(self.more)[key]
        return values

    @property
    def ranges(self) -> list[str]:
        """The axes that are ranges."""
        return [key for key in self.keys if isinstance(self.axis(key), Range)]

    @property
    def listed(self) -> list[Listed]:
        """The values of each axis. Raise `ValueError` if one is a range."""
        found = []
        for key in self.keys:
            values = self.axis(key)
            if isinstance(values, Range):
                raise ValueError(f"{key} is a range, which has no end of values; list them, or draw a sample")
            found.append(values)
        return found

    @property
    def size(self) -> int:
        """The number of combinations of listed values, before points are excluded."""
        return prod(len(values) for values in self.listed)

    @property
    def first(self) -> LoraParams:
        """The first value of every axis, the least of a range."""
        return self.at([0.0] * len(self.keys))

    def at(self, shares: Sequence[float]) -> LoraParams:
        """Return the point at shares in [0, 1) of the axes."""
        values: dict[str, Setting | Relation] = {}
        for key, share in zip(self.keys, shares, strict=True):
            axis = self.axis(key)
            values[key] = axis.at(share) if isinstance(axis, Range) else axis[floor(share * len(axis))]
        return self.point(values)

    def point(self, values: Mapping[str, Setting | Relation]) -> LoraParams:
        """Return the point with these values, its relations resolved. Raise `ValueError` for one that cannot be."""
        known = {key: value for key, value in values.items() if not isinstance(value, Relation)}
        found: dict[str, Any] = dict(known)
        for key, value in values.items():
            if isinstance(value, Relation):
                found[key] = _resolved(key, value, known)
        return point(found)

    def excludes(self, params: LoraParams) -> bool:
        return any(all(condition.holds(params) for condition in conditions) for conditions in self.exclude)


def point(values: Mapping[str, Any]) -> LoraParams:
    """Return the point with these values, of which the four of LoRA must be there."""
    more = tuple(sorted((key, value) for key, value in values.items() if key not in PARAMS))
    return LoraParams(values["r"], values["alpha"], values["lr"], values["dropout"], more)


def _resolved(key: str, relation: Relation, known: Mapping[str, Setting]) -> float | int:
    of = known.get(relation.key)
    if isinstance(of, bool) or not isinstance(of, int | float):
        raise ValueError(f"{key} is {relation}, but {relation.key} is no number that is given by itself")
    value = float(f"{relation.factor * of:.12g}")
    if not whole(key):
        return value
    if value != int(value) or value < 1:
        raise ValueError(f"{key} is {relation}, which is {number(value)} where {relation.key} is {number(of)}")
    return int(value)
