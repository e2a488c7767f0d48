"""What users asked of a sweep, as rows of its status and its report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gridsweep.state.state import State
from gridsweep.state.wishes import Wish


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
