"""Simulated sweeps: plans, back-tests, the baseline, virtual worlds, the simulated executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.simulation.backtest import Simulation
    from gridsweep.simulation.plan import Plan
    from gridsweep.simulation.simulated import Simulated
    from gridsweep.simulation.virtual import Virtual

__all__ = ["Plan", "Simulated", "Simulation", "Virtual"]
__getattr__ = handed_on(
    __name__, {"Plan": "plan", "Simulated": "simulated", "Simulation": "backtest", "Virtual": "virtual"}
)
