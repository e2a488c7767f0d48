"""Sobol points: those of the published direction numbers, as another implementation has them."""

from __future__ import annotations

import pytest

from gridsweep.sweep.sobol import MOST_AXES, sobol


def test_points_are_those_of_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.quasirandom.SobolEngine(MOST_AXES).draw(256, dtype=torch.float64).tolist()
    assert [list(sobol(n, [0] * MOST_AXES)) for n in range(256)] == theirs


def test_every_power_of_two_fills_each_axis_evenly_whatever_the_shift():
    shifts = [0x12345678, 0, 0xFFFFFFFF, 0xDEADBEEF]
    points = [sobol(n, shifts) for n in range(64)]
    for axis in range(4):
        assert sorted(int(point[axis] * 64) for point in points) == list(range(64))


def test_what_has_too_many_axes_or_points_is_refused():
    with pytest.raises(ValueError, match="at most 18 axes"):
        sobol(0, [0] * 19)
    with pytest.raises(ValueError, match="at most 18 axes"):
        sobol(1 << 32, [0])
