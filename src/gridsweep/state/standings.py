"""Where experiments and attempts stand: the parts of a `State`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from gridsweep.state.events import Segment
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.stints import Checkpoint, Outcome, Stint

Status = Literal["waiting", "running", "reached", "done", "failed", "stopped"]
"""`reached`: at a rung, until all others are there."""
ALIVE: tuple[Status, ...] = ("waiting", "running", "reached")


@dataclass(slots=True)
class Standing:
    """Where one experiment stands."""

    experiment: Experiment
    ready_at: datetime
    status: Status = "waiting"
    step: int = 0
    checkpoint: Checkpoint | None = None
    until: datetime | None = None
    why: str = ""
    reason: str = ""
    first_running_at: datetime | None = None
    ended_at: datetime | None = None
    fruitless: int = 0
    attempts: list[str] = field(default_factory=list)
    loss: float | None = None
    outcome: Outcome | None = None
    scores: dict[int, Outcome] = field(default_factory=dict)  # by rung
    submitted_at: datetime = field(init=False)  # with the sweep, or when the experiment was added to it
    latest_start: datetime | None = None  # by its tier, as the tier stood when the experiment was started

    def __post_init__(self) -> None:
        self.submitted_at = self.ready_at


@dataclass(slots=True)
class Attempt:
    """One try at a stint: when it had its device, how far it came, what it drew."""

    id: str
    stint: Stint
    device: str
    why: str
    due: bool
    requested_at: datetime
    running_at: datetime | None = None
    ended_at: datetime | None = None
    end: Literal["", "ended", "paused", "lost"] = ""
    reason: str = ""
    held: str = ""
    held_back: bool = False  # something outside held it back before it trained
    let_go_at: datetime | None = None
    pausing_since: datetime | None = None
    killed: bool = False
    seen_at: datetime | None = None
    seq: int = 0
    step: int = 0
    first_told: tuple[int, datetime] | None = None  # the first step it told of, and when
    kept_step: int = 0
    cursor: tuple[int, int] = (0, 0)
    over_at: datetime | None = None  # its worker is gone; it ends then, where grid time follows the work
    energy: list[Segment] = field(default_factory=list)

    @property
    def started_at(self) -> datetime | None:
        """When the worker started, loading included; None while something outside holds the attempt back.

        Of an attempt that was held back that is when the hold ended or, if nobody told, when training began.
        """
        return (self.let_go_at or self.running_at) if self.held_back else self.requested_at
