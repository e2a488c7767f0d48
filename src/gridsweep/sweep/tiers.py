"""Tiers: how long an experiment may wait, for which intensity, and the rules that choose one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from gridsweep.sweep.experiments import LoraParams, number


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
        return _OPERATORS[self.op](left, self.value)

    def __str__(self) -> str:
        return f"{self.param} {self.op} {number(self.value)}"


_OPERATORS: dict[str, Callable[[float, float], bool]] = {
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


TRAILING = timedelta(days=28)
"""Over so much of the past a percentile is taken."""
