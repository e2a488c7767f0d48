from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from gridsweep.errors import CheckpointError, SpecError
from gridsweep.records.attempts import AttemptFolder, Outcome, Part
from gridsweep.records.files import verify
from gridsweep.sweep.experiments import Dataset, LoraParams
from gridsweep.testing.nvml import NoNvml, VirtualNvml
from gridsweep.train import __main__ as program
from gridsweep.train.model import TINY_QWEN2
from gridsweep.train.worker import Worker

pytestmark = pytest.mark.train

STEPS = 6
Assigned = Callable[..., AttemptFolder]


def work(folder: AttemptFolder, stopping: Callable[[], bool] = lambda: False) -> Outcome:
    """Run a worker in this process; its result is finished into the folder."""
    return together(folder, stopping)[0]


def together(folder: AttemptFolder, stopping: Callable[[], bool] = lambda: False) -> list[Outcome]:
    """The same with an outcome per member, as the next to read them will."""
    folder.finish(Worker(folder, folder.assignment(), stopping).run())
    return list(folder.result().outcomes)


def stop_when(folder: AttemptFolder, phase: str, step: int) -> Callable[[], bool]:
    """Says stop as soon as progress.jsonl has such a line."""
    return lambda: any(line["phase"] == phase and line["step"] >= step for line in lines(folder))


def lines(folder: AttemptFolder, name: str = "progress.jsonl") -> list[dict]:
    file = folder.path / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def losses(*folders: AttemptFolder, of: str = "x") -> dict[int, float]:
    return {line["step"]: line["losses"][of] for f in folders for line in lines(f) if of in line["losses"]}


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
    assert outcome.losses.mean == pytest.approx(outcome.validation_loss) and len(outcome.losses.values) == 6
    assert outcome.averaged_validation_loss == pytest.approx(outcome.validation_loss, abs=0.1)
    phases = [line["phase"] for line in lines(folder)]
    assert phases[:4] == ["loading", "loading", "training", "evaluating"] and phases[-1] == "evaluating"
    told = [line["constants"] for line in lines(folder) if line["constants"]]
    assert [set(constants) for constants in told] == [{
        "training data", "encoded samples", "tokenizer", "chat template", "model config", "model weights", "dtype",
    }]  # fmt: skip
    assert next(line for line in lines(folder) if line["phase"] == "training")["losses"] == {}
    assert list(losses(folder)) == [1, 2, 3, 4, 5, 6]
    assert sorted(int(p.name) for p in (folder.path / "checkpoints").iterdir()) == [4, 5]
    facts = folder.result().facts
    assert facts["train_samples"] == "14" and facts["device"] == "cpu" and len(facts["dataset_digest"]) == 64
    assert int(facts["memory_peak_mb"]) == pytest.approx(int(facts["memory_predicted_mb"]), rel=0.1)
    assert "group" not in facts and "peft" not in facts


def test_energy_is_told_from_loading_to_the_end(assigned: Assigned) -> None:
    folder = assigned()
    work(folder)
    told = lines(folder, "energy.jsonl")
    assert told[0]["step"] == 0 and told[-1]["step"] == STEPS
    assert all(line["kwh"] >= 0 and line["seconds"] >= 0 for line in told)
    assert sum(line["kwh"] for line in told) > 0


