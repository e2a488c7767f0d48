"""Sentences on what users asked of a sweep, the same in every format."""

from __future__ import annotations

from collections.abc import Sequence

from gridsweep.state.asked import RequestRow, sentence
from gridsweep.sweep.counting import counted


def sentences(rows: Sequence[RequestRow]) -> list[str]:
    """Return a sentence for each request."""
    return [sentence(row) for row in rows]


def summary(rows: Sequence[RequestRow]) -> str:
    """Return in one line how much was asked, and the last of it; "" if nothing was."""
    return told(len(rows), sentence(rows[-1])) if rows else ""


def told(count: int, last: str, waiting: int = 0) -> str:
    """Return in one line how much was asked, the last of it, and how much is not yet taken; "" if nothing was."""
    parts = [f"{counted(count, 'request')}, the last: {last}"] if count else []
    return "; ".join([*parts, *([f"{counted(waiting, 'request')} not yet taken"] if waiting else [])])
