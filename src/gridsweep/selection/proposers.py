"""The interface of proposers, which suggest points for free places in a sweep, and the built-in proposer.

A proposer is asked for points and told their values, as an Optuna study is. The caller decides when a place is free
and what a point costs; a proposer knows only points and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import Protocol

from gridsweep.sweep.experiments import LoraParams
from gridsweep.sweep.search_space import edges, near_duplicates

PREFERRED = ("lr", "alpha", "r", "dropout")
"""The learning rate first: LoRA is most sensitive to it, and the rank matters little on small data."""


class Proposer(Protocol):
    """Proposes points of the space, one at a time."""

    def ask(self) -> LoraParams | None:
        """Return the next point to try; None if no point is worth trying."""

    def tell(self, params: LoraParams, value: float) -> None:
        """Record the value of a point, lower is better; NaN or infinite if it diverged."""


Proposers = Callable[[Iterable[LoraParams]], Proposer]
"""Builds a proposer from the tried points, before it is told any value."""


class BeyondTheEdge:
    """Proposes points beyond the edge of the tried space: the best point so far, one parameter further out.

    Deterministic: the same points told, in any order, lead to the same proposals. A proposed point counts as tried, so
    several free places get different points; a point that nearly coincides with a tried point of its rank is skipped.
    Once the best point lies inside the space, there is no proposal.
    """

    def __init__(self, tried: Iterable[LoraParams] = ()):
        """`tried` are the sweep's points, with or without a value so far."""
        self._tried = set(tried)
        self._values: dict[LoraParams, list[float]] = {}

    def ask(self) -> LoraParams | None:
        best = self._best()
        if best is None:
            return None
        found = {edge.param: edge for edge in edges(best, sorted(self._tried))}
        for param in PREFERRED:
            if param in found:
                point = found[param].applied(best)
                if not self._known(point):
                    self._tried.add(point)
                    return point
        return None

    def tell(self, params: LoraParams, value: float) -> None:
        self._tried.add(params)
        self._values.setdefault(params, []).append(value)

    def _best(self) -> LoraParams | None:
        """Return the point with the lowest mean over its repeats; among equal points the first in order."""
        means = {params: _mean(values) for params, values in self._values.items()}
        best = min(means, key=lambda params: (means[params], params), default=None)
        return best if best is not None and means[best] < inf else None

    def _known(self, point: LoraParams) -> bool:
        return any(point == other or near_duplicates((point, other), same_rank=True) for other in self._tried)


def _mean(values: list[float]) -> float:
    """Return the mean; infinite if any value is not finite. Values are sorted first, as sums depend on their order."""
    return sum(sorted(values)) / len(values) if all(map(isfinite, values)) else inf
