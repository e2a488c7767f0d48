"""Small values for tests: sweeps, traces, and rehearsals of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import GridsweepError
from gridsweep.executors.border import read_lines
from gridsweep.policy.situation import Policy
from gridsweep.records.attempts import AttemptFolder, Progress
from gridsweep.runs import run as runs
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.virtual import Observations
from gridsweep.state.events import Ended, Event, Lost, Observed, Progressed, Requested, Running, Segment, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.clusters import ExecutorChoice
from gridsweep.sweep.experiments import Dataset, Experiment, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Checkpoint, Device, Member, Outcome, Stint
from gridsweep.sweep.sweep import Estimates, PolicyChoice, Replay, Sweep
from gridsweep.sweep.tiers import Tier
from gridsweep.testing.executor_contract import sweep_of
from gridsweep.testing.stand_in import STAND_IN

PROJECT = Path(__file__).parents[1]
"""The project's own folder, with its examples and documents."""
START = datetime(2024, 6, 10, tzinfo=UTC)
URGENT = Tier("urgent", 250.0, 4 * HOUR, 1)
RELAXED = Tier("relaxed", 150.0, 12 * HOUR, 2)
PATIENT = tuple(replace(tier, max_delay=4000 * HOUR) for tier in (URGENT, RELAXED))
"""The same tiers for sweeps that run for real: however slow the machine is, no start is overdue."""

DAYS = [300, 260, 180, 140, 120, 100, 140, 210, 280, 240, 160, 90, 310] * 4
"""Some hourly levels."""


def after(hours: float) -> datetime:
    """So many hours after START."""
    return START + hours * HOUR


def make_sweep(
    n: int = 3,
    *,
    tiers: Sequence[Tier] = (URGENT,),
    devices: int | tuple[Device, ...] = 1,
    steps: int = 6,
    hours: float = 1.0,
    watts: float = 100.0,
    **changes: Any,
) -> Sweep:
    """`n` experiments e00, e01, ..., dealt to the tiers in turn, each taking `hours` at `watts`."""
    names = [f"e{i:02}" for i in range(n)]
    fields = {
        "name": "test",
        "model": Model("model"),
        "dataset": Dataset("dataset"),
        "recipe": Recipe(steps=steps, checkpoint_every=2),
        "experiments": tuple(
            Experiment(name, LoraParams(8 + i, 32.0, 1e-4, 0.05), 42, tiers[i % len(tiers)].name, "in turn")
            for i, name in enumerate(names)
        ),
        "tiers": tuple(tiers),
        "estimates": Estimates(hours * HOUR, watts),
        "devices": tuple(Device(f"d{i}") for i in range(devices)) if isinstance(devices, int) else devices,
        "total_steps": steps,
        "policy": PolicyChoice("threshold"),
    }
    return Sweep(**{**fields, **changes})


def grid(*levels: float, step: timedelta = HOUR) -> Observations:
    """A provider of these levels from START on, which shows the past only."""
    return Observations(Trace(START, step, levels), Provenance("a test"))


def rehearsed(sweep: Sweep, levels: Sequence[float], policy: Policy) -> tuple[State, list[Event]]:
    """The sweep in a virtual world, submitted at START; its state and its journal."""
    journal: list[Event] = []
    state = rehearse(sweep, START, grid(*levels), policy, journal=journal)
    return state, journal


def starts(state: State) -> dict[str, float]:
    """When each experiment first ran, in hours after START."""
    return {id: (s.first_running_at - START) / HOUR for id, s in state.standings.items() if s.first_running_at}


def most_at_once(state: State, device: str) -> int:
    """The largest number of attempts that ever held a device together."""
    runs = [a for a in state.attempts.values() if a.device == device and a.ended_at != a.requested_at]
    changes = [(a.requested_at, 1) for a in runs] + [(a.ended_at, -1) for a in runs if a.ended_at]
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


levels = st.lists(st.one_of(st.floats(0, 600), st.just(float("nan"))), min_size=24, max_size=60)
"""Hourly intensities, some unknown."""


@st.composite
def sweeps(draw: st.DrawFn, **changes: Any) -> Sweep:
    """Sweeps of a few experiments in one or two tiers on one to three devices."""
    tiers = draw(st.sampled_from([(URGENT,), (RELAXED,), (URGENT, RELAXED), (RELAXED, URGENT)]))
    hours = draw(st.sampled_from([0.5, 1.0, 1.5, 2.25]))
    devices = draw(st.integers(1, 3))
    return make_sweep(draw(st.integers(1, 6)), tiers=tiers, hours=hours, devices=devices, **changes)


