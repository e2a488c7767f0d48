"""The default policy: place the remaining work where the forecast expects the lowest emissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.policy.planner.planned import Planned

__all__ = ["Planned"]
__getattr__ = handed_on(__name__, {"Planned": "planned"})
