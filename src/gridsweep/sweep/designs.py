"""Designs: which points of a space are trained, and the tier of each point."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from math import prod

from gridsweep.sweep.experiments import PARAMS, LoraParams, number
from gridsweep.sweep.tiers import Condition, Rule, Tier

PUBLISHED_TIERS = (
    Tier("tier1", 225.0, timedelta(hours=24), 1),
    Tier("tier2", 175.0, timedelta(hours=48), 2),
    Tier("tier3", 125.0, timedelta(hours=96), 3),
)

_RANK_32 = Condition("r", "==", 32)

# Kept as published, although it puts the best region, r=32 with alpha=128, into the tier that waits longest.
PUBLISHED_RULES = (
    Rule("tier1", (Condition("r", "==", 16),)),
    Rule("tier3", (_RANK_32, Condition("alpha", "==", 128.0))),
    Rule("tier3", (_RANK_32, Condition("dropout", ">=", 0.15))),
    Rule("tier3", (_RANK_32, Condition("lr", "<=", 1e-5))),
    Rule("tier2"),
)


@dataclass(frozen=True, slots=True)
class Space:
    """The values of each hyperparameter, in the order they are tried, without duplicates."""

    r: tuple[int, ...]
    alpha: tuple[float, ...]
    lr: tuple[float, ...]
    dropout: tuple[float, ...]

    @property
    def size(self) -> int:
        """The number of points in the full grid."""
        return prod(len(axis) for axis in (self.r, self.alpha, self.lr, self.dropout))

    def axis(self, param: str) -> tuple[float, ...]:
        values: tuple[float, ...] = getattr(self, param)
        return values

    @property
    def first(self) -> LoraParams:
        """The first value of every axis."""
        return LoraParams(self.r[0], self.alpha[0], self.lr[0], self.dropout[0])


def published() -> tuple[LoraParams, ...]:
    """Return the 21 points of the published sweep in their order, the baseline first."""
    return (
        LoraParams(16, 32.0, 1e-4, 0.10),
        LoraParams(16, 64.0, 1e-4, 0.10),
        LoraParams(16, 128.0, 1e-4, 0.10),
        LoraParams(16, 32.0, 5e-5, 0.10),
        LoraParams(16, 32.0, 1e-5, 0.10),
        LoraParams(16, 32.0, 1e-4, 0.05),
        LoraParams(16, 32.0, 1e-4, 0.15),
        LoraParams(16, 64.0, 5e-5, 0.10),
        LoraParams(32, 32.0, 1e-4, 0.10),
        LoraParams(32, 64.0, 1e-4, 0.05),
        LoraParams(32, 64.0, 1e-4, 0.10),
        LoraParams(32, 64.0, 5e-5, 0.10),
        LoraParams(32, 128.0, 1e-4, 0.10),
        LoraParams(32, 64.0, 1e-5, 0.10),
        LoraParams(32, 64.0, 1e-4, 0.15),
        LoraParams(32, 128.0, 5e-5, 0.10),
        LoraParams(32, 128.0, 1e-4, 0.05),
        LoraParams(32, 128.0, 1e-4, 0.15),
        LoraParams(32, 32.0, 1e-4, 0.15),
        LoraParams(32, 128.0, 1e-5, 0.10),
        LoraParams(32, 32.0, 5e-5, 0.15),
    )


def grid(space: Space) -> tuple[LoraParams, ...]:
    """Return every point of the space, the last axis varying fastest."""
    return tuple(LoraParams(*point) for point in product(space.r, space.alpha, space.lr, space.dropout))


def one_factor(space: Space, baseline: LoraParams) -> tuple[LoraParams, ...]:
    """Return the baseline, then each axis varied alone with the others held at the baseline."""
    varied = (
        replace(baseline, **{param: value})  # type: ignore[arg-type]  # the axes have the parameters' types
        for param in PARAMS
        for value in space.axis(param)
        if value != getattr(baseline, param)
    )
    return (baseline, *varied)


def sample(space: Space, n: int, seed: int, tier_of: Callable[[LoraParams], str]) -> tuple[LoraParams, ...]:
    """Return `n` points of the grid, sorted; each tier gets its share of the grid to within one point.

    Seats are assigned by largest remainder; within a tier, the points with the smallest digest of seed and point
    are taken, so that neither the order of axes nor that of calls matters. Raises `ValueError` for an `n`
    outside 0 to the size of the grid.
    """
    if not 0 <= n <= space.size:
        raise ValueError(f"cannot draw {n} points from a grid of {space.size}; draw no more than the grid has")
    by_tier: defaultdict[str, list[LoraParams]] = defaultdict(list)
    for params in grid(space):
        by_tier[tier_of(params)].append(params)
    seats = {tier: n * len(points) // space.size for tier, points in by_tier.items()}
    remainder = {tier: n * len(points) % space.size for tier, points in by_tier.items()}
    by_claim = sorted(by_tier, key=lambda tier: (-remainder[tier], tier))
    for tier in by_claim[: n - sum(seats.values())]:
        seats[tier] += 1
    drawn = (sorted(points, key=lambda p: _draw(seed, p))[: seats[tier]] for tier, points in by_tier.items())
    return tuple(sorted(params for points in drawn for params in points))


def assign(params: LoraParams, rules: Iterable[Rule]) -> Rule | None:
    """Return the first rule that holds for the point, or None."""
    return next((rule for rule in rules if rule.holds(params)), None)


def _draw(seed: int, params: LoraParams) -> bytes:
    point = ",".join(number(getattr(params, param)) for param in PARAMS)
    return hashlib.sha256(f"{seed}:{point}".encode()).digest()
