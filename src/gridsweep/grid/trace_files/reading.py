"""Recorded traces in files: CSV, Parquet or JSON Lines, chosen by the ending of the file name.

All three have the columns `timestamp` (ISO 8601 with a time zone) and `carbon_intensity` (empty or null if unknown),
and optionally `quality` and `unit`; other columns are ignored.
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
    """Read a file of carbon intensities in gCO2eq/kWh (or `lbs_co2_per_mwh`, if a column `unit` says so).

    The step is the most common distance between rows. Raises `TraceError` with the first ten problems of the file, each
    with its line or row, the problem and the remedy.
    """
    return read_recording(path).trace


def read_recording(path: Path | str) -> Recording:
    """Read a file like `read_trace`, together with the quality of each slot if the file has a column `quality`."""
    path = Path(path)
    content = content_of(path, _READERS)
    ending = path.suffix.lower()
    problems = Problems(str(path), place="row" if ending == ".parquet" else "line")
    slots = Slots(problems)
    _READERS[ending](content, slots, problems)
    return slots.recording()
