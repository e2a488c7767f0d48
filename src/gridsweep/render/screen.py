"""The console and the table style for terminal output."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

MINIMUM_WIDTH = 200


def console() -> Console:
    """Return a console for standard output; if that is not a terminal, wide enough for any table."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=MINIMUM_WIDTH)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a table without lines; the columns in `right` are right-aligned, for numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made
