"""Devices, and stints: the work that a device trains without interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gridsweep.sweep.losses import Losses

RESTART = timedelta(minutes=3)
"""The cost of resuming: the expected time from a resumed stint's start to its next step."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device, which runs one stint at a time.

    `speed` divides estimated durations (2.0 halves them); `power_w` is the stated power at full load, used if power
    cannot be measured; `idle_power_w` is drawn from the first submission to the last end while nothing runs.
    `power_limit_w` is the limit set on a GPU while a worker trains on it; None leaves the limit unchanged.
    """

    name: str
    memory_gb: float | None = None
    speed: float = 1.0
    power_w: float | None = None
    idle_power_w: float = 0.0
    power_limit_w: float | None = None


def device_named(devices: Iterable[Device], name: str) -> Device:
    """Return the device of that name; a device no longer in the spec gets default values."""
    for device in devices:
        if device.name == name:
            return device
    return Device(name)


def memory_beside(devices: Iterable[Device], name: str) -> tuple[float | None, ...]:
    """Return the stated memory (GB) of the devices beside one, whose workers share a machine's memory with its."""
    return tuple(device.memory_gb for device in devices if device.name != name)


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
        """An id derived from the work alone: the same members over the same steps get the same id."""
        text = ";".join(f"{m.experiment}:{m.from_step}-{m.to_step}" for m in sorted(self.members))
        return "s-" + hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def steps(self) -> int:
        """The number of steps of the longest member."""
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
    """The result of one member of a stint. `adapter` is the folder of the finished adapter, relative to the store.

    `status` is `done` (all steps made), `reached` (at a rung, saved in `checkpoint`, waiting to be compared),
    `stopped` (by an earlier rung decision, when the past is replayed), `paused` (asked to stop, saved in `checkpoint`),
    or `failed` (not tried again, because of `reason`). `losses` are losses on validation samples: at a rung, on a fixed
    part of them with the weights averaged over the last steps; when done, on all of them with the last weights.
    When done, `averaged_validation_loss` is the loss of the averaged weights, and `judged` holds their losses on the
    samples used at rungs. `train_loss` is the mean over the last steps.
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
