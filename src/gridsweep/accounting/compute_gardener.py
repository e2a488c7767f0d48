"""What Compute Gardener wrote on a pod, read back: its own figures, to stand beside ours.

It writes only on pods that it delayed, `initial` at the latest moment it began to delay one, `bind` when it let it go.
Intensities are gCO2eq/kWh. Whatever cannot be understood is left out, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

PREFIX = "compute-gardener-scheduler.kubernetes.io/"
FACT = "compute-gardener"


@dataclass(frozen=True, slots=True)
class Gardened:
    """The carbon intensity when a pod was last held back and when it was let go, and both moments."""

    initial_intensity: float | None = None
    bind_intensity: float | None = None
    delayed_at: datetime | None = None
    bound_at: datetime | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())


def gardened(annotations: Mapping[str, object]) -> Gardened:
    """What a pod's annotations say; an empty one where Compute Gardener never delayed it."""

    def said(name: str) -> str:
        return str(annotations.get(PREFIX + name, ""))

    return Gardened(
        _intensity(said("initial-carbon-intensity")),
        _intensity(said("bind-time-carbon-intensity")),
        _moment(said("carbon-delay-timestamp")),
        _moment(said("bind-timestamp")),
    )


def facts(experiment: str, seen: Gardened) -> dict[str, str]:
    """The same as facts of a journal, one a field: `compute-gardener/<experiment>/<field>`."""
    values = {name: value for name, value in asdict(seen).items() if value is not None}
    return {
        f"{FACT}/{experiment}/{name}": value.isoformat() if isinstance(value, datetime) else repr(value)
        for name, value in values.items()
    }


def from_facts(facts: Mapping[str, str]) -> dict[str, Gardened]:
    """By experiment, what a journal's facts hold of Compute Gardener's figures."""
    fields: dict[str, dict[str, str]] = {}
    for key, value in facts.items():
        place, _, rest = key.partition("/")
        experiment, _, name = rest.rpartition("/")
        if place == FACT and experiment:
            fields.setdefault(experiment, {})[name] = value
    return {
        experiment: Gardened(
            _intensity(found.get("initial_intensity", "")),
            _intensity(found.get("bind_intensity", "")),
            _moment(found.get("delayed_at", "")),
            _moment(found.get("bound_at", "")),
        )
        for experiment, found in fields.items()
    }


def _intensity(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _moment(text: str) -> datetime | None:
    """An RFC 3339 time, in UTC; one without a zone is nobody's."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value.astimezone(UTC) if value.tzinfo else None
