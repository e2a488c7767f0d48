"""The fact that a sweep's journal is gathered from a cluster in which other components start its jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal  # Any: the state, which imports this module


@dataclass(frozen=True, slots=True)
class Collected:
    """The sweep was collected: its jobs are started by `gate`, and what they did was read from `source`.

    `facts` are what the cluster's objects say and no worker does, such as Compute Gardener's figures. `unknown` lists
    what could not be had, a phrase each. The latest event holds for `gate`, `source` and `unknown`.
    """

    at: datetime
    gate: str
    source: str
    facts: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    kind: Literal["Collected"] = "Collected"


def take(state: Any, event: Collected) -> None:
    """Fold the event into a state."""
    state.collected = event
    state.facts.update(event.facts)
