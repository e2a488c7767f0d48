"""A small sweep with rungs and packs, run for real: who goes on, who stops, and that a killed loop changes nothing."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builders import FORK, attempts, lines, real_sweep, until
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Dataset, Experiment, LoraParams, Model, Recipe
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.sweep import PolicyChoice, Sweep

pytestmark = [pytest.mark.train, pytest.mark.slow]

RATES = {"none": 1e-6, "little": 1e-3, "some": 3e-3, "more": 1e-2}


@pytest.fixture
def sweep(pairs_file: Path) -> Sweep:
    """Four experiments, two at a time; two go on from the middle."""
    recipe = Recipe(steps=6, batch_size=2, accumulation=2, max_length=64, checkpoint_every=2, warmup=0.0)
    points = (Experiment(id, LoraParams(4, 16, lr, 0.1), 1, "urgent", "a test") for id, lr in RATES.items())
    return replace(
        real_sweep(4, steps=6, devices=2, speed=100.0),
        model=Model("tiny-qwen2"), dataset=Dataset(str(pairs_file), train_samples=12, validation_samples=8),
        recipe=recipe, experiments=tuple(points), policy=PolicyChoice("immediate"), pack=2, rungs=Rungs((0.5,), (2,)),
    )  # fmt: skip


def found(state: State) -> dict[str, object]:
    """All that was measured of each."""
    return {
        id: (s.status, s.outcome and (s.outcome.validation_loss, s.outcome.averaged_validation_loss, s.outcome.losses),
             {step: (o.train_loss, o.losses) for step, o in s.scores.items()})
        for id, s in state.standings.items()
    }  # fmt: skip


def run_forked(sweep: Sweep, folder: Path) -> None:
    os._exit(runs.run(sweep, folder).exit_code)


def test_two_end_with_adapters_two_stop_and_a_killed_loop_changes_no_loss(tmp_path: Path, sweep: Sweep) -> None:
    done = runs.run(sweep, tmp_path / "whole")
    state = RunFolder(tmp_path / "whole").read()
    assert done.exit_code == 0, [list((a.path / "log.txt").open()) for a in attempts(tmp_path / "whole")]
    statuses = {id: s.status for id, s in state.standings.items()}
    assert statuses == {"none": "stopped", "little": "stopped", "some": "done", "more": "done"}
    assert [a.stint.steps for a in state.attempts.values()] == [3, 3, 3, 3]
    assert state.facts["validation_samples"] == "8"
    for id, status in statuses.items():
        home = tmp_path / "whole/store/experiments" / id / "adapter"
        assert home.exists() == (status == "done")
        assert state.standings[id].scores[3].losses is not None
    # A device each, for the two that go on.
    assert {a.device for a in list(state.attempts.values())[2:]} == {"d0", "d1"}

    folder = tmp_path / "killed"
    for _ in range(3):
        loop = FORK.Process(target=run_forked, args=(sweep, folder))
        loop.start()
        begun = time.monotonic()
        until(lambda began=begun: trained(folder) and time.monotonic() - began > 2, 60)
        loop.kill()
        loop.join()
    assert runs.run(sweep, folder).exit_code == 0
    assert found(RunFolder(folder).read()) == found(state)


def trained(folder: Path) -> bool:
    """Whether some worker has made a step."""
    return any(line.losses for attempt in attempts(folder) for line in lines(attempt))
