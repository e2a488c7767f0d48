"""The document of `gridsweep doctor --json`: findings, and the fastest way to train models on this machine's device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any  # what the probe printed as JSON

from gridsweep.doctor import Finding


@dataclass(frozen=True, slots=True)
class ProbedPower:
    """A GPU's power limits in W: current, default, allowed range, and the limit before a killed worker changed it."""

    now_w: float
    default_w: float
    least_w: float
    most_w: float
    left_w: float | None
    busy: bool
    may_be_set: bool


@dataclass(frozen=True, slots=True)
class ProbedMemory:
    """Estimates of the memory model for the device in bytes; by rank where they depend on the rank."""

    device_bytes: int
    base_bytes: int
    adapter_bytes: dict[str, int]
    bytes_per_token: dict[str, int]
    tokens_of_a_step: int
    fit_resident: int
    fit_at_once: int


@dataclass(frozen=True, slots=True)
class ProbedChoice:
    """A number of adapters trained together, with its measured speed, energy and memory."""

    members: int
    tokens_in_a_pass: int
    remember: bool
    tokens_per_s: float
    joules_per_token: float | None
    foreseen_bytes: int
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class NotProbed:
    """A number of adapters that was not measured, and the reason."""

    members: int
    why: str


@dataclass(frozen=True, slots=True)
class Probed:
    """The measured fastest way to train a model on this machine's device, as written to `path`."""

    device: str
    kind: str
    dtype: str
    model: str
    samples: str
    measured_at: datetime
    versions: dict[str, str]
    energy_source: str | None
    power: ProbedPower | None
    memory: ProbedMemory
    choices: tuple[ProbedChoice, ...]
    best: ProbedChoice
    left_out: tuple[NotProbed, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings about this machine, and the measurements of --train."""

    findings: tuple[Finding, ...]
    train: tuple[Probed, ...]
    schema_version: int = 1


def probed(made: Mapping[str, Any]) -> Probed:
    """Return the document of a result of `python -m gridsweep.train.probe`."""
    power = made["power"]
    limits = power and ProbedPower(
        power["now"], power["usual"], power["least"], power["most"], power["left"], power["busy"], power["may_be_set"]
    )
    own = {field.name: made[field.name] for field in fields(Probed) if field.name in made}
    return Probed(
        **own
        | {
            "measured_at": datetime.fromisoformat(made["measured_at"]),
            "energy_source": made["energy"],
            "power": limits,
            "memory": ProbedMemory(**made["memory"]),
            "choices": tuple(ProbedChoice(**choice) for choice in made["choices"]),
            "best": ProbedChoice(**made["best"]),
            "left_out": tuple(NotProbed(**one) for one in made["left_out"]),
            "path": Path(made["written"]),
        }
    )
