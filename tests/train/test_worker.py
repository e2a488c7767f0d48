from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gridsweep.attempt import AttemptFolder, Outcome, verify
from gridsweep.errors import SpecError
from gridsweep.sweep import Dataset, LoraParams
from gridsweep.train import __main__ as program
from gridsweep.train.worker import Worker

pytestmark = pytest.mark.train

STEPS = 6
Assigned = Callable[..., AttemptFolder]


def work(folder: AttemptFolder, stopping: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a worker in this process; its result is finished into the folder."""
    result = Worker(folder, folder.assignment(), stopping).run()
    folder.finish(result)
    return result.outcomes[0]


def stop_when(folder: AttemptFolder, phase: str, step: int) -> Callable[[], bool]:
    """Says stop as soon as progress.jsonl has such a line."""
    return lambda: any(line["phase"] == phase and line["step"] >= step for line in lines(folder))


def lines(folder: AttemptFolder, name: str = "progress.jsonl") -> list[dict]:
    file = folder.path / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def losses(*folders: AttemptFolder) -> dict[int, float]:
    return {line["step"]: line["losses"]["x"] for f in folders for line in lines(f) if line["losses"]}


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsweep.train.diary.PROGRESS_EVERY", 0.0)


def test_a_whole_experiment(assigned: Assigned) -> None:
    folder = assigned()
    outcome = work(folder)
    assert (outcome.status, outcome.step, outcome.checkpoint) == ("done", STEPS, None)
    assert outcome.initial_validation_loss > outcome.validation_loss > 0
    assert outcome.train_loss == losses(folder)[STEPS]  # a tenth of six steps is the last one
    assert verify(folder.store / outcome.adapter)
    phases = [line["phase"] for line in lines(folder)]
    assert phases[:3] == ["loading", "training", "evaluating"] and phases[-1] == "evaluating"
    assert next(line for line in lines(folder) if line["phase"] == "training")["losses"] == {}
    assert list(losses(folder)) == [1, 2, 3, 4, 5, 6]
    assert sorted(int(p.name) for p in (folder.path / "checkpoints").iterdir()) == [4, 5]
    facts = folder.result().facts
    assert facts["train_samples"] == "14" and facts["device"] == "cpu" and len(facts["dataset_digest"]) == 64


def test_energy_is_told_from_loading_to_the_end(assigned: Assigned) -> None:
    folder = assigned()
    work(folder)
    told = lines(folder, "energy.jsonl")
    assert told[0]["step"] == 0 and told[-1]["step"] == STEPS
    assert all(line["kwh"] >= 0 and line["seconds"] >= 0 for line in told)
    assert sum(line["kwh"] for line in told) > 0


@pytest.mark.parametrize(
    ("phase", "step", "paused_at"),
    [
        ("loading", 0, 0),
        ("evaluating", 0, 0),
        ("training", 1, 1),
        ("training", 4, 4),
        (
            "training",
            STEPS,
            STEPS - 1,
        ),  # in the last evaluation: the last step is made again, so that there is something left to do
    ],
)
def test_interrupted_and_resumed_is_as_if_it_had_not_been(
    assigned: Assigned, phase: str, step: int, paused_at: int
) -> None:
    whole = assigned("whole")
    expected = work(whole)
    first = assigned("first")
    paused = work(first, stop_when(first, phase, step))
    assert (paused.status, paused.step) == ("paused", paused_at)
    assert (paused.checkpoint is None) == (paused_at == 0)
    assert not (first.path / "adapters").exists()
    second = assigned("second", from_step=paused_at, checkpoint=paused.checkpoint)
    # Stopped again while loading: the checkpoint it came with is handed on.
    assert work(second, lambda: True).checkpoint == paused.checkpoint
    third = assigned("third", from_step=paused_at, checkpoint=paused.checkpoint)
    outcome = work(third)
    assert losses(first, third) == losses(whole)
    for name in ("train_loss", "validation_loss", "initial_validation_loss"):
        assert getattr(outcome, name) == getattr(expected, name)


def test_a_stint_that_ends_at_a_rung_leaves_a_checkpoint_to_go_on_from(assigned: Assigned) -> None:
    whole, first = assigned("whole"), assigned("first", to_step=3)
    work(whole)
    outcome = work(first)
    assert (outcome.status, outcome.step, outcome.checkpoint.step) == ("done", 3, 3)
    assert outcome.validation_loss is not None
    second = assigned("second", from_step=3, checkpoint=outcome.checkpoint)
    work(second)
    assert losses(first, second) == losses(whole)


def test_a_loss_that_is_no_number_fails_the_experiment(assigned: Assigned) -> None:
    outcome = work(assigned(params=LoraParams(4, 16, 1e38, 0.0)))
    assert (outcome.status, outcome.reason) == ("failed", "the training loss is nan at step 2")
    assert outcome.adapter is None


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_found(assigned: Assigned) -> None:
    folder = assigned()
    paused = work(folder, stop_when(folder, "training", 5))
    saved = folder.store / paused.checkpoint.path / "optimizer.safetensors"
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(SpecError, match=r"checkpoint .* is missing or damaged"):
        work(assigned("2", from_step=5, checkpoint=paused.checkpoint))
    assert folder.checkpoint("x").step == 4


def test_a_checkpoint_of_another_step_or_none_is_refused(assigned: Assigned) -> None:
    paused = work(first := assigned(), stop_when(first, "training", 2))
    with pytest.raises(SpecError, match="is of step 2, not of step 4"):
        work(assigned("2", from_step=4, checkpoint=paused.checkpoint))
    with pytest.raises(SpecError, match="from step 4, but no checkpoint"):
        work(assigned("3", from_step=4))


def test_several_members_are_refused(assigned: Assigned) -> None:
    with pytest.raises(SpecError, match="one experiment at a time, not 2"):
        work(assigned(members=2))


def test_a_full_disk_leaves_nothing_half_done_under_a_final_name(
    assigned: Assigned, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = assigned()

    def full(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr("gridsweep.train.training.save_tensors", full)
    assert program.main([str(folder.path)]) == 1
    assert "no space left on the disk" in folder.result().error
    assert not (folder.path / "checkpoints" / "2" / "x").exists()
    assert folder.checkpoint("x") is None


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "./nothing"}, "the model folder ./nothing is not there"),
        ({"dataset": Dataset("./nothing.jsonl")}, "the dataset ./nothing.jsonl is not there"),
        ({"recipe": {"max_length": 4}}, "raise recipe.max_length"),
        ({"recipe": {"learning_rate_schedule": "steps"}}, "no learning-rate schedule 'steps'"),
    ],
)
def test_what_is_wrong_is_told_in_the_result(assigned: Assigned, given: dict, error: str) -> None:
    folder = assigned(**given)
    assert program.main([str(folder.path)]) == 1
    assert error in folder.result().error and folder.result().outcomes == ()


def test_the_program_is_paused_by_sigterm_and_taken_up_again(assigned: Assigned) -> None:
    slow = {"batch_size": 8, "accumulation": 6}  # half a second a step: time enough to be stopped in
    whole = assigned("whole", recipe=slow)
    expected = work(whole)
    first = assigned("first", recipe=slow)
    process = launched(first)
    wait_for(lambda: any(line["step"] >= 1 for line in lines(first)), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (first.path / "log.txt").read_text()
    outcome = first.result().outcomes[0]
    assert first.pid() == process.pid
    assert outcome.status == "paused" and 1 <= outcome.step < STEPS
    second = assigned("second", from_step=outcome.step, checkpoint=outcome.checkpoint, recipe=slow)
    assert work(second).validation_loss == expected.validation_loss
    assert losses(first, second).items() <= losses(whole).items()


def test_the_program_hears_sigterm_while_it_loads(assigned: Assigned) -> None:
    folder = assigned()
    process = launched(folder)
    wait_for(lambda: folder.pid() is not None, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    outcome = folder.result().outcomes[0]
    assert (outcome.status, outcome.step, outcome.checkpoint) == ("paused", 0, None)


def launched(folder: AttemptFolder) -> subprocess.Popen[bytes]:
    with (folder.path / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gridsweep.train", str(folder.path)],
            stdout=log,
            stderr=log,
            env=os.environ,
        )


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while not seen():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
