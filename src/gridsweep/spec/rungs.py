"""The sections of `sweep.yaml` on early stopping, repeats, new points and packs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any  # a JSON schema

from pydantic import Field, model_validator

from gridsweep.spec.axes import Section
from gridsweep.spec.values import Number, OneOf, Shorthand, Value, shown
from gridsweep.sweep.rung_prices import cheapest
from gridsweep.sweep.rungs import DEFAULT, EACH, EARLIER, Proposals, Repeats, Rungs, adapted, scaled

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


@dataclass(frozen=True)
class Percent(Value):
    """A share between 0 and 1, as a percentage or a number: `1 %`, `2.5%` or `0.025`."""

    _pattern = r"^\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*$"
    _number = Number(above=0, below=1)

    def read(self, value: object) -> float:
        match = re.fullmatch(self._pattern, value, re.ASCII) if isinstance(value, str) else None
        if match and 0 < float(match[1]) < 100:
            return float(match[1]) / 100
        try:
            return float(self._number.read(value))
        except ValueError:
            raise ValueError(f"must be a share such as 1 % or 0.01, above 0 and below 1, not {shown(value)}") from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._number.schema(), {"type": "string", "pattern": self._pattern}]}


class RungsSection(Section):
    """Successive halving: at each share of all steps experiments are compared, and the best continue."""

    at: Annotated[tuple[Annotated[float, ShareOfSteps()], ...] | None, Field(min_length=1, max_length=20)] = Field(
        default=None,
        description="Shares of all steps in rising order: 1/8, 0.25.",
        json_schema_extra={"default": list(DEFAULT.at)},
    )
    keep: Annotated[
        tuple[Annotated[int, Number(least=1, most=10_000, whole=True)], ...] | None, Field(min_length=1, max_length=20)
    ] = Field(
        default=None,
        description="How many experiments continue after each rung, in falling order.",
        json_schema_extra={"default": list(DEFAULT.keep)},
    )
    regret: Annotated[float | None, Percent()] = Field(
        default=None,
        description="The regret to allow, as a share of median - best: the cheapest rule measured to stay within it.",
    )
    carry: Annotated[str, OneOf(("none", "baseline"))] = Field(
        default="none", description="baseline: train the baseline to the end beside the best, whatever its score."
    )

    when: Annotated[str, OneOf(("together", "each"))] = Field(
        default="together",
        description="together: a rung waits for all experiments; each: it compares each with earlier arrivals (ASHA).",
    )

    @model_validator(mode="after")
    def _sound(self) -> RungsSection:
        if self.regret is not None:
            if self.at is not None or self.keep is not None:
                raise ValueError("regret picks at and keep; give either regret, or at and keep")
            cheapest(self.regret)
        self.rule()
        return self

    def rule(self) -> Rungs:
        """Return the rule for 21 experiments. If `at` or `keep` is missing, three numbers go with the earlier default.

        Raises `ValueError` if they do not fit.
        """
        if self.regret is not None:
            return cheapest(self.regret).rungs
        given = self.at if self.at is not None else self.keep
        usual = EARLIER if given is not None and len(given) == len(EARLIER.at) else DEFAULT
        return Rungs(usual.at if self.at is None else self.at, usual.keep if self.keep is None else self.keep)

    @property
    def chosen(self) -> bool:
        """Whether the rule is one that gridsweep chooses, for any number of experiments and steps."""
        return self.at is None and self.keep is None


def _or_none(value: object) -> object:
    if value == "none":
        return None
    if value == "default":
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"must be none, default or a mapping with at and keep, or regret, not {shown(value)}")
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


def rungs_of(
    section: RungsSection | None, experiments: int, baseline: str, total_steps: int, warmup: int
) -> Rungs | None:
    """Return the rungs of a sweep: as given, or those of a chosen rule for this number of experiments and steps.

    None without rungs, if none would stop an experiment, or if there are too few steps for them.
    """
    if section is None:
        return None
    carried = (baseline,) if section.carry == "baseline" else ()
    together = section.when == "together"
    rule = section.rule()
    if rule.drift is not None and not together:
        rule = EACH  # paired tests compare all at once
    rule = replace(rule, keep_always=carried, together=together)
    if section.chosen:
        made = adapted(rule, experiments, total_steps, warmup)
    elif section.keep in (None, EARLIER.keep, DEFAULT.keep):  # numbers meant for 21
        made = scaled(rule, experiments)
    else:
        kept = [(at, keep) for at, keep in zip(rule.at, rule.keep, strict=True) if keep < experiments]
        made = replace(rule, at=tuple(at for at, _ in kept), keep=tuple(keep for _, keep in kept))
    return made if made.at and len(made.at) < total_steps else None
