"""Events, and the state folded from them. The state does not depend on any policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.state.state import State

__all__ = ["State"]
__getattr__ = handed_on(__name__, {"State": "state"})
