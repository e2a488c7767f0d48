"""The sections of `sweep.yaml` on early stopping, repeats, new points and packs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any  # a JSON schema

from pydantic import Field, model_validator

from gridsweep.spec.axes import Section
from gridsweep.spec.values import Number, OneOf, Shorthand, Value, shown
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs, scaled

DEFAULT = Rungs()
PROPOSERS = ("edge", "optuna")


@dataclass(frozen=True)
class ShareOfSteps(Value):
    """A share of all steps, between 0 and 1: `1/8` or `0.125`."""

    _pattern = r"^\s*(\d{1,6})\s*/\s*([1-9]\d{0,5})\s*$"
    _number = Number(above=0, below=1)

    def read(self, value: object) -> float:
        if isinstance(value, str) and (match := re.fullmatch(self._pattern, value, re.ASCII)):
            share = Fraction(int(match[1]), int(match[2]))
            if 0 < share < 1:
                return float(share)
        try:
            return float(self._number.read(value))
        except ValueError:
            what = f"must be a share above 0 and below 1, such as 1/8 or 0.125, not {shown(value)}"
            raise ValueError(what) from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._number.schema(), {"type": "string", "pattern": self._pattern}]}


class RungsSection(Section):
    """Successive halving: at each share of all steps experiments are compared, and the best continue."""

    at: Annotated[tuple[Annotated[float, ShareOfSteps()], ...], Field(min_length=1, max_length=20)] = Field(
        default=DEFAULT.at, description="Shares of all steps in rising order: 1/8, 0.25."
    )
    keep: Annotated[
        tuple[Annotated[int, Number(least=1, most=10_000, whole=True)], ...], Field(min_length=1, max_length=20)
    ] = Field(default=DEFAULT.keep, description="How many experiments continue after each rung, in falling order.")
    carry: Annotated[str, OneOf(("none", "baseline"))] = Field(
        default="none", description="baseline: train the baseline to the end beside the best, whatever its score."
    )

    when: Annotated[str, OneOf(("together", "each"))] = Field(
        default="together",
        description="together: a rung waits for all experiments; each: it compares each with earlier arrivals (ASHA).",
    )

    @model_validator(mode="after")
    def _sound(self) -> RungsSection:
        Rungs(self.at, self.keep)
        return self


def _or_none(value: object) -> object:
    if value == "none":
        return None
    if value == "default":
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"must be none, default or a mapping with at and keep, not {shown(value)}")
    return value


OptionalRungs = Annotated[RungsSection | None, Shorthand(_or_none, {"enum": ["none", "default"]})]


class RepeatsSection(Section):
    """Trains the best with more seeds once all experiments have ended."""

    seeds: Annotated[int, Number(least=2, most=100, whole=True)] = Field(
        default=Repeats().seeds, description="The total number of seeds, the first included."
    )
    finalists: Annotated[int, Number(least=1, most=1000, whole=True)] = Field(
        default=Repeats().finalists, description="How many of the best experiments are repeated."
    )


def _seeds(value: object) -> object:
    if isinstance(value, dict) or value is None:
        return value
    return None if value == "none" or (value == 1 and not isinstance(value, bool)) else {"seeds": value}


OptionalRepeats = Annotated[
    RepeatsSection | None,
    Shorthand(_seeds, {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 100}, {"const": "none"}]}),
]


class ProposeSection(Section):
    """Adds new points to the sweep in places that rungs have freed."""

    by: Annotated[str, OneOf(PROPOSERS)] = Field(
        default=Proposals().by,
        description="edge: the best point moved a step beyond the edge of the space; optuna: its sampler (an extra).",
    )
    most: Annotated[int, Number(least=1, most=1000, whole=True)] = Field(
        default=Proposals().most, description="The most points added in total."
    )


def _by(value: object) -> object:
    if value is None or isinstance(value, dict):
        return value
    return None if value == "none" else {"by": value}


OptionalProposals = Annotated[ProposeSection | None, Shorthand(_by, {"enum": ["none", *PROPOSERS]})]


MOST_PACKED = 10_000
"""The largest `pack`."""


@dataclass(frozen=True)
class Pack(Value):
    """The most experiments that are trained together: a number, or `auto`."""

    _number = Number(least=1, most=MOST_PACKED, whole=True)

    def read(self, value: object) -> int | None:
        if value == "auto":
            return None
        try:
            return int(self._number.read(value))
        except ValueError:
            raise ValueError(f"must be {self._number.allowed}, or auto, not {shown(value)}") from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._number.schema(), {"const": "auto"}]}


def rungs_of(section: RungsSection | None, given: bool, experiments: int, baseline: str) -> Rungs | None:
    """Return the rungs of a sweep: as given, or the default ones scaled to the number of experiments.

    None without rungs, or if none would stop an experiment.
    """
    if section is None:
        return None
    carried = (baseline,) if section.carry == "baseline" else ()
    together = section.when == "together"
    if given and section.keep != DEFAULT.keep:
        kept = [(at, keep) for at, keep in zip(section.at, section.keep, strict=True) if keep < experiments]
        made = Rungs(tuple(at for at, _ in kept), tuple(keep for _, keep in kept), carried, together)
    else:
        made = scaled(Rungs(section.at, section.keep, carried, together), experiments)
    return made if made.at else None
