"""LoRA variants: how a member's LoRA differs from plain LoRA."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gridsweep.sweep.experiments import LoraParams


@dataclass(frozen=True, slots=True)
class Variant:
    """A LoRA variant: rsLoRA scales by alpha / sqrt(r), not alpha / r; LoRA+ learns B `b_ratio` times as fast as A."""

    rslora: bool = False
    b_ratio: float = 1.0

    def scale(self, params: LoraParams) -> float:
        """Return the factor of the product of A and B."""
        return params.alpha / (math.sqrt(params.r) if self.rslora else params.r)
