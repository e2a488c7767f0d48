"""The lowest emissions a sweep could have had: the reference for every reported saving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.optima.optimum import bound
    from gridsweep.optima.problem import Job, Optimum, Piece

__all__ = ["Job", "Optimum", "Piece", "bound"]
__getattr__ = handed_on(__name__, {"Job": "problem", "Optimum": "problem", "Piece": "problem", "bound": "optimum"})
