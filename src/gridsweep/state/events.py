"""The events of a sweep, in the order in which they became known. All other state is folded from them.

`at` is grid time: the clock used to look up the grid (the wall clock, unless the grid is replayed or simulated).
The order of events is their order in the journal, not `at`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from gridsweep.carbon.readings import Freshness, Provenance
from gridsweep.state.collected import Collected
from gridsweep.state.wishes import Asked
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.stints import Checkpoint, Outcome, Stint
from gridsweep.sweep.sweep import Sweep

UNTOLD = "modelled: the worker told no energy"
"""The source of energy that stands for what a worker's file should have told, and does not."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Energy drawn evenly over `[start, end)`; `step` is the optimizer step reached at its end."""

    start: datetime
    end: datetime
    kwh: float
    source: str
    step: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """The sweep as submitted. `patience` is how long a worker may be silent; None if workers cannot be silent.

    `encoding` is the version of how rows become tokens; sweeps submitted before there were versions have the first.
    """

    at: datetime
    sweep: Sweep
    patience: timedelta | None = None
    encoding: int = 1
    kind: Literal["Submitted"] = "Submitted"


@dataclass(frozen=True, slots=True)
class Fingerprinted:
    """Digests of what the sweep takes as constant, by name; `by` is the submission, a resume, or an attempt.

    `missing` names what could not be read: the first attempt tells it, and no other attempt starts before.
    """

    at: datetime
    things: dict[str, str]
    by: str
    missing: tuple[str, ...] = ()
    kind: Literal["Fingerprinted"] = "Fingerprinted"


@dataclass(frozen=True, slots=True)
class Promised:
    """What the plan promised at submission: a simulation of the sweep on the forecast of that moment.

    `emissions_g` and `immediate_g` (run at once) are in g, `work` is the sum of all stints' lengths. `values` is the
    forecast used, gCO2eq/kWh from `start` in slots of `step`, None where unknown; `forecast` names it.
    """

    at: datetime
    emissions_g: float
    immediate_g: float
    finish: datetime
    finish_immediate: datetime
    work: timedelta
    forecast: str
    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    kind: Literal["Promised"] = "Promised"


@dataclass(frozen=True, slots=True)
class Resumed:
    """A new run resumed the folder, perhaps with changed tiers, policy, devices or finish_by."""

    at: datetime
    epoch: int
    sweep: Sweep
    changes: tuple[str, ...] = ()
    kind: Literal["Resumed"] = "Resumed"


@dataclass(frozen=True, slots=True)
class Observed:
    """New or revised slots of the grid, gCO2eq/kWh, None where unknown, and their source."""

    at: datetime
    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    provenance: Provenance
    kind: Literal["Observed"] = "Observed"


@dataclass(frozen=True, slots=True)
class Answered:
    """From now on this rung answers for the grid; `why` says why the rungs above it do not."""

    at: datetime
    rung: Freshness  # journaled under this name
    why: str = ""
    kind: Literal["Answered"] = "Answered"


@dataclass(frozen=True, slots=True)
class Settled:
    """The grid as revised later: a second set of figures beside those used for scheduling."""

    at: datetime
    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    provenance: Provenance
    kind: Literal["Settled"] = "Settled"


@dataclass(frozen=True, slots=True)
class Requested:
    """A stint was given a device; from now on the device is taken. `due`: its latest start was reached."""

    at: datetime
    attempt: str
    stint: Stint
    device: str
    why: str
    due: bool = False
    kind: Literal["Requested"] = "Requested"


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt is held back from outside, or its state is unknown; an empty `why` ends the hold."""

    at: datetime
    attempt: str
    by: str
    why: str
    kind: Literal["Held"] = "Held"


@dataclass(frozen=True, slots=True)
class Running:
    """The worker has loaded and trains. An experiment's wait ends before that, when the worker starts."""

    at: datetime
    attempt: str
    kind: Literal["Running"] = "Running"


@dataclass(frozen=True, slots=True)
class Progressed:
    """The new content of a worker's files; `cursor` is how far they were read (bytes).

    If grid time follows the work, `over_at` is the grid time at which an attempt ends whose worker is gone: its end is
    recorded when the sweep's time reaches it. `clock` is how far the worker's clock is ahead of the loop's; `at` and
    the segments are corrected by it.
    """

    at: datetime
    attempt: str
    seq: int
    step: int
    losses: dict[str, float | None] = field(default_factory=dict)
    energy: tuple[Segment, ...] = ()
    cursor: tuple[int, int] = (0, 0)
    over_at: datetime | None = None
    clock: timedelta = timedelta(0)
    kind: Literal["Progressed"] = "Progressed"


