"""The default policy: the remaining work is placed where it is expected to emit least."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.policy.planner.planned import Planned

__all__ = ["Planned"]
__getattr__ = handed_on(__name__, {"Planned": "planned"})
