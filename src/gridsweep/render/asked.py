"""Sentences on what users asked of a sweep, the same in every format."""

from __future__ import annotations

from collections.abc import Sequence

from gridsweep.accounting.asked import RequestRow
from gridsweep.sweep.counting import counted

NAMED = 5
"""Number of experiments that a sentence names; the rest are counted."""


def sentences(rows: Sequence[RequestRow]) -> list[str]:
    """Return a sentence for each request."""
    return [_sentence(row) for row in rows]


def _sentence(row: RequestRow) -> str:
    ids = row.added or row.experiments
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    whom = ", ".join(ids[:NAMED]) + more if ids else "nothing new" if row.what == "add" else "the sweep"
    until = f" until {row.until:%Y-%m-%d %H:%M} UTC" if row.until else ""
    now = " now" if row.soon else ""
    changed = f"; changed: {', '.join(row.changes)}" if row.changes else ""
    refused = f"; refused: {row.refused}" if row.refused else ""
    return f"{row.at:%Y-%m-%d %H:%M} UTC, {row.by}: {row.what} {whom}{until}{now}{changed}{refused}"


def summary(rows: Sequence[RequestRow], waiting: int = 0) -> str:
    """Return in one line how much was asked, and the last of it; "" if nothing was."""
    parts = [f"{counted(len(rows), 'request')}, the last: {_sentence(rows[-1])}"] if rows else []
    return "; ".join([*parts, *([f"{counted(waiting, 'request')} not yet taken"] if waiting else [])])