@dataclass(frozen=True, slots=True)
class Pausing:
    """An attempt is asked to stop at a checkpoint, or with `kill` is killed because it did not react."""

    at: datetime
    attempt: str
    why: str
    kill: bool = False
    kind: Literal["Pausing"] = "Pausing"


@dataclass(frozen=True, slots=True)
class Ended:
    """Every member reached its last step or failed for good."""

    at: datetime
    attempt: str
    outcomes: tuple[Outcome, ...]
    facts: dict[str, str] = field(default_factory=dict)
    kind: Literal["Ended"] = "Ended"


@dataclass(frozen=True, slots=True)
class Paused:
    """The attempt stopped at a checkpoint; its members have steps remaining."""

    at: datetime
    attempt: str
    outcomes: tuple[Outcome, ...]
    kind: Literal["Paused"] = "Paused"


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt is gone without a result; steps after its last checkpoints remain to be done.

    `refused`: what the sweep asks for is at fault, so every other attempt would fail too. `storage`: the worker's disk
    is full or fails, which is no failure of the experiments.
    """

    at: datetime
    attempt: str
    why: str
    checkpoints: tuple[Checkpoint, ...] = ()
    refused: bool = False
    storage: bool = False
    kind: Literal["Lost"] = "Lost"


@dataclass(frozen=True, slots=True)
class Reverted:
    """The checkpoint of an experiment is damaged: it goes on from an earlier one, or from the beginning if None."""

    at: datetime
    experiment: str
    checkpoint: Checkpoint | None
    why: str
    kind: Literal["Reverted"] = "Reverted"


@dataclass(frozen=True, slots=True)
class Decided:
    """An experiment waits: until when at the latest, and why. Recorded only when one of the two changes."""

    at: datetime
    experiment: str
    until: datetime | None
    why: str
    kind: Literal["Decided"] = "Decided"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A rung was decided: experiments in `stopped` stop here, those in `kept` go on. Others may be decided later.

    `tied` experiments were kept because they are tied with the last one kept; `diverged` are among `stopped`.
    `disagreed` counts those among the best that the other score would not have kept; None if unknown. `by` names the
    score that decided.
    """

    at: datetime
    step: int
    stopped: tuple[str, ...]
    why: str
    kept: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    disagreed: int | None = None
    by: str = ""
    kind: Literal["Ranked"] = "Ranked"


@dataclass(frozen=True, slots=True)
class Added:
    """Experiments, possibly none, are added to the sweep; `after` is the step of the rung, or the end, before it.

    `request` names the request of a user who added them; `after` is then 0. Empty for what the sweep adds itself.
    """

    at: datetime
    after: int
    experiments: tuple[Experiment, ...]
    why: str
    request: str = ""
    kind: Literal["Added"] = "Added"


@dataclass(frozen=True, slots=True)
class Stopping:
    """A stop of the run was requested: running work pauses, nothing starts until the run is resumed."""

    at: datetime
    why: str
    kind: Literal["Stopping"] = "Stopping"


@dataclass(frozen=True, slots=True)
class Halted:
    """The sweep stops itself: attempts fail repeatedly for the same reason, a disk fails, or the spec is `refused`."""

    at: datetime
    why: str
    refused: bool = False
    kind: Literal["Halted"] = "Halted"


@dataclass(frozen=True, slots=True)
class ClockAnchored:
    """From wall time `wall` on, grid time at wall time `t` is `at + (t - wall) * speed`; speed 0 stands still.

    If grid time follows the work, each moment that the sweep's time moves to has its own anchor, with speed 0.
    `jump` is by how much the wall clock was set.
    """

    at: datetime
    wall: datetime
    speed: float
    why: str
    jump: timedelta = timedelta(0)
    kind: Literal["ClockAnchored"] = "ClockAnchored"


Event = (
    Submitted
    | Fingerprinted
    | Promised
    | Resumed
    | Observed
    | Answered
    | Settled
    | Requested
    | Held
    | Running
    | Progressed
    | Pausing
    | Ended
    | Paused
    | Lost
    | Reverted
    | Decided
    | Ranked
    | Added
    | Asked
    | Collected
    | Stopping
    | Halted
    | ClockAnchored
)
