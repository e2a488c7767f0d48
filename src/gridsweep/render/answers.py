"""Documents that commands print with `--json`, unless they print a value of another module (a plan, a report)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from gridsweep.render.terminal import held, latest_start
from gridsweep.runs.folder import RunFolder
from gridsweep.serving.adapters import Adapter
from gridsweep.state.standings import Standing, Status
from gridsweep.state.state import State
from gridsweep.sweep.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Written:
    """A file or folder that was written, and the next command."""

    path: Path
    next: str | None = None
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Rendered:
    """A folder of manifests with its number of RayJobs; 0 if the loop itself runs in the cluster."""

    path: Path
    ray_jobs: int
    next: str
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class CheckedExperiment:
    """An experiment of a spec, with its tier and the reason for it."""

    id: str
    r: int
    alpha: float
    lr: float
    dropout: float
    tier: str
    tier_reason: str


@dataclass(frozen=True, slots=True)
class Check:
    """A valid spec and its warnings."""

    sweep: str
    experiments: tuple[CheckedExperiment, ...]
    warnings: tuple[str, ...]
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class ExperimentStatus:
    """The status of an experiment, its reason, and its latest start."""

    id: str
    status: Status
    tier: str
    tier_reason: str
    step: int
    total_steps: int
    why: str
    latest_start: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    validation_loss: float | None
    attempt_ids: tuple[str, ...]
    held: str
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation(ExperimentStatus):
    """The status of one experiment, as a document."""

    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """The status of a sweep."""

    sweep: str
    folder: Path
    pid: int | None
    now: datetime | None
    counts: dict[Status, int]
    experiments: tuple[ExperimentStatus, ...]
    schema_version: int = 2


@dataclass(frozen=True, slots=True)
class Detached:
    """A run in the background."""

    folder: Path
    pid: int
    next: str
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Stopped:
    """A stopped sweep; `remaining` is 0 if all experiments have ended."""

    folder: Path
    remaining: int
    next: str | None
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Logs:
    """The worker output of an experiment's latest attempt."""

    id: str
    attempt_id: str
    lines: tuple[str, ...]
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of worker output, printed by `logs --follow`."""

    id: str
    attempt_id: str
    line: str
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Adapters:
    """The finished adapters, best first."""

    adapters: tuple[Adapter, ...]
    schema_version: int = 2


@dataclass(frozen=True, slots=True)
class Best:
    """The best adapter, and the adapters statistically tied with it."""

    best: Adapter
    tied: tuple[Adapter, ...]
    schema_version: int = 2


@dataclass(frozen=True, slots=True)
class ZoneRow:
    """A zone of a provider."""

    provider: str
    zone: str
    title: str
    note: str


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones found, and the reason for each provider that could not list its zones."""

    zones: tuple[ZoneRow, ...]
    silent: dict[str, str]
    schema_version: int = 1


def check(sweep: Sweep, warnings: Sequence[str]) -> Check:
    """Return the document of a checked spec."""
    listed = [
        CheckedExperiment(e.id, e.params.r, e.params.alpha, e.params.lr, e.params.dropout, e.tier, e.reason)
        for e in sweep.experiments
    ]
    return Check(sweep.name, tuple(listed), tuple(warnings))


def status(place: RunFolder) -> SweepStatus:
    """Return the status of the sweep in a folder."""
    state, pid = place.read(), place.driver()
    return SweepStatus(
        sweep=state.sweep.name,
        folder=place.path,
        pid=pid,
        now=state.now,
        counts={s: state.count(s) for s in get_args(Status) if s != "reached" or state.count(s)},
        experiments=tuple(ExperimentStatus(**_status(state, standing)) for standing in state.standings.values()),
    )


def explanation(state: State, standing: Standing) -> Explanation:
    """Return the status of one experiment."""
    return Explanation(**_status(state, standing))


def _status(state: State, standing: Standing) -> dict[str, Any]:
    outcome = standing.outcome
    return {
        "id": standing.experiment.id,
        "status": standing.status,
        "tier": standing.experiment.tier,
        "tier_reason": standing.experiment.reason,
        "step": standing.step,
        "total_steps": state.sweep.total_steps,
        "why": standing.why,
        "latest_start": latest_start(state, standing) if standing.status == "waiting" else None,
        "started_at": standing.first_running_at,
        "ended_at": standing.ended_at,
        "validation_loss": outcome.validation_loss if outcome else None,
        "attempt_ids": tuple(standing.attempts),
        "held": held(state, standing),
        "reason": standing.reason,
    }
