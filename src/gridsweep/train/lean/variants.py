"""How a member's LoRA differs from the plain one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gridsweep.sweep.experiments import LoraParams


@dataclass(frozen=True, slots=True)
class Variant:
    """rsLoRA scales by alpha / sqrt(r) instead of alpha / r; LoRA+ learns B `b_ratio` times as fast as A."""

    rslora: bool = False
    b_ratio: float = 1.0

    def scale(self, params: LoraParams) -> float:
        """What A B^T is multiplied by."""
        return params.alpha / (math.sqrt(params.r) if self.rslora else params.r)
