"""What a user may ask of a sweep, and the event that it was asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gridsweep.sweep.sweep import Sweep

Wish = Literal["stop", "pause", "resume", "cancel", "hold", "release", "add", "unknown"]
"""What a user may ask of a sweep: see `Asked`. `unknown`: the request could not be read, and is refused."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a user was taken, or was `refused` for that reason and changed nothing; `by` is a user's name.

    stop: as `Stopping`. pause: what runs saves and stops, and nothing starts. hold: nothing starts, up to `until` if it
    is given. resume and release end these; with `soon`, the work starts once a device is free, whatever the grid. A
    release with `until` is the loop's: the hold up to then is over. cancel: the experiments end as they are. add:
    `sweep` holds the sweep's keys from now on, of which `changes` differ, and the experiments that have another tier
    now; new ones follow as `Added`. Without `experiments` all are meant.
    `id` names the request: the same one is never taken twice. `asked_at` is by the clock of the user's machine.
    """

    at: datetime
    id: str
    what: Wish
    by: str
    asked_at: datetime
    experiments: tuple[str, ...] = ()
    until: datetime | None = None
    soon: bool = False
    sweep: Sweep | None = None
    changes: tuple[str, ...] = ()
    refused: str = ""
    kind: Literal["Asked"] = "Asked"
