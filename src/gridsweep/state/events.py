"""The facts of a sweep, in the order they were learned. Everything else is folded from them.

`at` is grid time: the clock the grid is looked up on (the wall clock, unless it is replayed or simulated).
The order of events is their order in the journal, not `at`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from gridsweep.carbon.readings import Freshness, Provenance
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.stints import Checkpoint, Outcome, Stint
from gridsweep.sweep.sweep import Sweep


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
    """The sweep as it was handed in. `patience` is how long a worker may be silent; None where none can be."""

    at: datetime
    sweep: Sweep
    patience: timedelta | None = None
    kind: Literal["Submitted"] = "Submitted"


@dataclass(frozen=True, slots=True)
class Promised:
    """What the plan promised at the submission: a rehearsal of the sweep on the forecast of that moment.

    `emissions_g` and `immediate_g` (run at once) in g, `work` is the sum of all stints' lengths. `values` is the
    forecast that was rehearsed on, gCO2eq/kWh from `start` in slots of `step`, None where unknown; `forecast` names it.
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
    """A run took the folder again, perhaps with changed tiers, policy, devices or finish_by."""

    at: datetime
    epoch: int
    sweep: Sweep
    changes: tuple[str, ...] = ()
    kind: Literal["Resumed"] = "Resumed"


@dataclass(frozen=True, slots=True)
class Observed:
    """New or revised slots of the grid, gCO2eq/kWh, None where unknown, and where they come from."""

    at: datetime
    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    provenance: Provenance
    kind: Literal["Observed"] = "Observed"


@dataclass(frozen=True, slots=True)
class Answered:
    """From now on this rung answers for the grid; `why` says what keeps those above from it."""

    at: datetime
    rung: Freshness  # journaled under this name
    why: str = ""
    kind: Literal["Answered"] = "Answered"


@dataclass(frozen=True, slots=True)
class Settled:
    """The grid as it was known later, revised: a second set of figures beside those that were scheduled on."""

    at: datetime
    start: datetime
    step: timedelta
    values: tuple[float | None, ...]
    provenance: Provenance
    kind: Literal["Settled"] = "Settled"


@dataclass(frozen=True, slots=True)
class Requested:
    """A stint was given a device; from now on the device is taken. `due`: its latest start had come."""

    at: datetime
    attempt: str
    stint: Stint
    device: str
    why: str
    due: bool = False
    kind: Literal["Requested"] = "Requested"


@dataclass(frozen=True, slots=True)
class Held:
    """Something outside holds the attempt back, or nothing is known of it; no longer, where `why` is empty."""

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
    """What a worker's files said since the last look; `cursor` is how far they were read (bytes).

    `over_at` is the grid time at which an attempt ends whose worker is gone, where grid time follows the work: the end
    becomes a fact when the sweep's time has come to it.
    """

    at: datetime
    attempt: str
    seq: int
    step: int
    losses: dict[str, float | None] = field(default_factory=dict)
    energy: tuple[Segment, ...] = ()
    cursor: tuple[int, int] = (0, 0)
    over_at: datetime | None = None
    kind: Literal["Progressed"] = "Progressed"


@dataclass(frozen=True, slots=True)
class Pausing:
    """An attempt is told to stop at a checkpoint; `kill`: it did not listen."""

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
    """The attempt is gone without a result; what its last checkpoints did not hold remains to be done."""

    at: datetime
    attempt: str
    why: str
    checkpoints: tuple[Checkpoint, ...] = ()
    kind: Literal["Lost"] = "Lost"


@dataclass(frozen=True, slots=True)
class Decided:
    """An experiment waits: until when at the latest, and why. Told only when one of the two changes."""

    at: datetime
    experiment: str
    until: datetime | None
    why: str
    kind: Literal["Decided"] = "Decided"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A rung was decided: these experiments stop here, those in `kept` go on. Others may yet be decided about.

    `tied` were kept because they cannot be told from the last one kept; `diverged` are among `stopped`. `disagreed`
    counts those among the best that another score would not have kept; None where that is not known. `by` decided.
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
    """Experiments, perhaps none, that join the sweep; `after` is the step whose rung, or whose end, came before."""

    at: datetime
    after: int
    experiments: tuple[Experiment, ...]
    why: str
    kind: Literal["Added"] = "Added"


@dataclass(frozen=True, slots=True)
class Stopping:
    """Somebody asked the run to stop: running work pauses, nothing starts until it is resumed."""

    at: datetime
    why: str
    kind: Literal["Stopping"] = "Stopping"


@dataclass(frozen=True, slots=True)
class Halted:
    """Everything fails alike, so the sweep stops itself."""

    at: datetime
    why: str
    kind: Literal["Halted"] = "Halted"


@dataclass(frozen=True, slots=True)
class ClockAnchored:
    """From wall time `wall` on, grid time is `at + (wall - this wall) * speed`; speed 0 stands still.

    Where grid time follows the work, there is one for every moment the sweep's time moved to, and none moves by itself.
    """

    at: datetime
    wall: datetime
    speed: float
    why: str
    kind: Literal["ClockAnchored"] = "ClockAnchored"


Event = (
    Submitted
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
    | Decided
    | Ranked
    | Added
    | Stopping
    | Halted
    | ClockAnchored
)
