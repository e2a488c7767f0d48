"""Devices, and stints: what one device trains in one go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gridsweep.sweep.losses import Losses

RESTART = timedelta(minutes=3)
"""What coming back costs: so long a resumed stint is expected to run before it has taken its next step."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where one stint runs at a time.

    `speed` divides estimated durations (2.0 halves them); `power_w` is the stated draw at full load, used where
    nothing can be measured; `idle_power_w` is drawn from the first submission to the last end while nothing runs.
    `power_limit_w` is what a GPU is limited to while a worker trains on it; None leaves it as it is.
    """

    name: str
    memory_gb: float | None = None
    speed: float = 1.0
    power_w: float | None = None
    idle_power_w: float = 0.0
    power_limit_w: float | None = None


def device_named(devices: Iterable[Device], name: str) -> Device:
    """The device of that name; one that is gone from the spec is taken as an ordinary one."""
    for device in devices:
        if device.name == name:
            return device
    return Device(name)


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One experiment's part in a stint: optimizer steps `[from_step, to_step)`."""

    experiment: str
    from_step: int
    to_step: int


@dataclass(frozen=True, slots=True)
class Stint:
    """One or more experiments trained together on one device, over one frozen base model and the same data."""

    members: tuple[Member, ...]

    @property
    def id(self) -> str:
        """A name derived from the work alone: the same members over the same steps get the same name."""
        text = ";".join(f"{m.experiment}:{m.from_step}-{m.to_step}" for m in sorted(self.members))
        return "s-" + hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The steps of each member."""
        return [(m.from_step, m.to_step) for m in self.members]

    @property
    def steps(self) -> int:
        """The steps of its longest member."""
        return max(m.to_step - m.from_step for m in self.members)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state of one experiment: `path` is relative to the store, `digest` is over its files."""

    experiment: str
    step: int
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one member. `adapter` is the folder of the finished adapter, relative to the store.

    `status` is `done` (all steps made), `reached` (a rung: `checkpoint` holds it, and it waits to be compared),
    `stopped` (a rung decided before, where the past is replayed), `paused` (asked to stop; `checkpoint` holds it), or
    `failed` (never to be tried again, for `reason`). `losses` are those of the validation samples: at a rung of a fixed
    part of them, with the weights averaged over the last steps; when done of all, with the last weights.
    `averaged_validation_loss` is that of the averaged weights when done, `judged` theirs on the samples that rungs are
    judged by. `train_loss` is the mean of the last steps.
    """

    experiment: str
    status: Literal["done", "reached", "stopped", "paused", "failed"]
    step: int
    reason: str = ""
    train_loss: float | None = None
    validation_loss: float | None = None
    initial_validation_loss: float | None = None
    checkpoint: Checkpoint | None = None
    adapter: str | None = None
    losses: Losses | None = None
    averaged_validation_loss: float | None = None
    judged: Losses | None = None
