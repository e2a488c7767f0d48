"""Checks of a search space: axes whose winner lies at the edge, and points that nearly coincide.

An adapter adds (alpha / r) B A to a frozen weight. B starts at 0, and Adam moves B by about lr per step regardless of
the size of the gradient, so the model moves by lr x alpha / r times A. Hence alpha / r and lr control one axis, the
effective step, to first order. A also moves by lr, whatever alpha is, and ranks differ in capacity. So points with the
same effective step nearly coincide, but are not identical.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Literal

from gridsweep.sweep.axes import scale_of, whole
from gridsweep.sweep.experiments import LoraParams, number

FACTOR = 1.1
"""Effective steps within this factor nearly coincide."""


FURTHEST = 10.0
"""A value beyond an edge is at most so many times the outermost one, or so little of it."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An axis on which the winner has the largest or smallest tried value, and the next value `beyond` it.

    `beyond` continues the step between the two outermost values: as a factor, for shares such as dropout as a
    difference.
    """

    param: str
    value: float
    side: Literal["largest", "smallest"]
    beyond: float

    def __str__(self) -> str:
        name = self.param
        return f"{name} {number(self.value)} is the {self.side} {name} tried: {number(self.beyond)} may be better"

    def applied(self, params: LoraParams) -> LoraParams:
        """Return the same point with the value beyond the edge."""
        return params.having(**{self.param: int(self.beyond) if whole(self.param) else self.beyond})


def edges(winner: LoraParams, tried: Sequence[LoraParams]) -> list[Edge]:
    """Return the axes on which the winner has an outermost tried value, in the order r, alpha, lr, dropout, others.

    Only axes of at least two values count. A value that cannot go further is no edge: a rank of 1, a dropout of 0; nor
    is one on an axis without order, such as the schedule.
    """
    found = []
    for param in winner.keys:
        if scale_of(param) is None:
            continue
        axis = sorted({quantity(params, param) for params in (*tried, winner) if param in params.keys})
        value = quantity(winner, param)
        if len(axis) < 2 or value not in (axis[0], axis[-1]):
            continue
        side: Literal["largest", "smallest"] = "largest" if value == axis[-1] else "smallest"
        beyond = _beyond(param, value, axis[-2] if side == "largest" else axis[1])
        if beyond is not None:
            found.append(Edge(param, value, side, beyond))
    return found


def _beyond(param: str, value: float, inner: float) -> float | None:
    """Return the value as far beyond `value` as `value` is from `inner`; None if the parameter ends there.

    At most by a factor of `FURTHEST`. Rounded to three digits, a rank to a whole number; a share is never below 0.
    """
    if scale_of(param) == "difference":
        further = max(0.0, _rounded(2 * value - inner))
        return further if further < 1 and further != value else None
    if min(value, inner) <= 0:
        return None
    further = value * min(max(value / inner, 1 / FURTHEST), FURTHEST)
    if whole(param):
        further = float(round(further)) if round(further) != value else value + (1 if value > inner else -1)
        return further if further >= 1 else None
    # If two values hardly differ, rounding may remove the step between them.
    return next(
        (found for found in (_rounded(further), further) if (found > value > inner or found < value < inner)), None
    )


def quantity(params: LoraParams, key: str) -> float:
    """Return the value on an axis that has an order."""
    value = params.value(key)
    assert isinstance(value, int | float), "only axes of numbers have an order"
    return float(value)


def effective_step(params: LoraParams) -> float:
    """Return lr x alpha / r: how far one step moves the model, to first order."""
    return params.lr * params.alpha / params.r


@dataclass(frozen=True, slots=True)
class Alike:
    """A group of points that nearly coincide, the smallest effective step first."""

    points: tuple[LoraParams, ...]

    def __str__(self) -> str:
        low, high = effective_step(self.points[0]), effective_step(self.points[-1])
        step = number(_rounded(low))
        span = step if isclose(low, high) else f"{step} to {number(_rounded(high))}"
        names = [f"r={p.r} alpha={number(p.alpha)} lr={number(p.lr)}" for p in self.points]
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        return f"{listed} nearly coincide at dropout {number(self.points[0].dropout)}: lr x alpha / r is {span}"


def near_duplicates(params: Iterable[LoraParams], factor: float = FACTOR, *, same_rank: bool = False) -> list[Alike]:
    """Return groups of distinct points that differ in nothing but effective steps within a factor, and perhaps rank.

    With `same_rank` only points of equal rank coincide. Equal points count once: a repeat with another seed is no
    duplicate. A group spans at most the factor from its smallest step, so that it cannot grow along the axis. Raises
    `ValueError` for a factor below 1.
    """
    if not factor >= 1:
        raise ValueError(f"a factor of {factor:g} cannot group points; give 1 or more")
    ordered = sorted(set(params), key=lambda p: (p.dropout, p.more, p.r if same_rank else 0, effective_step(p), p))
    groups: list[list[LoraParams]] = []
    for point in ordered:
        first = groups[-1][0] if groups else None
        if (
            first is not None
            and (first.dropout, first.more) == (point.dropout, point.more)
            and (first.r == point.r or not same_rank)
            and _within(effective_step(first), effective_step(point), factor)
        ):
            groups[-1].append(point)
        else:
            groups.append([point])
    alike = [Alike(tuple(group)) for group in groups if len(group) > 1]
    return sorted(alike, key=lambda group: (effective_step(group.points[0]), group.points))


def _within(low: float, high: float, factor: float) -> bool:
    """Whether two steps lie within a factor; at a factor of 1, a rounding error does not separate them."""
    return high <= low * factor or isclose(low, high, rel_tol=1e-9)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
