"""The sweep: experiments, tiers, designs, rungs, devices and stints. Values and functions, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.sweep.experiments import Experiment, LoraParams
    from gridsweep.sweep.stints import Device, Stint
    from gridsweep.sweep.sweep import Sweep
    from gridsweep.sweep.tiers import Tier

__all__ = ["Device", "Experiment", "LoraParams", "Stint", "Sweep", "Tier"]
__getattr__ = handed_on(
    __name__,
    {
        "Device": "stints",
        "Experiment": "experiments",
        "LoraParams": "experiments",
        "Stint": "stints",
        "Sweep": "sweep",
        "Tier": "tiers",
    },
)
