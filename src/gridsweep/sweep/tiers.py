"""Tiers: how long an experiment may wait, for which intensity, and the rules that assign a tier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any  # a value of an axis

from gridsweep.sweep.experiments import LoraParams, number, text


@dataclass(frozen=True, slots=True)
class Percentile:
    """A threshold that adapts to the grid: `percent` of the slots of the last 28 days lie at or below it."""

    percent: float

    def __str__(self) -> str:
        return f"p{number(self.percent)}"


@dataclass(frozen=True, slots=True)
class Tier:
    """How long work may wait, and for what: a threshold (gCO2eq/kWh or a percentile), a maximum delay, a rank."""

    name: str
    threshold: float | Percentile
    max_delay: timedelta
    rank: int

    @property
    def limit(self) -> str:
        """The threshold as text for display."""
        if isinstance(self.threshold, Percentile):
            return f"{self.threshold} of the last 28 days"
        return f"{number(self.threshold)} gCO2eq/kWh"


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison on one axis: `dropout >= 0.15`; words are equal or not."""

    param: str
    op: str
    value: float | str

    def holds(self, params: LoraParams) -> bool:
        left = params.value(self.param)
        if isinstance(self.value, str):
            return (text(left) == self.value) == (self.op == "==")
        return _OPERATORS[self.op](left, self.value)

    def __str__(self) -> str:
        return f"{self.param} {self.op} {text(self.value)}"


_OPERATORS: dict[str, Callable[[Any, float], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Assigns experiments that meet all conditions to a tier; the first matching rule decides."""

    tier: str
    when: tuple[Condition, ...] = ()

    def holds(self, params: LoraParams) -> bool:
        return all(condition.holds(params) for condition in self.when)

    @property
    def reason(self) -> str:
        return " and ".join(map(str, self.when)) if self.when else "no other rule matched"


TRAILING = timedelta(days=28)
"""The period over which a percentile is taken."""
