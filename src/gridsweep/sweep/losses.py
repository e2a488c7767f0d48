"""Losses sample by sample, so that experiments can be compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeAlias

ScoreName: TypeAlias = Literal["averaged", "raw"]
DECIDES: dict[str, ScoreName] = {"cosine": "averaged", "linear": "averaged", "constant": "raw"}
"""Which loss decides at a rung, by learning-rate schedule: with averaged weights where the rate decays to 0."""


@dataclass(frozen=True, slots=True)
class Losses:
    """One experiment's losses on the validation samples, in an order that all experiments share.

    `values` are means over each sample's tokens, nats a token, NaN or infinite where it diverged; `tokens` are the
    tokens that count, 0 for a sample that has none. Raises `ValueError` where the two do not belong together.
    """

    values: tuple[float, ...]
    tokens: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.tokens):
            raise ValueError(f"{len(self.values)} losses do not belong to {len(self.tokens)} counts of tokens")
        if not all(isfinite(count) and count >= 0 for count in self.tokens) or not sum(self.tokens):
            raise ValueError("counts of tokens are finite, none below 0, and at least one above")

    @property
    def mean(self) -> float:
        """Over tokens, nats; NaN or infinite for an experiment that diverged."""
        counted = [(loss, count) for loss, count in zip(self.values, self.tokens, strict=True) if count]
        return sum(loss * count for loss, count in counted) / sum(self.tokens)

    @property
    def finite(self) -> bool:
        """Whether every sample that counts has a loss."""
        return all(isfinite(loss) for loss, count in zip(self.values, self.tokens, strict=True) if count)
