"""What users asked of a sweep, as rows of its status and its report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from gridsweep.state.wishes import Wish

if TYPE_CHECKING:  # `status` tells what was asked without a state
    from gridsweep.state.state import State

NAMED = 5
"""Number of experiments that a sentence names; the rest are counted."""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request that was taken, or refused for the reason in `refused`; `at` is when, by the sweep's clock, UTC.

    `by` is the user who owned its file. Without `experiments` the whole sweep was meant. `added` are new experiments.
    """

    id: str
    at: datetime
    by: str
    what: Wish
    experiments: tuple[str, ...]
    until: datetime | None
    soon: bool
    changes: tuple[str, ...]
    added: tuple[str, ...]
    refused: str


def requests(state: State) -> tuple[RequestRow, ...]:
    """Return all requests in the order in which they were taken; that a hold is over is none."""
    added = {event.request: tuple(e.id for e in event.experiments) for event in state.additions if event.request}
    return tuple(
        RequestRow(e.id, e.at, e.by, e.what, e.experiments, e.until, e.soon, e.changes, added.get(e.id, ()), e.refused)
        for e in state.asks.taken.values()
        if e.what != "release" or e.until is None
    )


def sentence(row: RequestRow) -> str:
    """Return a request in one line."""
    ids = row.added or row.experiments
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    what = "ask what cannot be read of" if row.what == "unknown" else row.what
    whom = ", ".join(ids[:NAMED]) + more if ids else "nothing new" if row.what == "add" else "the sweep"
    until = f" until {row.until:%Y-%m-%d %H:%M} UTC" if row.until else ""
    now = " now" if row.soon else ""
    changed = f"; changed: {', '.join(row.changes)}" if row.changes else ""
    refused = f"; refused: {row.refused}" if row.refused else ""
    return f"{row.at:%Y-%m-%d %H:%M} UTC, {row.by}: {what} {whom}{until}{now}{changed}{refused}"