@pytest.mark.parametrize("stopped", [False, True])
def test_a_power_limit_holds_while_it_trains_and_no_longer(
    assigned: Assigned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr("gridsweep.energy.power_limits.NOTES", tmp_path / "notes")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml, folder = VirtualNvml(), assigned(power_limit_w=300)
    seen: set[float] = set()
    stop = stop_when(folder, "training", 2)

    def stopping() -> bool:
        if any(line["phase"] == "training" for line in lines(folder)):
            seen.add(nvml.limit[0])
        return stopped and stop()

    result = Worker(folder, folder.assignment(), stopping, nvml).run()
    assert result.outcomes[0].status == ("paused" if stopped else "done")
    assert result.facts["power_limit"] == "300 W, 700 W before"
    assert (seen, nvml.limit[0], nvml.sessions) == ({300_000}, 700_000, 0)


def test_a_power_limit_without_a_gpu_is_told_of(assigned: Assigned) -> None:
    folder = assigned(power_limit_w=300)
    result = Worker(folder, folder.assignment(), lambda: False, NoNvml()).run()
    assert result.outcomes[0].status == "done"
    assert result.facts["power_limit"] == "not set: there is no NVIDIA GPU here"


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
    for name in FOUND:
        assert getattr(outcome, name) == getattr(expected, name)


FOUND = ("train_loss", "validation_loss", "initial_validation_loss", "losses", "averaged_validation_loss")


@pytest.mark.parametrize(("schedule", "judged"), [("cosine", 8), ("linear", 8), ("constant", 0)])
def test_a_rung_leaves_a_checkpoint_to_go_on_from_and_losses_where_the_rate_decays(
    assigned: Assigned, pairs_file: Path, schedule: str, judged: int
) -> None:
    more = {
        "recipe": {"learning_rate_schedule": schedule},
        "dataset": Dataset(str(pairs_file), train_samples=10, validation_samples=10),
    }
    whole, first = assigned("whole", **more), assigned("first", to_step=3, **more)
    expected = work(whole)
    outcome = work(first)
    assert (outcome.status, outcome.step, outcome.checkpoint.step) == ("reached", 3, 3)
    assert (outcome.validation_loss, outcome.adapter) == (None, None)
    assert outcome.train_loss == losses(first)[3]
    assert (len(outcome.losses.values) if outcome.losses else 0) == judged
    second = assigned("second", from_step=3, checkpoint=outcome.checkpoint, **more)
    ended = work(second)
    assert losses(first, second) == losses(whole)
    assert all(getattr(ended, name) == getattr(expected, name) for name in FOUND)


def test_stopped_while_it_is_judged_it_comes_back_to_the_rung(assigned: Assigned) -> None:
    """A checkpoint of the rung itself would let it pass without having been compared."""
    first = assigned("first", to_step=3)
    paused = work(first, stop_when(first, "training", 3))
    assert (paused.status, paused.step, paused.checkpoint.step) == ("paused", 2, 2)
    assert first.checkpoint("x").step == 2


def test_a_loss_that_is_no_number_fails_the_experiment(assigned: Assigned) -> None:
    outcome = work(assigned(params=LoraParams(4, 16, 1e38, 0.0)))
    assert (outcome.status, outcome.reason) == ("failed", "the training loss is nan at step 2")
    assert outcome.adapter is None


THREE = (
    Part("a", LoraParams(4, 16, 1e-3, 0.1), 1, 0, STEPS),
    Part("b", LoraParams(8, 16, 2e-3, 0.2), 1, 0, STEPS),
    Part("c", LoraParams(4, 32, 1e-3, 0.0), 1, 0, STEPS),
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What each of three finds alone; made once."""
    return {}


def each_alone(assigned: Assigned, known: dict[str, object]) -> dict[str, object]:
    if not known:
        for part in THREE:
            folder = assigned(f"alone-{part.experiment}", parts=[part])
            outcome = work(folder)
            found = {name: getattr(outcome, name) for name in FOUND}
            known[part.experiment] = (losses(folder, of=part.experiment), found, weights(folder, outcome))
    return known


def weights(folder: AttemptFolder, outcome: Outcome) -> bytes:
    return (folder.store / outcome.adapter / "adapter_model.safetensors").read_bytes()


def found_in(folders: list[AttemptFolder], outcomes: list[Outcome]) -> dict[str, object]:
    return {
        o.experiment: (
            losses(*folders, of=o.experiment), {name: getattr(o, name) for name in FOUND}, weights(folders[-1], o)
        )
        for o in outcomes
    }  # fmt: skip


def test_a_pack_of_three_finds_what_three_find_alone_bit_for_bit(
    assigned: Assigned, alone: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = each_alone(assigned, alone)
    folder = assigned("pack", parts=THREE)
    assert found_in([folder], together(folder)) == expected
    assert [sorted(line["losses"]) for line in lines(folder) if line["losses"]] == [["a", "b", "c"]] * STEPS
    assert folder.result().facts["group"] == "3 members, 3 at a time"
    monkeypatch.setattr("gridsweep.train.worker.MEASURE_FROM", 1)  # and what is found to be fastest changes nothing
    measured = assigned("measured", parts=THREE[::-1])
    assert found_in([measured], together(measured)) == expected
    assert measured.result().facts["group"].startswith("3 members, ")
    assert measured.result().facts["group"].endswith(" tokens/s")


@pytest.mark.parametrize(("phase", "step", "paused_at"), [("training", 1, 1), ("training", 3, 3), ("evaluating", 6, 5)])
def test_an_interrupted_pack_goes_on_as_if_it_had_not_been(
    assigned: Assigned, alone: dict[str, object], phase: str, step: int, paused_at: int
) -> None:
    expected = each_alone(assigned, alone)
    first = assigned("first", parts=THREE)
    paused = together(first, stop_when(first, phase, step))
    assert [(o.status, o.step, o.checkpoint.step) for o in paused] == [("paused", paused_at, paused_at)] * 3
    saved = {o.experiment: o.checkpoint for o in paused}
    parts = [replace(p, from_step=paused_at, checkpoint=saved[p.experiment]) for p in THREE]
    second = assigned("second", parts=parts)
    assert found_in([first, second], together(second)) == expected


def test_one_that_diverges_fails_alone(assigned: Assigned, alone: dict[str, object]) -> None:
    wild = Part("w", LoraParams(4, 16, 1e38, 0.1), 1, 0, STEPS)
    folder = assigned("pack", parts=[THREE[0], wild, *THREE[1:]])
    one, lost, *others = together(folder)
    assert (lost.experiment, lost.status, lost.step) == ("w", "failed", 1)
    assert lost.reason == "the training loss is nan at step 2"
    assert found_in([folder], [one, *others]) == each_alone(assigned, alone)
    assert list(losses(folder, of="w")) == [1]
    assert [p.name for p in (folder.path / "checkpoints").glob("*/w")] == []


def test_too_little_memory_makes_the_passes_smaller_and_then_is_told(
    assigned: Assigned, alone: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from gridsweep.train.lean.group import Group

    whole = Group.forward_backward

    def tight(self: Group, names: list[str], *others: object) -> torch.Tensor:
        if len(names) > room:
            raise torch.OutOfMemoryError("no room")
        return whole(self, names, *others)

    monkeypatch.setattr(Group, "forward_backward", tight)
    room = 1
    folder = assigned("pack", parts=THREE)
    assert found_in([folder], together(folder)) == each_alone(assigned, alone)
    assert folder.result().facts["group"] == "3 members, 1 at a time"
    room = 0
    folder = assigned("none", parts=THREE)
    assert program.main([str(folder.path)]) == 1
    assert folder.result().error.startswith("out of memory (no room); lower recipe.max_length")


def test_a_small_device_gets_a_smaller_plan_from_the_first_step_on_and_the_same_results(
    assigned: Assigned, alone: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 45 MB beside the process, a tenth left free, passes one member at a time; in one nothing does."""
    monkeypatch.setattr("gridsweep.train.device.taken_beside", lambda device, base, before: 0.0)
    monkeypatch.setattr("gridsweep.train.peak.Peak.resident", lambda self: None)
    small = assigned("small", parts=THREE, memory_gb=0.045)
    assert found_in([small], together(small)) == each_alone(assigned, alone)
    facts = small.result().facts
    assert facts["group"] == "3 members, 1 at a time"
    assert int(facts["memory_peak_mb"]) <= int(facts["memory_predicted_mb"]) < 0.9 * 0.045e9 / 2**20
    tiny = assigned("tiny", parts=THREE, memory_gb=0.001)
    assert program.main([str(tiny.path)]) == 1
    assert "need about 0.03 GB, of which 10% stays free, and the device has 0.00 GB" in tiny.result().error


def test_the_process_itself_counts(assigned: Assigned) -> None:
    """What Python, torch and this process's data take is more than the base and one adapter."""
    small = assigned("small", memory_gb=0.1)
    assert program.main([str(small.path)]) == 1
    told = small.result().error
    assert "and the device has 0.10 GB" in told and re.search(r"Python and its libraries \d\.\d\d GB", told)
    roomy = assigned("roomy")
    work(roomy)
    facts = roomy.result().facts
    assert int(facts["memory_predicted_mb"]) > 200
    assert int(facts["memory_peak_mb"]) <= psutil.Process().memory_info().rss / 2**20 + 200


@pytest.mark.parametrize("recipe", [{"layers": "upper-half"}, {"rslora": True, "lora_plus": 4.0}])
def test_the_recipe_says_which_layers_and_which_kind_of_lora(
    assigned: Assigned, alone: dict[str, object], recipe: dict[str, object]
) -> None:
    folder = assigned("kind", parts=THREE[:1], recipe=recipe)
    outcome = work(folder)
    config = json.loads((folder.store / outcome.adapter / "adapter_config.json").read_text())
    assert config["use_rslora"] == recipe.get("rslora", False)
    assert bool(config["layers_to_transform"]) == ("layers" in recipe)
    assert outcome.validation_loss != each_alone(assigned, alone)["a"][1]["validation_loss"]


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_found(assigned: Assigned) -> None:
    folder = assigned()
    paused = work(folder, stop_when(folder, "training", 5))
    saved = folder.store / paused.checkpoint.path / "optimizer.safetensors"
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint .* is missing or damaged"):
        work(assigned("2", from_step=5, checkpoint=paused.checkpoint))
    assert folder.checkpoint("x").step == 4


def test_a_checkpoint_of_another_step_or_none_is_refused(assigned: Assigned) -> None:
    paused = work(first := assigned(), stop_when(first, "training", 2))
    with pytest.raises(CheckpointError, match="is of step 2, not of step 4"):
        work(assigned("2", from_step=4, checkpoint=paused.checkpoint))
    with pytest.raises(CheckpointError, match="from step 4, but no checkpoint"):
        work(assigned("3", from_step=4))


def test_a_checkpoint_of_another_recipe_or_rank_is_refused(assigned: Assigned) -> None:
    paused = work(first := assigned(), stop_when(first, "training", 2))
    with pytest.raises(SpecError, match=r"of another training: recipe\.clip 1\.0 instead of 0\.5"):
        work(assigned("2", from_step=2, checkpoint=paused.checkpoint, recipe={"clip": 0.5}))
    with pytest.raises(SpecError, match="of another training: r 4 instead of 8"):
        work(assigned("3", from_step=2, checkpoint=paused.checkpoint, params=LoraParams(8, 16, 1e-3, 0.1)))


def test_members_that_do_not_go_side_by_side_are_refused(assigned: Assigned) -> None:
    shorter, another = replace(THREE[1], to_step=3), replace(THREE[1], seed=2)
    for n, parts in enumerate((THREE[:1] * 2, [THREE[0], shorter], [THREE[0], another])):
        with pytest.raises(SpecError, match=r"that make the same steps in one order, not a \(seed 1\) from 0 to 6"):
            work(assigned(str(n), parts=parts))


def test_a_full_disk_leaves_nothing_half_done_under_a_final_name(
    assigned: Assigned, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = assigned()

    def full(tensors: object, file: Path, facts: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr("gridsweep.train.lean.files._write", full)
    assert program.main([str(folder.path)]) == 1
    assert "the disk cannot be used" in folder.result().error
    assert not (folder.path / "checkpoints" / "2" / "x").exists()
    assert folder.checkpoint("x") is None


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "./nothing"}, "the model folder ./nothing is not there"),
        ({"dataset": Dataset("./nothing.jsonl")}, "the dataset ./nothing.jsonl is not there"),
        ({"recipe": {"max_length": 4}}, "raise recipe.max_length"),
        ({"recipe": {"learning_rate_schedule": "steps"}}, "no learning-rate schedule 'steps'"),
        ({"recipe": {"target_modules": ("c_attn",)}}, "no modules named c_attn"),
        ({"params": LoraParams(4096, 16, 1e-3, 0.1)}, "x has rank 4096, but "),
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


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose samples would see each other in a pack, with the bundled tokenizer."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from gridsweep.train.architecture import empty

    folder = tmp_path_factory.mktemp("models") / "hybrid"
    config = AutoConfig.for_model(
        "lfm2", vocab_size=2048, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, layer_types=["conv", "full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    empty(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY_QWEN2).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_model_that_cannot_be_packed_is_swept_all_the_same(assigned: Assigned, hybrid: Path) -> None:
    """One experiment at a time, labelled; a pack of two gives what each gives alone, and PEFT reads the adapters."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    more = {"model": str(hybrid), "recipe": {"target_modules": ("all-linear",)}}
    both = assigned("both", parts=THREE[:2], **more)
    one, two = together(both)
    facts = both.result().facts
    assert facts["trainer"].startswith("plain PEFT, one experiment at a time (Lfm2ForCausalLM cannot be trained lean")
    assert facts["group"] == "2 members, 1 at a time"
    for whole, part_ in ((one, THREE[0]), (two, THREE[1])):
        (single,) = together(assigned(f"single-{part_.experiment}", parts=[part_], **more))
        assert (single.losses, single.validation_loss) == (whole.losses, whole.validation_loss)
        assert whole.validation_loss < whole.initial_validation_loss
        read = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(hybrid), both.store / whole.adapter)
        assert read.peft_config["default"].target_modules >= {"in_proj", "q_proj", "w1"}


def test_a_base_without_a_finite_loss_is_no_fault_of_an_experiment(assigned: Assigned, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(TINY_QWEN2, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpecError, match=r"before training is nan in float32; its weights are damaged"):
        together(assigned(model=str(folder)))
