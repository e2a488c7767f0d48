"""Who trains beside a member, in what portions, and what happens to the others is nothing to it: bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lean_alone import Alone
from lean_builders import MEMBERS, RECIPE, SAMPLES, TOTAL, group, nothing, part, small_base
from plain_peft import Training

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Recipe
from gridsweep.train.lean.group import Group, Plan

pytestmark = pytest.mark.train
QUICK = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


def steps(some: Group, first: int, last: int) -> list[dict[str, float]]:
    return [some.step(step, nothing) for step in range(first, last)]


def only(losses: list[dict[str, float]], names: list[str]) -> list[list[float]]:
    return [[at[name] for name in names] for at in losses]


@QUICK
@given(st.permutations(MEMBERS), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_company_order_and_portions_change_nothing(members: list, count: int, portion: int, remember: bool) -> None:
    whole = only(steps(group(), 0, 4), [p.experiment for p in members[:count]])
    some = group(list(members[:count]), plan=Plan(portion, remember=remember))
    assert only(steps(some, 0, 4), [p.experiment for p in members[:count]]) == whole


@QUICK
@given(st.integers(1, 6))
def test_portions_are_even_and_as_few_as_may_be(size: int) -> None:
    portions = group().roster.portions(size)
    counts = [len(names) for names in portions]
    assert [name for names in portions for name in names] == group().members
    assert len(counts) == -(-4 // size) and max(counts) <= size and max(counts) - min(counts) <= 1


@QUICK
@given(st.sets(st.sampled_from("abcd"), min_size=1, max_size=3), st.integers(1, 6))
def test_who_leaves_changes_nothing_for_who_stays(leaving: set[str], when: int) -> None:
    staying = [name for name in "abcd" if name not in leaving]
    all_of_them, fewer = group(), group()
    steps(all_of_them, 0, when), steps(fewer, 0, when)
    fewer.drop(leaving)
    assert sorted(fewer.members) == staying
    assert only(steps(fewer, when, when + 4), staying) == only(steps(all_of_them, when, when + 4), staying)
    for averaged in (False, True):
        here, there = (some.evaluate(SAMPLES, nothing, averaged) for some in (fewer, all_of_them))
        assert all(torch.equal(here[name].sums, there[name].sums) for name in staying)


def test_a_member_that_diverges_is_dropped_and_the_others_do_not_notice() -> None:
    wild = part("w", 8, 16, float("inf"), 0.1)
    others, with_wild = group(), group([*MEMBERS, wild], plan=Plan(8))
    losses = steps(with_wild, 0, 8)
    assert only(losses, list("abcd")) == only(steps(others, 0, 8), list("abcd"))
    assert losses[1]["w"] != losses[1]["w"]
    assert "w" not in losses[2]
    assert with_wild.diverged == {"w": "the training loss is nan at step 2"}
    assert sorted(with_wild.members) == list("abcd")


def test_stopped_at_fifty_random_steps_and_taken_up_from_files(tmp_path: Path) -> None:
    """In other company, other portions and another order each time."""
    total, chance = 60, random.Random(0)
    recipe, base = replace(RECIPE, accumulation=1), small_base()
    members = MEMBERS[:3]
    whole = group(members, recipe, total)
    expected = only(steps(whole, 0, total), list("abc"))
    stops = sorted(chance.sample(range(1, total), 50))
    losses = []
    for number, (first, last) in enumerate(zip([0, *stops], [*stops, total], strict=True)):
        some = group(chance.sample(members, 3), recipe, total, base=base, plan=Plan(chance.randint(1, 3)))
        for name in "abc":
            if first:
                some.load(name, tmp_path / f"{number - 1}{name}")
        losses += only(steps(some, first, last), list("abc"))
        for name in "abc":
            folder = tmp_path / f"{number}{name}"
            folder.mkdir()
            some.save(name, folder)
        some.close()
    assert losses == expected
    assert some.histories == whole.histories
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "average.safetensors", "history.json",
        "optimizer.safetensors",
    ]  # fmt: skip


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", range(4))
def test_a_step_that_is_interrupted_has_not_happened(at: int) -> None:
    calls = iter(range(10))

    def after_some() -> None:
        if next(calls) == at:
            raise Interrupted

    plan = Plan(2, tokens=40)
    some, other = group(plan=plan), group(plan=replace(plan))
    some.step(0, nothing), other.step(0, nothing)
    with pytest.raises(Interrupted):
        some.step(1, after_some)
    assert steps(some, 1, 3) == steps(other, 1, 3)


def test_adapters_that_wait_elsewhere_train_the_same() -> None:
    waiting = group(home=torch.device("cpu"), plan=Plan(2))
    assert steps(waiting, 0, 5) == steps(group(), 0, 5)


def test_out_of_memory_makes_the_portions_smaller_and_loses_nothing() -> None:
    passes = []

    def small_memory(members: int, tokens: int) -> None:
        passes.append((members, tokens))
        if members > 1 and len(passes) > 5:
            raise torch.OutOfMemoryError("no room")

    tight = group(before_pass=small_memory)
    assert steps(tight, 0, 10) == steps(group(), 0, 10)
    assert tight.plan.members == 1
    assert max(passes[-4:])[0] == 1


def test_one_member_that_does_not_fit_trains_on_fewer_tokens() -> None:
    def smaller_memory(members: int, tokens: int) -> None:
        if members * tokens > 45:
            raise torch.OutOfMemoryError("no room")

    tight, roomy = steps(group(before_pass=smaller_memory), 0, 6), steps(group(), 0, 6)
    assert only(tight, list("abcd")) == [pytest.approx(losses, abs=1e-5) for losses in only(roomy, list("abcd"))]
    with pytest.raises(torch.OutOfMemoryError):
        group(before_pass=lambda members, tokens: smaller_memory(9, 9)).step(0, nothing)


@QUICK
@given(st.integers(1, 120))
def test_micro_batches_change_nothing_but_the_rounding(tokens: int) -> None:
    parts = steps(group(plan=Plan(4, tokens)), 0, 4)
    assert only(parts, list("abcd")) == [pytest.approx(x, abs=1e-5) for x in only(steps(group(), 0, 4), list("abcd"))]


def test_the_base_alone_is_every_member_before_its_first_step() -> None:
    some = group()
    base = some.evaluate_base(SAMPLES, nothing)
    for averaged in (False, True):
        scores = some.evaluate(SAMPLES, nothing, averaged)
        assert all(torch.equal(base.sums, scores[name].sums) for name in "abcd")


def test_the_average_is_over_a_window_that_grows_and_starts_without_bias() -> None:
    some = group(total=30)  # over a sixth of the steps made, 2.4 at most
    some.step(0, nothing)
    here, averaged = (some.evaluate(SAMPLES, nothing, flag)["a"].mean for flag in (False, True))
    assert averaged == here
    means = some.weights("a")
    for step in range(1, 20):
        some.step(step, nothing)
        share = 1 / max(1.0, min(2.4, (step + 1) / 6))
        now = some.weights("a")
        means = {name: (1 - share) * mean + share * now[name] for name, mean in means.items()}
    assert not torch.allclose(means[next(iter(means))], now[next(iter(means))])
    for name, mean in means.items():
        assert torch.allclose(some.weights("a", averaged=True)[name], mean, atol=1e-6)


def test_the_base_is_given_back_as_it_was() -> None:
    base = small_base()
    before = [(name, type(module)) for name, module in base.named_modules()]
    ids = torch.arange(2, 20)[None]
    logits = base(input_ids=ids).logits
    some = group(base=base)
    some.step(0, nothing)
    some.close()
    assert [(name, type(module)) for name, module in base.named_modules()] == before
    assert torch.equal(base(input_ids=ids).logits, logits)


def test_plain_peft_goes_on_from_a_members_files(tmp_path: Path) -> None:
    some = group(MEMBERS[2:3])
    steps(some, 0, 5)
    some.save("c", tmp_path)
    alone: Training = Alone(small_base(), MEMBERS[2], RECIPE, TOTAL, SAMPLES)
    alone.load(tmp_path)
    assert [alone.step(n, nothing) for n in range(5, 8)] == pytest.approx([s["c"] for s in steps(some, 5, 8)], abs=5e-6)


def test_attention_over_a_window_that_samples_outgrow() -> None:
    """Windows of 14 tokens: only samples that are longer have other losses than without a window."""

    base = small_base()
    for layer in base.model.layers:
        layer.self_attn.sliding_window = 14
    ours = group(base=base).evaluate(SAMPLES, nothing)["a"].sums
    whole = group().evaluate(SAMPLES, nothing)["a"].sums
    long = torch.tensor([len(sample.ids) > 15 for sample in SAMPLES])
    assert torch.equal(ours[~long], whole[~long])  # a last token of 15 predicts nothing
    assert (ours[long] - whole[long]).abs().min() > 1e-3


class TestErrors:
    def test_modules_the_model_lacks_are_named(self) -> None:
        recipe = Recipe(target_modules=("q_proj", "c_attn"))
        with pytest.raises(SpecError, match=r"no modules named c_attn .* some of down_proj, gate_proj, k_proj, o_proj"):
            group(recipe=recipe)

    def test_the_head_cannot_be_adapted(self) -> None:
        with pytest.raises(SpecError, match="no modules named lm_head"):
            group(recipe=Recipe(target_modules=("lm_head",)))

    def test_a_rank_above_a_layers_width(self) -> None:
        with pytest.raises(SpecError, match=r"x has rank 17, but model\.layers\.0\.self_attn\.k_proj .* at most 16"):
            group([part("x", 17, 8, 1e-3, 0.0)])

    def test_a_checkpoint_of_another_rank_or_recipe(self, tmp_path: Path) -> None:
        group().save("a", tmp_path)
        with pytest.raises(SpecError, match="is of another training: r 4 instead of 5"):
            group([replace(MEMBERS[0], params=replace(MEMBERS[0].params, r=5))]).load("a", tmp_path)
        with pytest.raises(SpecError, match=r"recipe\.clip 1\.0 instead of 0\.5"):
            group(recipe=replace(RECIPE, clip=0.5)).load("a", tmp_path)
        for name in ("history.json", "average.safetensors"):
            (tmp_path / name).unlink()
            with pytest.raises(SpecError, match=f"cannot be read: .*{name}"):
                group().load("a", tmp_path)

    def test_a_damaged_checkpoint(self, tmp_path: Path) -> None:
        group().save("a", tmp_path)
        (tmp_path / "optimizer.safetensors").write_bytes(b"no tensors")
        with pytest.raises(SpecError, match="cannot be read"):
            group().load("a", tmp_path)

    def test_a_model_that_does_something_else_to_its_logits(self) -> None:
        base = small_base()
        base.lm_head.register_forward_hook(lambda module, inputs, logits: 5 * (logits / 5).tanh())
        with pytest.raises(SpecError, match="Qwen2ForCausalLM cannot be trained lean: its losses come out otherwise"):
            group(base=base)
        assert base.config._attn_implementation == "sdpa"

    def test_who_is_not_there_cannot_leave(self) -> None:
        with pytest.raises(SpecError, match="z is not in this group of a, b, d, c"):
            group().drop(["z"])
