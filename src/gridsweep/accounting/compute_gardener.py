"""The figures that Compute Gardener writes on a pod, read for comparison with gridsweep's own.

Compute Gardener annotates only pods that it delayed: `initial` when the latest delay began, `bind` when the pod was
released. Intensities are gCO2eq/kWh. Values that cannot be parsed are left out, never guessed.
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
    """The carbon intensity when a pod was last held back and when it was released, and both moments.

    `threshold` is the pod's own limit, which every pod of this gate has; alone it says nothing of a delay.
    """

    initial_intensity: float | None = None
    bind_intensity: float | None = None
    delayed_at: datetime | None = None
    bound_at: datetime | None = None
    threshold: float | None = None

    def __bool__(self) -> bool:
        return any(value is not None for name, value in asdict(self).items() if name != "threshold")


def gardened(annotations: Mapping[str, object]) -> Gardened:
    """Return the figures in a pod's annotations; false if Compute Gardener never delayed the pod."""

    def said(name: str) -> str:
        return str(annotations.get(PREFIX + name, ""))

    return Gardened(
        _intensity(said("initial-carbon-intensity")),
        _intensity(said("bind-time-carbon-intensity")),
        _moment(said("carbon-delay-timestamp")),
        _moment(said("bind-timestamp")),
        _intensity(said("carbon-intensity-threshold")),
    )


def facts(experiment: str, seen: Gardened) -> dict[str, str]:
    """The same as facts of a journal, one a field: `compute-gardener/<experiment>/<field>`."""
    values = {name: value for name, value in asdict(seen).items() if value is not None}
    return {
        f"{FACT}/{experiment}/{name}": value.isoformat() if isinstance(value, datetime) else repr(value)
        for name, value in values.items()
    }


def from_facts(facts: Mapping[str, str]) -> dict[str, Gardened]:
    """Return Compute Gardener's figures in a journal's facts, by experiment."""
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
            _intensity(found.get("threshold", "")),
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
    """Return an RFC 3339 time in UTC; None for other text, and for a time without a zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value.astimezone(UTC) if value.tzinfo else None
