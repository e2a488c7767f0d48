"""Documents that commands print with `--json`, unless they print a value of another module (a plan, a report)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args  # arguments of a dataclass, by name

from gridsweep.accounting.recommendation import Recommendation
from gridsweep.records.looks import Look, Piece
from gridsweep.records.requests import left
from gridsweep.render.terminal import held, latest_start
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.glances import standing_at
from gridsweep.serving.adapters import Adapter
from gridsweep.state.asked import RequestRow, requests
from gridsweep.state.overdue import Overdue, overdue
from gridsweep.state.standings import Standing, Status
from gridsweep.state.state import State
from gridsweep.state.wishes import Wish
from gridsweep.sweep.experiments import Base, Dataset, Model, Recipe, Setting
from gridsweep.sweep.rung_prices import rungs_told
from gridsweep.sweep.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Written:
    """A file, a folder or a URL that was written, and the next command."""

    path: str
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
    more: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """A valid spec, its warnings, its rungs in words, and what was seen of its data and model."""

    sweep: str
    experiments: tuple[CheckedExperiment, ...]
    warnings: tuple[str, ...]
    seen: Mapping[str, str]
    constants: Mapping[str, str]
    unseen: Mapping[str, str]
    first_sample: tuple[Piece, ...]
    rungs: str
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
    """The status of a sweep; `requests_waiting` counts what was asked and not yet taken."""

    sweep: str
    folder: Path
    pid: int | None
    now: datetime | None
    counts: dict[Status, int]
    experiments: tuple[ExperimentStatus, ...]
    overdue: tuple[Overdue, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    requests_waiting: int = 0
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
class Told:
    """What became of a request: it was taken, or waits. `experiments` is empty if the whole sweep is meant."""

    folder: Path
    request_ids: tuple[str, ...]
    what: Wish
    experiments: tuple[str, ...]
    answer: Literal["taken", "waiting"]
    added: tuple[str, ...]
    changes: tuple[str, ...]
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
class TiedExperiment:
    """An experiment that is statistically tied with the winner."""

    id: str
    validation_loss: float


@dataclass(frozen=True, slots=True)
class Best:
    """The recommended configuration, with everything needed to train it again elsewhere; losses in nats a token.

    `tied` and `interval` are None where losses were not kept sample by sample, `adapter` where it is not in its folder.
    """

    id: str
    sweep: str
    validation_loss: float
    interval: tuple[float, float] | None
    initial_validation_loss: float | None
    params: Mapping[str, Setting]
    recipe: Recipe
    layers: tuple[int, ...] | None
    modules: tuple[str, ...] | None
    model: Model
    dataset: Dataset
    base: Base
    total_steps: int
    warmup_steps: int
    seed: int
    seeds: int
    tied: tuple[TiedExperiment, ...] | None
    left: int
    experiments: int
    caveats: tuple[str, ...]
    adapter: Path | None
    facts: Mapping[str, str]
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


def best(made: Recommendation, adapter: Path | None) -> Best:
    """Of a recommendation, and the folder of its adapter."""
    ties = [TiedExperiment(row.experiment, row.loss) for row in made.tied or () if row.loss is not None]
    return Best(
        id=made.id,
        sweep=made.sweep,
        validation_loss=made.validation_loss,
        interval=None if made.low is None or made.high is None else (made.low, made.high),
        initial_validation_loss=made.initial_loss,
        params=made.params.values,
        recipe=made.recipe,
        layers=made.layers,
        modules=made.modules,
        model=made.model,
        dataset=made.dataset,
        base=made.base,
        total_steps=made.total_steps,
        warmup_steps=made.warmup_steps,
        seed=made.seed,
        seeds=made.seeds,
        tied=None if made.tied is None else tuple(ties),
        left=made.left,
        experiments=made.of,
        caveats=made.caveats,
        adapter=adapter,
        facts=made.facts,
    )


def check(sweep: Sweep, warnings: Sequence[str], look: Look | None = None) -> Check:
    """Return the document of a checked spec."""
    listed = [
        CheckedExperiment(
            e.id, e.params.r, e.params.alpha, e.params.lr, e.params.dropout, e.tier, e.reason, dict(e.params.more)
        )
        for e in sweep.experiments
    ]
    seen = look or Look(unseen={"model and data": "another program trains this sweep"})
    told = (seen.facts, seen.constants, seen.unseen, seen.first)
    return Check(sweep.name, tuple(listed), tuple(warnings), *told, rungs_told(sweep))


def status(place: RunFolder) -> SweepStatus:
    """Of the sweep in a folder."""
    return status_of(standing_at(place), place.path, place.driver(), len(left(place.state)))


def status_of(state: State, folder: Path, pid: int | None, asked: int = 0) -> SweepStatus:
    """Of a state; `asked` requests wait."""
    return SweepStatus(
        sweep=state.sweep.name,
        folder=folder,
        pid=pid,
        now=state.now,
        counts={s: state.count(s) for s in get_args(Status) if s not in ("reached", "cancelled") or state.count(s)},
        experiments=tuple(ExperimentStatus(**_status(state, standing)) for standing in state.standings.values()),
        overdue=tuple(overdue(state)),
        requests=requests(state),
        requests_waiting=asked,
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
        "started_at": state.start_of(standing.experiment.id),
        "ended_at": standing.ended_at,
        "validation_loss": outcome.validation_loss if outcome else None,
        "attempt_ids": tuple(standing.attempts),
        "held": held(state, standing),
        "reason": standing.reason,
    }
