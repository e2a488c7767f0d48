"""The learning-rate schedule: a function of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Recipe


def learning_rate(recipe: Recipe, peak: float, step: int, total: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `total`.

    The warm-up over the first `recipe.warmup` share of the steps rises linearly and reaches the peak in its
    last step. After that, `constant` stays at the peak; `linear` and `cosine` fall and reach 0 when all steps are
    done. Raise `SpecError` for an unknown schedule.
    """
    warmup = round(recipe.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    gone = (step - warmup) / max(1, total - warmup)
    match recipe.learning_rate_schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - gone)
        case "cosine":
            return peak * (1 + math.cos(math.pi * gone)) / 2
        case name:
            raise SpecError(f"no learning-rate schedule {name!r}; there are cosine, linear and constant")
