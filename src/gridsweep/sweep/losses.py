"""Losses per sample, for paired comparisons of experiments."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, TypeAlias

ScoreName: TypeAlias = Literal["averaged", "raw"]
DECIDES: dict[str, ScoreName] = {"cosine": "averaged", "linear": "averaged", "constant": "raw"}
"""The loss that decides at a rung, by learning-rate schedule: of averaged weights if the rate decays to 0."""


def which_score(schedule: str) -> ScoreName:
    """Return the score that decides under a learning-rate schedule. Raise `ValueError` for an unknown schedule."""
    if schedule not in DECIDES:
        raise ValueError(f"no learning-rate schedule {schedule!r}; choose one of: {', '.join(DECIDES)}")
    return DECIDES[schedule]


@dataclass(frozen=True, slots=True)
class Losses:
    """One experiment's losses on the validation samples, in an order that all experiments share.

    `values` are means over each sample's tokens, nats per token, NaN or infinite if the experiment diverged; `tokens`
    are the counted tokens of each sample, possibly 0. Raises `ValueError` if lengths differ or counts are invalid.
    """

    values: tuple[float, ...]
    tokens: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.tokens):
            raise ValueError(f"got {len(self.values)} losses for {len(self.tokens)} token counts")
        if not all(isfinite(count) and count >= 0 for count in self.tokens) or not sum(self.tokens):
            raise ValueError("token counts must be finite, not negative, and not all 0")

    @property
    def mean(self) -> float:
        """The mean loss over tokens, nats; NaN or infinite if the experiment diverged."""
        counted = [(loss, count) for loss, count in zip(self.values, self.tokens, strict=True) if count]
        return sum(loss * count for loss, count in counted) / sum(self.tokens)

    @property
    def finite(self) -> bool:
        """Whether every sample with counted tokens has a finite loss."""
        return all(isfinite(loss) for loss, count in zip(self.values, self.tokens, strict=True) if count)
