"""The terminal that results are printed on: how wide it is, and how a table looks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

MINIMUM_WIDTH = 200


def console() -> Console:
    """Standard output; where it is no terminal, wide enough that no table is cut."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=MINIMUM_WIDTH)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without lines; the columns named in `right` hold numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made
