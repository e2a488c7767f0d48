"""The standing of experiments and attempts: the parts of a `State`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from gridsweep.state.events import Segment
from gridsweep.state.statuses import ALIVE as ALIVE
from gridsweep.state.statuses import Status as Status
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.stints import Checkpoint, Outcome, Stint

FRUITLESS_ATTEMPTS = 3
"""An experiment fails after this many lost attempts in a row that saved no new step."""

Change: TypeAlias = Literal["sweep", "work", "pace"]
"""What derived values depend on: the sweep as submitted or amended, the waiting work, the measured pace of work.
The state counts the changes of each, so that a derived value stays valid while its counts do not change."""


@dataclass(slots=True)
class Standing:
    """The current status of one experiment."""

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
    submitted_at: datetime = field(init=False)  # with the sweep, or when the experiment was added
    latest_start: datetime | None = None  # by its tier, as the tier stood when the experiment was started

    def __post_init__(self) -> None:
        self.submitted_at = self.ready_at

    def keep(self, attempt: Attempt, checkpoint: Checkpoint | None) -> bool:
        """Take an attempt's checkpoint if it is further than the current one; return whether it was taken."""
        if checkpoint is None or checkpoint.step <= self.step:
            return False
        self.step, self.checkpoint = checkpoint.step, checkpoint
        attempt.kept_step = checkpoint.step
        return True

    def take(self, attempt: Attempt, outcome: Outcome, at: datetime) -> None:
        """Take how an attempt that told its end left the experiment."""
        if outcome.status == "paused":
            if self.keep(attempt, outcome.checkpoint):
                self.fruitless = 0
            self.status, self.ready_at = "waiting", at
        elif outcome.status == "reached":
            self.keep(attempt, outcome.checkpoint)
            attempt.kept_step = max(attempt.kept_step, outcome.step)
            self.status, self.fruitless = "reached", 0
            self.scores[outcome.step] = outcome
        else:
            self.status, self.reason = outcome.status, outcome.reason
            self.step, self.ended_at, self.outcome = outcome.step, at, outcome
            attempt.kept_step = max(attempt.kept_step, outcome.step)

    def lose(self, attempt: Attempt, checkpoint: Checkpoint | None, why: str, at: datetime, *, counts: bool) -> bool:
        """Wait again after a lost attempt, or fail if it `counts` as one too many; return whether it saved a step."""
        fruitful = self.keep(attempt, checkpoint)
        if counts:
            self.fruitless = 0 if fruitful else self.fruitless + 1
        self.status, self.reason = "waiting", why
        if self.fruitless >= FRUITLESS_ATTEMPTS:
            self.status, self.ended_at = "failed", at
            self.reason = f"{self.fruitless} attempts without progress; the last: {why}"
        return fruitful

    def revert(self, checkpoint: Checkpoint | None) -> None:
        """Go on from an earlier checkpoint: the one that was damaged is no failure of the experiment."""
        self.step, self.checkpoint = checkpoint.step if checkpoint else 0, checkpoint
        self.fruitless = 0
        if self.status == "failed":
            self.status, self.ended_at = "waiting", None


@dataclass(slots=True)
class Attempt:
    """One try at a stint: its device times, its progress, its energy."""

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
    held_back: bool = False  # held back from outside before training began
    let_go_at: datetime | None = None
    pausing_since: datetime | None = None
    killed: bool = False
    seen_at: datetime | None = None
    seq: int = 0
    step: int = 0
    first_told: tuple[int, datetime] | None = None  # the first reported step, and when
    kept_step: int = 0
    cursor: tuple[int, int] = (0, 0)
    clock: timedelta = timedelta(0)  # how far the worker's clock is ahead
    over_at: datetime | None = None  # end in grid time after its worker is gone, if grid time follows the work
    energy: list[Segment] = field(default_factory=list)

    @property
    def drawn_kwh(self) -> float:
        """The energy told so far, kWh."""
        return sum(segment.kwh for segment in self.energy)

    @property
    def first_step(self) -> int:
        """The step that the attempt starts from, the lowest of its members'."""
        return min(member.from_step for member in self.stint.members)

    @property
    def started_at(self) -> datetime | None:
        """When the worker started, loading included; None while the attempt is held back from outside.

        For an attempt that was held back: when the hold ended or, if that is unknown, when training began.
        """
        return (self.let_go_at or self.running_at) if self.held_back else self.requested_at
