"""Policies: decide what starts, pauses or waits in a given situation. A policy holds no state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.policy.gates import Immediate, OnOff, Threshold
    from gridsweep.policy.situation import Pause, Policy, Situation, Start, Wait, Work

__all__ = ["Immediate", "OnOff", "Pause", "Policy", "Situation", "Start", "Threshold", "Wait", "Work"]
__getattr__ = handed_on(
    __name__,
    {
        "Immediate": "gates",
        "OnOff": "gates",
        "Pause": "situation",
        "Policy": "situation",
        "Situation": "situation",
        "Start": "situation",
        "Threshold": "gates",
        "Wait": "situation",
        "Work": "situation",
    },
)
