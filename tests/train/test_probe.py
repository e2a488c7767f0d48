"""doctor --train: what this device trains best, really measured with tiny-qwen2, and what is said where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from gridsweep import doctor, load
from gridsweep.records import codec
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.train import probing
from gridsweep.train.footprint import Footprint, of_model
from gridsweep.train.lean import roster
from gridsweep.train.model import load_base
from gridsweep.train.probe import main
from gridsweep.train.probing import Subject, file_name
from gridsweep.train.samples import Sample

pytestmark = pytest.mark.train
SPEC = """\
model: {model}
dataset: {dataset}
recipe: {{steps: 12, batch_size: 2, accumulation: 1, max_length: 48}}
space: {{r: [4, 8], alpha: [32], lr: [1e-4, 5e-5], dropout: [0.1]}}
tiers: [{{name: any, threshold: 200, max_delay: 24h}}]
estimates: {{duration: 1h, power_w: 15}}
"""


@pytest.fixture
def write(tmp_path: Path):
    def spec(model: str = "tiny-qwen2", dataset: str = "stdlib") -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(SPEC.format(model=model, dataset=dataset))
        return path

    return spec


def as_json(spec: Path) -> str:
    """A spec as the program gets it: the sweep as a run folder keeps it."""
    path = spec.with_suffix(".json")
    path.write_text(codec.dumps(load(spec)))
    return str(path)


def test_doctor_measures_and_writes_it_down(gridsweep, write, tmp_path: Path) -> None:
    code, out, err = gridsweep("doctor", "--train", "--seconds", "3", "--json", write())
    assert code == 0 and "for about 3 s" in err
    told = json.loads(out)
    (made,) = told["train"]
    assert {choice["members"] for choice in made["choices"]} | {one["members"] for one in made["left_out"]} == {1, 2, 4}
    assert all(choice["tokens_per_s"] > 0 and choice["foreseen_bytes"] > 0 for choice in made["choices"])
    assert made["best"]["tokens_per_s"] == max(choice["tokens_per_s"] for choice in made["choices"])
    assert made["memory"]["fit_at_once"] > 4 and set(made["memory"]["adapter_bytes"]) == {"4", "8"}
    assert "samples of stdlib" in made["samples"]
    seen = [finding["seen"] for finding in told["findings"] if finding["what"].startswith("train ")]
    assert sum(line.endswith("<- best") for line in seen) == 1
    assert any("no readable energy counter" in line for line in seen) is (made["energy_source"] is None)
    file = tmp_path / "cache" / "gridsweep" / "devices" / f"{file_name(made['device'])}.json"
    assert str(file) == made["path"] and list(file.parent.iterdir()) == [file]
    assert json.loads(file.read_text())["models"]["tiny-qwen2"]["best"] == made["best"]


def test_what_was_measured_of_another_model_stays(write, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main([as_json(write(dataset="somebody/else")), "--seconds", "1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["samples"] == "random tokens, 48 a sample, as somebody/else is not a local dataset"
    file = Path(made["written"])
    kept = json.loads(file.read_text())
    kept["models"] = {"another": kept["models"].pop("tiny-qwen2")}
    file.write_text(json.dumps(kept))
    assert main([as_json(write()), "--seconds", "1"]) == 0
    assert "(best)" in capsys.readouterr().out
    assert set(json.loads(file.read_text())["models"]) == {"another", "tiny-qwen2"}


def test_a_model_that_is_not_here_is_not_downloaded(gridsweep, write) -> None:
    code, _, err = gridsweep("doctor", "--train", write(model="nobody/nothing-of-this-name"))
    assert code == 2 and "nobody/nothing-of-this-name" in err and "downloads nothing" in err


def test_without_the_extra_it_says_what_to_install(gridsweep, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda package: None if package == "torch" else object())
    code, _, err = gridsweep("doctor", "--train")
    assert code == 2 and "torch, which is not installed" in err and "gridsweep[train]" in err


def test_the_program_without_torch_says_so_too(tmp_path: Path) -> None:
    """As it is where the extra was never installed: a torch that cannot be imported."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv.pop());"
         "from gridsweep.train.probe import main; sys.exit(main([]))", str(tmp_path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "torch is missing; pip install 'gridsweep[train]'" in done.stderr


def test_a_program_that_breaks_is_an_executors_error(gridsweep, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "PROGRAM", (sys.executable, "-c", "raise RuntimeError('the driver is gone')"))
    code, _, err = gridsweep("doctor", "--train")
    assert code == 5 and "the driver is gone" in err


def test_a_footprint_counts_what_there_is() -> None:
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    found = of_model(model, ("q_proj", "down_proj"))
    assert len(found.shapes) == 4 and found.base == 4 * sum(p.numel() for p in model.parameters())
    assert found.parameters(4) == 2 * 4 * (32 + 32 + 64 + 32)
    assert found.adapter(4) == 5 * 4 * found.parameters(4)  # weights, gradient, two moments, average


def test_what_fits_is_what_is_left_beside_the_base() -> None:
    config = SimpleNamespace(
        hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=2, vocab_size=100
    )
    some = Footprint(1000, 4, {"model.layers.0.q_proj": (8, 8)}, config)
    need = some.adapter(2) + some.in_a_pass([2], 10)
    assert some.at_once((1000 + 3 * need + 1) / 0.9, 2, 10) == 3
    assert some.at_once(900, 2, 10) == some.resident(900, 2, 10) == 0
    memory = (1000 + some.in_a_pass([2], 10) + 5 * some.adapter(2) + 1) / 0.9
    assert some.resident(memory, 2, 10) == 5
    assert 9 <= some.tokens(memory, [2] * 5, 1, 2) <= 10


def test_a_group_too_large_is_tried_smaller(monkeypatch) -> None:
    """Out of memory while the stacks are made leaves the base as it was."""
    made = []

    class Small(roster.Stack):
        def __init__(self, r, shapes, rows, *others):
            made.append(len(rows))
            if len(rows) > 2:
                raise torch.OutOfMemoryError("no room")
            super().__init__(r, shapes, rows, *others)

    monkeypatch.setattr(roster, "Stack", Small)
    _, base = load_base(Model("tiny-qwen2"), torch.device("cpu"), torch.float32)
    params = (LoraParams(4, 8, 1e-4, 0.0),) * 5
    subject = Subject(Model("tiny-qwen2"), Dataset("stdlib"), Recipe(), params)
    group = probing._group(base, subject, [Sample((5, 6, 7, 8), 1)] * 8)
    assert made == [5, 2] and len(group.members) == 2
    group.close()


def test_where_memory_limits_a_pass_each_size_is_measured_with_its_tokens() -> None:
    _, base = load_base(Model("tiny-qwen2"), torch.device("cpu"), torch.float32)
    params = (LoraParams(4, 8, 1e-4, 0.1),) * 4
    samples = [Sample(tuple(range(5, 17)), 4)] * 8
    subject = Subject(Model("tiny-qwen2"), Dataset("stdlib"), Recipe(), params)
    group = probing._group(base, subject, samples)
    found = probing._measured(group, {1: None, 4: 24}, 1.0)
    assert {choice.members for choice in found} == {1, 4}
    choice = next(choice for choice in found if choice.members == 4)
    told = probing._weighed(group, choice, 24, None, 0.0)
    assert told["tokens_in_a_pass"] == 24 and told["joules_per_token"] is None
    assert probing._weighed(group, choice, None, None, 0.0)["foreseen_bytes"] > told["foreseen_bytes"]
    group.close()
