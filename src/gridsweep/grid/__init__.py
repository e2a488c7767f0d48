"""Carbon-intensity data of the grid: providers, fallbacks, the archive, trace files, yearly averages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.grid.source import Source

__all__ = ["Source"]
__getattr__ = handed_on(__name__, {"Source": "source"})
