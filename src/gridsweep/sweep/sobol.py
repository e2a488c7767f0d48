"""Sobol points: evenly spread over many axes at any number of points (Joe and Kuo 2008, new-joe-kuo-6, first 18)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

BITS = 32
_START = (
    # degree and coefficients of the primitive polynomial, and the first direction numbers, of axes 2 to 18
    (1, 0, (1,)), (2, 1, (1, 3)), (3, 1, (1, 3, 1)), (3, 2, (1, 1, 1)), (4, 1, (1, 1, 3, 3)), (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)), (5, 4, (1, 1, 5, 5, 5)), (5, 7, (1, 1, 7, 11, 19)), (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)), (5, 14, (1, 3, 5, 5, 31)), (6, 1, (1, 3, 3, 9, 7, 49)), (6, 13, (1, 1, 1, 15, 21, 21)),
    (6, 16, (1, 3, 1, 13, 27, 49)), (6, 19, (1, 1, 1, 15, 7, 5)), (6, 22, (1, 3, 1, 15, 13, 25)),
)  # fmt: skip
MOST_AXES = len(_START) + 1


def sobol(index: int, shifts: Sequence[int]) -> tuple[float, ...]:
    """Return the point `index` (from 0), a share in [0, 1) for each axis, shifted digitally by `shifts` of 32 bits.

    Raise `ValueError` for more than `MOST_AXES` axes, or an index that 32 bits cannot hold.
    """
    if len(shifts) > MOST_AXES or not 0 <= index < 1 << BITS:
        raise ValueError(f"Sobol points have at most {MOST_AXES} axes and {1 << BITS:,} points")
    gray = index ^ (index >> 1)
    chosen = [bit for bit in range(BITS) if gray >> bit & 1]
    found = []
    for axis, shift in enumerate(shifts):
        directions = _directions(axis)
        value = shift
        for bit in chosen:
            value ^= directions[bit]
        found.append(value / (1 << BITS))
    return tuple(found)


@cache
def _directions(axis: int) -> tuple[int, ...]:
    """Return the direction numbers of an axis, the first one half."""
    if axis == 0:
        return tuple(1 << (BITS - 1 - i) for i in range(BITS))
    degree, coefficients, start = _START[axis - 1]
    found = [number << (BITS - 1 - i) for i, number in enumerate(start)]
    for i in range(degree, BITS):
        value = found[i - degree] ^ (found[i - degree] >> degree)
        for k in range(1, degree):
            if coefficients >> (degree - 1 - k) & 1:
                value ^= found[i - k]
        found.append(value)
    return tuple(found)
