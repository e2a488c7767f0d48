"""Together is alone: every member of a group goes through the losses that plain PEFT gives it by itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lean_alone import Alone
from lean_builders import MEMBERS, MODEL, RECIPE, SAMPLES, TOTAL, group, nothing, part, small_base
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from plain_peft import add_lora

from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import Model, Recipe
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.variants import Variant
from gridsweep.train.model import load_base
from gridsweep.train.samples import Sample

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


TINY = Model("tiny-qwen2")


def apart(one: dict[str, float], other: dict[str, float]) -> float:
    return max(abs(one[name] - other[name]) for name in one)


@pytest.mark.parametrize(("kind", "remember"), [("qwen2", True), ("llama", False)])
def test_members_of_all_sorts_train_as_alone(kind: str, remember: bool) -> None:
    """Ranks, alpha, learning rate, dropout, rsLoRA, LoRA+, accumulation; 40 steps; packed against padded."""
    variants = {"c": Variant(rslora=True), "d": Variant(b_ratio=4.0)}
    together = group(base=small_base(kind), variants=variants, plan=Plan(4, remember=remember))
    alone = {}
    for p in MEMBERS:
        variant = variants.get(p.experiment, Variant())
        alone[p.experiment] = Alone(
            small_base(kind), p, RECIPE, TOTAL, SAMPLES, rslora=variant.rslora, b_ratio=variant.b_ratio
        )
    for step in range(TOTAL):
        losses = together.step(step, nothing)
        assert apart(losses, {name: one.step(step, nothing) for name, one in alone.items()}) <= 5e-6, step
    scores = together.evaluate(SAMPLES, nothing)
    for name, one in alone.items():
        assert scores[name].mean == pytest.approx(one.evaluate(SAMPLES, TOTAL, nothing), abs=5e-6)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_members_with_recipes_of_their_own_train_as_alone(kind: str) -> None:
    """Schedule, warm-up, decay, clipping, rsLoRA and LoRA+ of each member, in one pack; 40 steps."""
    recipes = {
        "a": replace(RECIPE, learning_rate_schedule="constant", warmup=0.3),
        "b": replace(RECIPE, learning_rate_schedule="linear", weight_decay=0.4, rslora=True),
        "c": replace(RECIPE, clip=0.05, lora_plus=8.0),
    }
    members = [replace(p, recipe=recipes.get(p.experiment)) for p in MEMBERS]
    own = {p.experiment: recipes.get(p.experiment, RECIPE) for p in MEMBERS}
    variants = {name: Variant(recipe.rslora, recipe.lora_plus) for name, recipe in own.items()}
    together = group(members, base=small_base(kind), variants=variants)
    alone = {
        p.experiment: Alone(
            small_base(kind), p, own[p.experiment], TOTAL, SAMPLES,
            rslora=own[p.experiment].rslora, b_ratio=own[p.experiment].lora_plus,
        )
        for p in MEMBERS
    }  # fmt: skip
    for step in range(TOTAL):
        losses = together.step(step, nothing)
        assert apart(losses, {name: one.step(step, nothing) for name, one in alone.items()}) <= 5e-6, step


@pytest.mark.slow
def test_the_bundled_model_trains_as_alone() -> None:
    recipe = replace(RECIPE, batch_size=4)
    samples = [Sample(tuple(i * 15 for i in s.ids), s.prompt) for s in SAMPLES]
    bases = [load_base(TINY, torch.device("cpu"), torch.float32)[1] for _ in range(3)]
    together = Group(bases[0], MEMBERS[:2], recipe, 10, samples, TINY)
    alone = {p.experiment: Alone(b, p, recipe, 10, samples) for p, b in zip(MEMBERS[:2], bases[1:], strict=True)}
    for step in range(10):
        assert apart(together.step(step, nothing), {n: one.step(step, nothing) for n, one in alone.items()}) <= 5e-6


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    r=st.sampled_from([1, 2, 3, 7, 8, 16]),
    seed=st.integers(0, 2**31),
    targets=st.sets(st.sampled_from(RECIPE.target_modules), min_size=1),
    upper=st.booleans(),
)
def test_an_adapter_starts_as_peft_draws_it(r: int, seed: int, targets: set[str], upper: bool) -> None:
    recipe = replace(RECIPE, target_modules=tuple(targets))
    layers = "upper-half" if upper else "all"
    ours = group([part("x", r, 8, 1e-3, 0.0, seed)], recipe, layers=layers).weights("x")
    config = LoraConfig(r=r, target_modules=list(targets), layers_to_transform=[2, 3] if upper else None)
    base = small_base()
    torch.manual_seed(seed)  # as `add_lora` does
    theirs = get_peft_model_state_dict(get_peft_model(base, config), save_embedding_layers=False)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_seed_means_what_it_means_to_plain_peft() -> None:
    ours = group(MEMBERS[:1]).weights("a")
    lora = add_lora(small_base(), MODEL, MEMBERS[0].params, RECIPE, MEMBERS[0].seed)
    theirs = get_peft_model_state_dict(lora, save_embedding_layers=False)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_frozen_lower_half_is_run_once_and_changes_nothing(tmp_path: Path) -> None:
    """Adapters in the upper half only: as PEFT with layers_to_transform, read back by plain PEFT."""
    base = small_base()
    upper = group(base=base, layers="upper-half")
    rows = []
    hook = base.model.layers[1].register_forward_hook(lambda module, inputs, out: rows.append(out.shape[0]))
    for step in range(4):
        upper.step(step, nothing)
    hook.remove()
    assert set(rows) == {1}
    upper.save_adapter("a", tmp_path)
    lora = PeftModel.from_pretrained(small_base(), tmp_path)
    assert lora.peft_config["default"].layers_to_transform == [2, 3]
    assert not any("layers.1." in name and "lora" in name for name, _ in lora.named_parameters())
    assert losses_in(lora) == pytest.approx(upper.evaluate(SAMPLES, nothing)["a"].sums.tolist(), abs=1e-5)


@pytest.mark.parametrize("averaged", [False, True])
def test_an_exported_adapter_gives_the_same_logits_in_plain_peft(tmp_path: Path, averaged: bool) -> None:
    trained = group(variants={"c": Variant(rslora=True)})
    for step in range(6):
        trained.step(step, nothing)
    scores = trained.evaluate(SAMPLES, nothing, averaged)
    for name in trained.members:
        folder = tmp_path / name
        folder.mkdir()
        trained.save_adapter(name, folder, averaged)
        assert losses_in(PeftModel.from_pretrained(small_base(), folder)) == pytest.approx(
            scores[name].sums.tolist(), abs=2e-5
        )
    assert scores["a"].counts.tolist() == [s.counted for s in SAMPLES]


@torch.no_grad()
def losses_in(lora: PeftModel) -> list[float]:
    """The summed loss of every sample, each read alone: nothing packed, nothing padded."""
    sums = []
    for sample in SAMPLES:
        ids = torch.tensor([sample.ids])
        logs = lora.eval()(input_ids=ids).logits[0, :-1].log_softmax(-1)
        sums.append(-sum(logs[at - 1, sample.ids[at]].item() for at in range(sample.prompt, len(sample.ids))))
    return sums


def test_in_bfloat16_the_difference_is_the_noise_of_one_run() -> None:
    """Noise: a run alone against itself in other micro-batches. And none is further from the truth, float32."""
    members, steps = MEMBERS[1:3], 20
    dtype = torch.bfloat16

    def alone(p: Part, recipe: Recipe = RECIPE, dtype: torch.dtype = dtype) -> list[float]:
        base = small_base(dtype=torch.bfloat16).to(dtype)
        one = Alone(base, p, recipe, TOTAL, SAMPLES)
        return [one.step(step, nothing) for step in range(steps)]

    def apart(one: list[list[float]], other: list[list[float]]) -> float:
        both = zip(chain(*one), chain(*other), strict=True)
        return sum(abs(here - there) for here, there in both) / len(members) / steps

    together = group(members, base=small_base(dtype=dtype))
    losses = [together.step(step, nothing) for step in range(steps)]
    ours = [[at[p.experiment] for at in losses] for p in members]
    theirs = [alone(p) for p in members]
    noise = apart(theirs, [alone(p, replace(RECIPE, batch_size=1, accumulation=4)) for p in members])
    truth = [alone(p, dtype=torch.float32) for p in members]
    assert apart(ours, theirs) <= 1.5 * noise
    assert apart(ours, truth) <= 1.5 * apart(theirs, truth)
