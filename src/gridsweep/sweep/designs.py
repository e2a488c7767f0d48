"""Designs: which points of a space are trained, and the tier of each point."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import product
from typing import Literal

from gridsweep.sweep.experiments import PARAMS, LoraParams, Setting, number, text
from gridsweep.sweep.sobol import sobol
from gridsweep.sweep.space import Relation, Space
from gridsweep.sweep.tiers import Condition, Rule, Tier

PUBLISHED_TIERS = (
    Tier("tier1", 225.0, timedelta(hours=24), 1),
    Tier("tier2", 175.0, timedelta(hours=48), 2),
    Tier("tier3", 125.0, timedelta(hours=96), 3),
)

TRIES = 100
"""So many points are drawn for each that is wanted, before a space is said to have too few."""

_RANK_32 = Condition("r", "==", 32)

# Kept as published, although it puts the best region, r=32 with alpha=128, into the tier that waits longest.
PUBLISHED_RULES = (
    Rule("tier1", (Condition("r", "==", 16),)),
    Rule("tier3", (_RANK_32, Condition("alpha", "==", 128.0))),
    Rule("tier3", (_RANK_32, Condition("dropout", ">=", 0.15))),
    Rule("tier3", (_RANK_32, Condition("lr", "<=", 1e-5))),
    Rule("tier2"),
)


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
    """Return every point of the space, the last axis varying fastest, without those excluded and without repetitions.

    Raise `ValueError` for an axis that is a range, which has no end of values.
    """
    points = (space.point(dict(zip(space.keys, values, strict=True))) for values in product(*space.listed))
    return tuple(dict.fromkeys(params for params in points if not space.excludes(params)))


def one_factor(space: Space, baseline: LoraParams) -> tuple[LoraParams, ...]:
    """Return the baseline, then each axis varied alone with the others held at the baseline.

    An axis whose first value follows from another axis goes on following it.
    """
    held: dict[str, Setting | Relation] = dict(baseline.values)
    for key, values in zip(space.keys, space.listed, strict=True):
        if isinstance(values[0], Relation) and space.point({**held, key: values[0]}) == baseline:
            held[key] = values[0]
    varied = (
        space.point({**held, param: value})
        for param, values in zip(space.keys, space.listed, strict=True)
        for value in values
    )
    return tuple(dict.fromkeys([baseline, *(params for params in varied if not space.excludes(params))]))


def sample(space: Space, n: int, seed: int, tier_of: Callable[[LoraParams], str]) -> tuple[LoraParams, ...]:
    """Return `n` points of the grid, sorted; each tier gets its share of the grid to within one point.

    Seats are assigned by largest remainder; within a tier, the points with the smallest digest of seed and point
    are taken, so that neither the order of axes nor that of calls matters. Raises `ValueError` for an `n`
    outside 0 to the size of the grid.
    """
    every = grid(space)
    if not 0 <= n <= len(every):
        raise ValueError(f"cannot draw {n} points from a grid of {len(every)}; draw no more than the grid has")
    by_tier: defaultdict[str, list[LoraParams]] = defaultdict(list)
    for params in every:
        by_tier[tier_of(params)].append(params)
    seats = {tier: n * len(points) // len(every) for tier, points in by_tier.items()}
    remainder = {tier: n * len(points) % len(every) for tier, points in by_tier.items()}
    by_claim = sorted(by_tier, key=lambda tier: (-remainder[tier], tier))
    for tier in by_claim[: n - sum(seats.values())]:
        seats[tier] += 1
    drawn = (sorted(points, key=lambda p: _draw(seed, p))[: seats[tier]] for tier, points in by_tier.items())
    return tuple(sorted(params for points in drawn for params in points))


def drawn(space: Space, n: int, seed: int, method: Literal["sobol", "random"]) -> tuple[LoraParams, ...]:
    """Return `n` distinct points of lists and ranges: spread evenly (Sobol, shifted by the seed) or independent.

    Points that are excluded or there already are passed over. Raise `ValueError` if there are too few others.
    """
    shifts = [int.from_bytes(_digest(seed, key)[:4], "big") for key in space.keys]
    found: dict[LoraParams, None] = {}
    for index in range(n * TRIES):
        if len(found) == n:
            break
        if method == "sobol":
            shares = sobol(index, shifts)
        else:
            shares = tuple(int.from_bytes(_digest(seed, f"{key} {index}")[:4], "big") / 2**32 for key in space.keys)
        params = space.at(shares)
        if not space.excludes(params):
            found[params] = None
    if len(found) < n:
        raise ValueError(f"the space has too few points: of {n * TRIES:,} drawn, {len(found)} differ and are allowed")
    return tuple(found)


def assign(params: LoraParams, rules: Iterable[Rule]) -> Rule | None:
    """Return the first rule that holds for the point, or None."""
    return next((rule for rule in rules if rule.holds(params)), None)


def _draw(seed: int, params: LoraParams) -> bytes:
    values = [number(getattr(params, param)) for param in PARAMS]
    values += [f"{key}={text(value)}" for key, value in params.more]
    return _digest(seed, ",".join(values))


def _digest(seed: int, what: str) -> bytes:
    return hashlib.sha256(f"{seed}:{what}".encode()).digest()
