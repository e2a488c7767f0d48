"""Files on disk: the codec, the journal, its lease, the attempts' folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.records.attempts import AttemptFolder

__all__ = ["AttemptFolder"]
__getattr__ = handed_on(__name__, {"AttemptFolder": "attempts"})
