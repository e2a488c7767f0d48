"""CSV files with one point of the space a row, and a header with the names of the axes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any  # values of axes

from gridsweep.records.bounded import MEBIBYTE
from gridsweep.spec.axes import KINDS, TargetModules
from gridsweep.spec.text_files import file_text
from gridsweep.spec.values import Flag, nearest


def point_rows(path: Path) -> list[dict[str, Any]]:
    """Return the points of a file, each with the values of its columns; an empty cell names no value.

    Raise `ValueError` that says which line is wrong and why.
    """
    table = csv.DictReader(io.StringIO(file_text(path, MEBIBYTE), newline=""), skipinitialspace=True)
    names = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = names
    for name in names:
        if name not in KINDS:
            raise ValueError(f"{path}: the column {name!r} is no axis; {nearest(name, KINDS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: a column is there twice")
    found = []
    for row in table:
        if None in row or None in row.values():
            raise ValueError(f"{path}:{table.line_num}: has more or fewer cells than the header's {len(names)}")
        found.append({key: _cell(path, table.line_num, key, cell.strip()) for key, cell in row.items() if cell.strip()})
    if not found:
        raise ValueError(f"{path} has no points; write a header and a row for each")
    return found


def _cell(path: Path, line: int, key: str, cell: str) -> object:
    """Return the value of a cell; the words of a list are joined by `+`."""
    kind, value = KINDS[key], cell
    given: object = value
    if isinstance(kind, Flag):
        given = {"true": True, "false": False}.get(value.lower(), value)
    elif isinstance(kind, TargetModules):
        given = value.split("+")
    try:
        return kind.read(given)
    except ValueError as error:
        raise ValueError(f"{path}:{line}: {key} {error}") from None
