"""The cost of a sweep, its saving, the achievable saving, and the report as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.accounting.ledger import Ledger
    from gridsweep.accounting.report import Report

__all__ = ["Ledger", "Report"]
__getattr__ = handed_on(__name__, {"Ledger": "ledger", "Report": "report"})
