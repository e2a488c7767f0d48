"""CSV files with a header: comma-separated, quoted where needed, columns in any order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from gridsweep.grid.trace_files.cells import amount_in, moment_of, quality_of
from gridsweep.grid.trace_files.content import text_of
from gridsweep.grid.trace_files.problems import QUALITY, TIME, UNIT, VALUE, Problems, column_faults, shown
from gridsweep.grid.trace_files.slots import Slots


def read(content: bytes, slots: Slots, problems: Problems) -> None:
    """Read the rows of a CSV file into `slots`; blank lines are skipped. Raises `TraceError` if it is not CSV."""
    rows = csv.reader(io.StringIO(text_of(content, problems), newline=""))
    try:
        names = _header(rows, problems)
        time_at, value_at = names.index(TIME), names.index(VALUE)
        quality_at, unit_at = (names.index(name) if name in names else None for name in (QUALITY, UNIT))
        needed = max(time_at, value_at, quality_at or 0, unit_at or 0) + 1
        for cells in rows:
            if not any(map(str.strip, cells)):
                continue
            row = rows.line_num
            if len(cells) < needed:
                problems.add(row, f"has {len(cells)} of {len(names)} columns; complete the row or take it out")
                slots.add(row, None, 0.0)
                continue
            unit = None if unit_at is None else cells[unit_at]
            quality = None if quality_at is None else quality_of(cells[quality_at], row, problems)
            value = amount_in(cells[value_at], unit, row, problems)
            slots.add(row, moment_of(cells[time_at], row, problems), value, quality)
    except csv.Error as error:
        raise problems.error(f"is no CSV ({error}); look for an open quote", rows.line_num) from None


def _header(rows: Iterator[list[str]], problems: Problems) -> list[str]:
    """Return the names of the columns."""
    cells = next((row for row in rows if any(map(str.strip, row))), None)
    if cells is None:
        raise problems.error(f"is empty; write the header `{TIME},{VALUE}` and a row a slot", 1)
    names = [name.strip() for name in cells]
    faults = column_faults(names)
    if faults and len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        faults = [f"the header `{shown(names[0])}` is one column; separate columns by commas"]
    for fault in faults:
        problems.add(1, fault)
    if faults:
        problems.check()
    return names
