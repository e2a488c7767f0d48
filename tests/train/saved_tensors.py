"""A count of what autograd keeps after one pass."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gridsweep.train.lean.memory import Kept


def saved_bytes(forward: Callable[[], Tensor], weights: list[Tensor]) -> int:
    """How many bytes autograd keeps after `forward`, whose result is still there; `weights` do not count."""
    with Kept(weights) as kept:
        result = forward()
    del result
    return kept.most