# Sweeps that run for real, with the stand-in worker

FORK = multiprocessing.get_context("fork")


def real_sweep(n: int = 3, *, steps: int = 8, speed: float = 10_000.0, **changes: Any) -> Sweep:
    """A sweep on a replayed clock; of its workers each takes a few tenths of a second."""
    changes = {"tiers": PATIENT[:1]} | changes
    return make_sweep(n, steps=steps, replay=Replay(START, speed), **changes)


def driven(sweep: Sweep | None, folder: Path) -> BaseProcess:
    """A process of its own that runs the sweep; it exits with the run's code, or its error's."""
    process = FORK.Process(target=_drive, args=(sweep, folder))
    process.start()
    return process


def _drive(sweep: Sweep | None, folder: Path) -> None:
    try:
        code = runs.run(sweep, folder, command=STAND_IN).exit_code
    except GridsweepError as error:
        code = error.exit_code
    os._exit(code)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def attempts(folder: Path) -> list[AttemptFolder]:
    """All attempt folders of a run, by when they were made."""
    made = (path for path in folder.glob("store/stints/*/*") if not path.name.startswith("."))
    return [AttemptFolder(path) for path in sorted(made, key=lambda path: path.stat().st_ctime_ns)]


def lines(folder: AttemptFolder) -> list[Progress]:
    """All that a worker said."""
    return read_lines(Progress, folder.path / "progress.jsonl", 0)[0]


def losses(state: State) -> dict[str, tuple[str, float | None]]:
    """What became of each experiment, to the last digit."""
    return {id: (s.status, s.outcome.validation_loss if s.outcome else None) for id, s in state.standings.items()}


def segment(start: float, end: float, kwh: float, step: int = 1) -> Segment:
    return Segment(after(start), after(end), kwh, "measured", step)


def lost_and_done(saved: int = 2) -> State:
    """One experiment: lost at step 4, gone on from its checkpoint at 2; a kWh each two steps.

    With `saved` 0 it was lost without a checkpoint, and starts again.
    """
    first = Stint((Member("e00", 0, 6),))
    second = Stint((Member("e00", saved, 6),))
    a, b = f"{first.id}/1", f"{second.id}/2"
    checkpoints = (Checkpoint("e00", saved, "", ""),) if saved else ()
    before = (segment(0, 0.5, 0.5, 0), segment(0.5, 1, 1, 2), segment(1, 1.5, 1, 4))
    afterwards = (segment(2, 2.5, 0.5, saved), segment(2.5, 3, 1, 4), segment(3, 3.5, 1, 6))
    events: list[Event] = [
        Submitted(START, make_sweep(1)),
        Observed(START, START, HOUR, (100.0,) * 9, Provenance("a test")),
        Requested(after(0), a, first, "d0", ""),
        Running(after(0.5), a),
        Progressed(after(1.5), a, 1, 4, {}, before),
        Lost(after(1.5), a, "killed", checkpoints),
        Requested(after(2), b, second, "d0", ""),
        Progressed(after(3.5), b, 1, 6, {}, afterwards),
        Ended(after(3.5), b, (Outcome("e00", "done", 6),)),
    ]
    return State(events)


def ten_steps(executor: ExecutorChoice, pairs: Path) -> Sweep:
    """Four experiments of ten real steps, on pairs written to a file."""
    rows = [{"prompt": f"Say {n}", "response": f"return {n}" + " + 1" * (n % 5)} for n in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(
        sweep_of(4, steps=10),
        model=Model("tiny-qwen2"),
        dataset=Dataset(str(pairs), train_samples=16, validation_samples=4),
        recipe=Recipe(steps=10, batch_size=2, accumulation=1, max_length=64, checkpoint_every=4),
        replay=Replay(START, 300.0),
        tiers=(Tier("only", 1000.0, 4000 * HOUR, 1),),  # on the slowest machine no start is overdue
        executor=executor,
    )


def run_to_its_end(sweep: Sweep, folder: Path) -> None:
    """Run a sweep with its own executor; for a process of its own."""
    os._exit(runs.run(sweep, folder).exit_code)
