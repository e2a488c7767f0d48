"""Recorded traces in files: CSV, Parquet or JSON Lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.grid.trace_files.reading import read_recording, read_trace
    from gridsweep.grid.trace_files.slots import Recording

__all__ = ["Recording", "read_recording", "read_trace"]
__getattr__ = handed_on(__name__, {"Recording": "slots", "read_recording": "reading", "read_trace": "reading"})
