"""A sweep at a glance: what `status` and the live display show, without the experiments one by one.

Kept beside the journal (`records.snapshot`), a glance is printed without the state it was made of. So this module
imports neither numpy nor pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args  # Any: JSON

from gridsweep.state.statuses import Status

if TYPE_CHECKING:
    from gridsweep.state.overdue import Overdue
    from gridsweep.state.state import State

NAMED = 5
"""Number of late experiments that are named; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Late:
    """Missed deadlines of one kind: how many, and the longest by id, in hours. `over`: these have started, or ended."""

    kind: Literal["start", "end"]
    over: bool
    count: int
    longest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that runs: its device, its experiments, what it does, and its step of how many."""

    device: str
    experiments: tuple[str, ...]
    doing: str
    step: int
    last: int


@dataclass(frozen=True, slots=True)
class Glance:
    """A sweep at `now`. `level` is the intensity in gCO2eq/kWh: None if unknown; `observed`: the grid was ever read.

    `counts` are the experiments by status, `waits` the waiting ones by reason. `paused_by` is the user who paused the
    sweep; `asked` counts the requests of users, and `last_asked` is the last of them.
    """

    sweep: str
    now: datetime | None
    observed: bool
    level: float | None
    counts: Mapping[Status, int]
    running: tuple[Running, ...]
    waits: Mapping[str, int]
    late: tuple[Late, ...]
    experiments: int
    left: int
    paused_by: str
    asked: int
    last_asked: str

    @property
    def ended(self) -> int:
        return self.experiments - self.left


def glance(state: State) -> Glance:
    """Return a state at a glance."""
    from gridsweep.state.asked import requests, sentence
    from gridsweep.state.asks import ALL
    from gridsweep.state.overdue import overdue

    asked, paused = requests(state), state.asks.paused.get(ALL)
    level = state.history.at(state.now) if state.now and len(state.history) else float("nan")
    waits: dict[str, int] = {}
    for standing in state.standings.values():
        if standing.status == "waiting":
            waits[standing.why or "waiting"] = waits.get(standing.why or "waiting", 0) + 1
    running = []
    for attempt in state.active.values():
        doing = "stopping" if attempt.pausing_since else "training" if attempt.running_at else "loading"
        running.append(
            Running(
                attempt.device,
                tuple(member.experiment for member in attempt.stint.members),
                f"held by {attempt.held}" if attempt.held else doing,
                attempt.step,
                max(member.to_step for member in attempt.stint.members),
            )
        )
    return Glance(
        sweep=state.sweep.name,
        now=state.now,
        observed=bool(len(state.history)),
        level=level if level == level else None,
        counts={status: state.count(status) for status in get_args(Status)},
        running=tuple(running),
        waits=waits,
        late=lateness(overdue(state)),
        experiments=len(state.standings),
        left=state.left,
        paused_by=paused.by if paused else "",
        asked=len(asked),
        last_asked=sentence(asked[-1]) if asked else "",
    )


def lateness(found: Sequence[Overdue]) -> tuple[Late, ...]:
    """Return missed deadlines, the longest first, counted by kind: those that are over first, starts before ends."""
    kinds: list[Late] = []
    for kind in ("start", "end"):
        for over in (True, False):
            missed = [one for one in found if one.kind == kind and (one.at is not None) == over]
            if missed:
                longest = tuple((one.id, one.late_h) for one in missed[:NAMED])
                kinds.append(Late(kind, over, len(missed), longest))
    return tuple(kinds)


def plain(made: Glance) -> dict[str, Any]:
    """Return a glance in JSON types."""
    return {**asdict(made), "now": made.now.isoformat() if made.now else None}


def from_plain(said: Mapping[str, Any]) -> Glance:
    """Return the glance of `plain`'s JSON. Raise `KeyError`, `TypeError` or `ValueError` for anything else."""
    return Glance(
        sweep=said["sweep"],
        now=datetime.fromisoformat(said["now"]) if said["now"] else None,
        observed=said["observed"],
        level=said["level"],
        counts=said["counts"],
        running=tuple(Running(**{**one, "experiments": tuple(one["experiments"])}) for one in said["running"]),
        waits=said["waits"],
        late=tuple(Late(**{**one, "longest": tuple(map(tuple, one["longest"]))}) for one in said["late"]),
        experiments=said["experiments"],
        left=said["left"],
        paused_by=said["paused_by"],
        asked=said["asked"],
        last_asked=said["last_asked"],
    )
