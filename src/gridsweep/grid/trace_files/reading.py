"""Recorded traces in files: CSV, Parquet or JSON Lines, told apart by the ending of the name.

All three have the columns `timestamp` (ISO 8601 with a zone) and `carbon_intensity` (empty or null is unknown), and
may have `quality` and `unit`; other columns are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gridsweep.carbon.traces import Trace
from gridsweep.grid.trace_files import csv_table, json_lines, parquet
from gridsweep.grid.trace_files.content import content_of
from gridsweep.grid.trace_files.problems import Problems
from gridsweep.grid.trace_files.slots import Recording, Slots

_READERS: dict[str, Callable[[bytes, Slots, Problems], None]] = {
    ".csv": csv_table.read,
    ".parquet": parquet.read,
    ".jsonl": json_lines.read,
    ".ndjson": json_lines.read,
    ".json": json_lines.read,
}


def read_trace(path: Path | str) -> Trace:
    """Read a file of carbon intensities in gCO2eq/kWh (or, where a column `unit` says so, `lbs_co2_per_mwh`).

    The step is the commonest distance between rows. Raises `TraceError` with the first ten problems of the file, each
    with its line or row, what is wrong and what to do.
    """
    return read_recording(path).trace


def read_recording(path: Path | str) -> Recording:
    """Read a file as `read_trace` does, and how good each slot is, where a column `quality` says so."""
    path = Path(path)
    content = content_of(path, _READERS)
    ending = path.suffix.lower()
    problems = Problems(str(path), place="row" if ending == ".parquet" else "line")
    slots = Slots(problems)
    _READERS[ending](content, slots, problems)
    return slots.recording()
