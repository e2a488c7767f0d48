"""Who proposes another point when a place in the sweep has become free, and the one proposer that is built in.

A proposer is asked for a point and told what became of points: an Optuna study has that shape too. It is the caller's
to say when a place is free and what a point costs; a proposer only knows points and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import Protocol

from gridsweep.sweep.experiments import LoraParams
from gridsweep.sweep.search_space import edges, near_duplicates

PREFERRED = ("lr", "alpha", "r", "dropout")
"""The learning rate first: it is what LoRA answers to most, and the rank matters little on small data."""


class Proposer(Protocol):
    """Proposes points of the space, one at a time."""

    def ask(self) -> LoraParams | None:
        """The next point to try, or None while there is none worth it."""

    def tell(self, params: LoraParams, value: float) -> None:
        """The value a point reached, the lower the better; NaN or infinite where it diverged."""


Proposers = Callable[[Iterable[LoraParams]], Proposer]
"""Makes a proposer that knows which points were tried, and has been told of none yet."""


class BeyondTheEdge:
    """Proposes points beyond the edge of what was tried: the best point so far, one parameter further out.

    Nothing is drawn: the same points told, in whatever order, get the same proposals. A proposed point counts as tried
    from then on, so that several free places go different ways; one that nearly coincides with a tried point of its
    rank is passed over. Once the best point lies inside the space, there is nothing to propose.
    """

    def __init__(self, tried: Iterable[LoraParams] = ()):
        """`tried` are the sweep's points, told of already or not."""
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
        """The point with the least mean over its repeats; one of equal points, the first in order."""
        means = {params: _mean(values) for params, values in self._values.items()}
        best = min(means, key=lambda params: (means[params], params), default=None)
        return best if best is not None and means[best] < inf else None

    def _known(self, point: LoraParams) -> bool:
        return any(point == other or near_duplicates((point, other), same_rank=True) for other in self._tried)


def _mean(values: list[float]) -> float:
    """Infinite if one of them is: a point that diverged once is no winner. Sorted first, as sums depend on order."""
    return sum(sorted(values)) / len(values) if all(map(isfinite, values)) else inf
