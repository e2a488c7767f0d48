"""What the points of a sweep say of their space: where it should have reached further, what it tries twice.

Both are about the same fact. An adapter adds (alpha / r) B A to a frozen weight. It begins at B = 0, and Adam moves B
by about lr a step however large the gradient is, so that the model moves by lr x alpha / r times A: alpha / r and lr
are two handles on one axis, the effective step. It is one axis to first order only. A moves by lr too, whatever alpha
is, and ranks differ in how much they can hold: points that share an effective step nearly coincide, and are no copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Literal

from gridsweep.sweep.experiments import PARAMS, LoraParams, number

FACTOR = 1.1
"""Effective steps within this factor nearly coincide."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An axis on which the winner has the largest or smallest value tried, and the next value `beyond` it.

    `beyond` continues the distance of the two outermost values: as a factor, for dropout as a sum.
    """

    param: str
    value: float
    side: Literal["largest", "smallest"]
    beyond: float

    def __str__(self) -> str:
        name = self.param
        return f"{name} {number(self.value)} is the {self.side} {name} tried: {number(self.beyond)} may be better"

    def applied(self, params: LoraParams) -> LoraParams:
        """The same point with the value beyond the edge."""
        beyond = int(self.beyond) if self.param == "r" else self.beyond
        return replace(params, **{self.param: beyond})  # type: ignore[arg-type]  # the axes have the parameters' types


def edges(winner: LoraParams, tried: Sequence[LoraParams]) -> list[Edge]:
    """The axes on which the winner sits at the end of what was tried, in the order r, alpha, lr, dropout.

    Only axes of at least two values count. Where nothing lies beyond, it is no edge: a rank of 1, a dropout of 0.
    """
    found = []
    for param in PARAMS:
        axis = sorted({float(getattr(params, param)) for params in (*tried, winner)})
        value = float(getattr(winner, param))
        if len(axis) < 2 or value not in (axis[0], axis[-1]):
            continue
        side: Literal["largest", "smallest"] = "largest" if value == axis[-1] else "smallest"
        beyond = _beyond(param, value, axis[-2] if side == "largest" else axis[1])
        if beyond is not None:
            found.append(Edge(param, value, side, beyond))
    return found


def _beyond(param: str, value: float, inner: float) -> float | None:
    """As far beyond the value as it lies from the inner one, or None where the parameter ends there.

    Rounded to three digits, a rank to a whole number; a dropout goes down to 0 at least.
    """
    if param == "dropout":
        further = max(0.0, _rounded(2 * value - inner))
        return further if further < 1 and further != value else None
    if min(value, inner) <= 0:
        return None
    further = value * (value / inner)
    if param == "r":
        further = float(round(further)) if round(further) != value else value + (1 if value > inner else -1)
        return further if further >= 1 else None
    # Of values that hardly differ, rounding may leave nothing beyond.
    return next(
        (found for found in (_rounded(further), further) if (found > value > inner or found < value < inner)), None
    )


def effective_step(params: LoraParams) -> float:
    """lr x alpha / r: how far one step moves the model, to first order."""
    return params.lr * params.alpha / params.r


@dataclass(frozen=True, slots=True)
class Alike:
    """Points that nearly coincide, the smallest effective step first."""

    points: tuple[LoraParams, ...]

    def __str__(self) -> str:
        low, high = effective_step(self.points[0]), effective_step(self.points[-1])
        step = number(_rounded(low))
        span = step if isclose(low, high) else f"{step} to {number(_rounded(high))}"
        names = [f"r={p.r} alpha={number(p.alpha)} lr={number(p.lr)}" for p in self.points]
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        return f"{listed} nearly coincide at dropout {number(self.points[0].dropout)}: lr x alpha / r is {span}"


def near_duplicates(params: Iterable[LoraParams], factor: float = FACTOR, *, same_rank: bool = False) -> list[Alike]:
    """Groups of different points with equal dropout whose effective steps lie within a factor, smallest step first.

    With `same_rank` only equal ranks coincide. Equal points are one: a repeat under another seed is no duplicate. A
    group ends at the factor from its smallest, so that it cannot creep along the axis. Raises `ValueError` for a factor
    below 1.
    """
    if not factor >= 1:
        raise ValueError(f"a factor of {factor:g} leaves nothing alike; 1 is the least")
    ordered = sorted(set(params), key=lambda p: (p.dropout, p.r if same_rank else 0, effective_step(p), p))
    groups: list[list[LoraParams]] = []
    for point in ordered:
        first = groups[-1][0] if groups else None
        if (
            first is not None
            and first.dropout == point.dropout
            and (first.r == point.r or not same_rank)
            and _within(effective_step(first), effective_step(point), factor)
        ):
            groups[-1].append(point)
        else:
            groups.append([point])
    alike = [Alike(tuple(group)) for group in groups if len(group) > 1]
    return sorted(alike, key=lambda group: (effective_step(group.points[0]), group.points))


def _within(low: float, high: float, factor: float) -> bool:
    """Whether two steps lie within a factor; at a factor of 1 rounding alone does not part them."""
    return high <= low * factor or isclose(low, high, rel_tol=1e-9)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
