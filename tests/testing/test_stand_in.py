import os
import signal
import subprocess

import pytest

from builders import lines, until
from gridsweep.executors.border import read_lines
from gridsweep.records.attempts import Assignment, AttemptFolder, EnergyLine, Part
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Checkpoint, Device
from gridsweep.testing.stand_in import STAND_IN, loss_after, misbehaviour

PARAMS = LoraParams(8, 32.0, 1e-4, 0.05)


@pytest.fixture
def stint(tmp_path):
    """Makes an attempt folder and runs the stand-in on it; returns the folder and its exit code."""

    def work(number: str, first: int, last: int, *checkpoints: Checkpoint | None, wait: bool = True):
        """With as many members as checkpoints, one at least."""
        folder = AttemptFolder(tmp_path / "store" / "stints" / "s-1" / number)
        saved = checkpoints or (None,)
        parts = tuple(Part(f"e{n:02}", PARAMS, 3 + n, first, last, c) for n, c in enumerate(saved))
        recipe = Recipe(checkpoint_every=4)
        folder.prepare(Assignment(number, Model("m"), Dataset("d"), recipe, 10, Device("d0"), parts))
        with (folder.path / "log.txt").open("wb") as log:
            child = subprocess.Popen([*STAND_IN, str(folder.path)], stdout=log, stderr=log)
        return (folder, child.wait()) if wait else (folder, child)

    return work


def test_its_loss_is_a_function_of_every_step():
    part = Part("e00", PARAMS, 3, 0, 10)
    loss = loss_after(part, 0)
    for step in range(1, 11):
        loss, before = loss_after(part, step, loss), loss
        assert loss < before
    short = loss_after(part, 0)
    for step in range(2, 11):
        short = loss_after(part, step, short)
    assert short != loss  # a step left out shows


def test_it_keeps_the_whole_protocol(stint):
    folder, code = stint("1", 0, 10)
    assert code == 0
    (outcome,) = folder.result().outcomes
    assert (outcome.status, outcome.step) == ("done", 10)
    assert [line.step for line in lines(folder)] == list(range(11))
    energy, _ = read_lines(EnergyLine, folder.path / "energy.jsonl", 0)
    assert [line.step for line in energy] == list(range(1, 11)) and all(line.kwh > 0 for line in energy)
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == ["4", "8"]
    assert (folder.store / outcome.adapter / "adapter_config.json").exists()


def test_in_two_pieces_it_has_the_same_loss_bit_for_bit(stint):
    whole = stint("1", 0, 10)[0].result().outcomes[0]
    first, _ = stint("2", 0, 8)
    second, _ = stint("3", 8, 10, first.checkpoint("e00"))
    assert second.result().outcomes[0].validation_loss == whole.validation_loss


def test_a_pack_reaches_a_rung_and_goes_on_as_each_would_alone(stint):
    alone = [stint(f"alone{n}", 0, 10, *[None] * (n + 1))[0].result().outcomes[n] for n in range(2)]
    first, _ = stint("first", 0, 5, None, None)
    reached = first.result().outcomes
    assert [(o.experiment, o.status, o.step, o.checkpoint.step) for o in reached] == [
        ("e00", "reached", 5, 5), ("e01", "reached", 5, 5)
    ]  # fmt: skip
    for outcome in reached:
        assert outcome.losses.mean == pytest.approx(outcome.train_loss, abs=1e-3) and outcome.losses.finite
        assert outcome.adapter is None and outcome.validation_loss is None
    assert reached[0].losses.tokens == reached[1].losses.tokens
    assert set(lines(first)[-1].losses) == {"e00", "e01"}
    second, _ = stint("second", 5, 10, *(o.checkpoint for o in reached))
    assert [(o.status, o.losses) for o in second.result().outcomes] == [(o.status, o.losses) for o in alone]


def test_in_a_pack_one_that_diverges_fails_alone(stint, monkeypatch):
    whole = stint("1", 0, 10, None, None)[0].result().outcomes[1]
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "nan:e00")
    one, other = stint("2", 0, 10, None, None)[0].result().outcomes
    assert (one.status, one.step, other.status) == ("failed", 3, "done")
    assert other.losses == whole.losses


def test_sigterm_makes_it_pause_at_the_step_it_had_begun(stint, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    folder, child = stint("1", 0, 10, wait=False)
    until(lambda: len(lines(folder)) > 2)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 0
    (outcome,) = folder.result().outcomes
    assert (outcome.status, outcome.checkpoint.step) == ("paused", outcome.step)
    assert folder.checkpoint("e00") == outcome.checkpoint


def test_a_wrong_checkpoint_is_an_error_and_no_result(stint):
    folder, code = stint("1", 4, 10, Checkpoint("e00", 4, "stints/nowhere", "digest"))
    assert code == 1 and "differs from the saved one" in folder.result().error


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [("", ""), ("nan:e0", "nan"), ("hang:x,crash:e00", "crash"), ("nan:", ""), ("nan", ""), ("nan:e01", "")],
)
def test_who_misbehaves_is_named_by_a_prefix(monkeypatch, rules, wrong):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", rules)
    assert misbehaviour("e00") == wrong


@pytest.mark.parametrize(("what", "code"), [("nan", 0), ("crash", 1), ("vanish", -signal.SIGKILL)])
def test_it_misbehaves_as_told(stint, monkeypatch, what, code):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", f"{what}:e")
    folder, exit_code = stint("1", 0, 10)
    assert exit_code == code
    match what:
        case "nan":
            (outcome,) = folder.result().outcomes
            assert (outcome.status, outcome.reason) == ("failed", "the training loss is nan at step 3")
        case "crash":
            assert folder.result().error == "the stand-in was told to crash"
        case "vanish":
            assert folder.result() is None and lines(folder)[-1].step == 2


def test_a_hanging_one_is_deaf(stint, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "hang:e")
    folder, child = stint("1", 0, 10, wait=False)
    until(lambda: len(lines(folder)) == 3)
    until(lambda: not os.kill(child.pid, signal.SIGTERM) and ignores_sigterm(child.pid))
    assert child.poll() is None
    child.kill()
    child.wait()


def ignores_sigterm(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
        ignored = next(line for line in file if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
