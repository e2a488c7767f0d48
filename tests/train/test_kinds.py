"""Which trainer a model gets: what must show on a miniature, and what is refused in words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, Qwen2Config

from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import LoraParams, Model, Recipe
from gridsweep.train.architecture import empty
from gridsweep.train.exactness import difference
from gridsweep.train.kinds import Kind, engine_for, kind_of
from gridsweep.train.lean.attention import packed_attention, reading
from gridsweep.train.lean.base import LeanBase
from gridsweep.train.lean.group import Group
from gridsweep.train.lean.loss import Scaling, TokenLosses
from gridsweep.train.lean.packing import pack
from gridsweep.train.miniature import VOCABULARY, WINDOW, miniature, shrunk
from gridsweep.train.plain import PlainBase, padded
from gridsweep.train.samples import Sample

pytestmark = pytest.mark.train
EVERY = Recipe().target_modules
SHAPE = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
CPU = torch.device("cpu")


def lean(base: Any) -> LeanBase:
    return LeanBase(base, EVERY)


class TestMiniatures:
    def test_ratios_of_heads_windows_and_patterns_stay(self) -> None:
        """Qwen2.5-7B's 28 heads in 4 groups; Gemma 3's five windows to one full layer, of 62."""
        qwen = shrunk(
            Qwen2Config(hidden_size=3584, num_attention_heads=28, num_key_value_heads=4, num_hidden_layers=28)
        )
        assert (qwen.num_attention_heads, qwen.num_key_value_heads, qwen.hidden_size) == (14, 2, 14 * 32)
        assert (qwen.num_hidden_layers, qwen.vocab_size) == (2, VOCABULARY)
        gemma = AutoConfig.for_model(
            "gemma3_text", hidden_size=5376, num_attention_heads=32, num_key_value_heads=16, num_hidden_layers=62
        )
        small = shrunk(gemma)
        assert small.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
        assert (small.num_attention_heads, small.num_key_value_heads, small.sliding_window) == (4, 2, WINDOW)
        assert len(gemma.layer_types) == 62

    def test_a_miniature_is_small_and_always_the_same(self) -> None:
        config = AutoConfig.for_model("llama", hidden_size=8192, num_attention_heads=64, num_key_value_heads=8)
        one, two = miniature(config), miniature(config)
        assert sum(p.numel() for p in one.parameters()) < 2_000_000
        assert all(torch.equal(here, there) for here, there in zip(one.parameters(), two.parameters(), strict=True))

    def test_random_numbers_of_the_process_do_not_move(self) -> None:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        miniature(Qwen2Config(**SHAPE))
        assert torch.equal(before, torch.get_rng_state())


class TestDifferences:
    """What a careless engine would leave out is found, each by itself."""

    def test_none_in_a_model_that_fits(self) -> None:
        assert difference(miniature(Qwen2Config(**SHAPE)), lean) is None

    def test_a_softcap_on_the_logits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = AutoConfig.for_model("gemma2", **SHAPE, head_dim=16)
        assert difference(miniature(config), lean) is None
        monkeypatch.setattr("gridsweep.train.lean.base.scaling_of", lambda base: Scaling())
        assert "come out otherwise" in str(difference(miniature(config), lean))

    @pytest.mark.parametrize("ignored", ["sliding_window", "softcap", "s_aux"])
    def test_an_argument_of_the_attention_that_is_ignored(self, ignored: str, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds = {
            "sliding_window": ("mistral", {"sliding_window": 4096}), "softcap": ("gemma2", {"head_dim": 16}),
            "s_aux": ("gpt_oss", {"head_dim": 16, "num_local_experts": 4}),
        }  # fmt: skip
        model_type, more = kinds[ignored]
        targets = EVERY[:4]
        base = miniature(AutoConfig.for_model(model_type, **SHAPE, **more))
        assert difference(base, lambda base: LeanBase(base, targets)) is None

        def careless(*given: Any, **named: Any) -> Any:
            return packed_attention(*given, **{name: v for name, v in named.items() if name != ignored})

        from transformers import AttentionInterface

        monkeypatch.setattr("gridsweep.train.lean.base.NAME", "careless")
        AttentionInterface.register("careless", careless)
        assert "come out otherwise" in str(difference(base, lambda base: LeanBase(base, targets)))

    def test_samples_that_see_each_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An engine that packs without keeping samples apart, over a model whose plain losses do not tell."""

        class Leaking(PlainBase):
            def losses(self, now: Any, packed: Any) -> Any:
                return super().losses(now, packed) + packed.ids[0, 0] * 1e-6

        base = miniature(Qwen2Config(**SHAPE))
        assert "see each other" in str(difference(base, lambda base: Leaking(base, EVERY)))

    def test_a_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Half(PlainBase):
            def losses(self, now: Any, packed: Any) -> Any:
                whole = super().losses(now, packed)
                return whole.detach() + (whole - whole.detach()) / 2

        assert "the gradient of model.layers.0" in str(
            difference(miniature(Qwen2Config(**SHAPE)), lambda base: Half(base, EVERY))
        )

    def test_the_model_is_as_before_after_a_look(self) -> None:
        base = miniature(Qwen2Config(**SHAPE))
        before = {name: p.clone() for name, p in base.named_parameters()}
        difference(base, lean)
        after = dict(base.named_parameters())
        assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
        assert not any(p.requires_grad or p.grad is not None for p in after.values())


class TestAttention:
    @pytest.mark.parametrize("strange", [{"alibi": torch.ones(1)}, {"dropout": 0.1}, {"is_causal": False}])
    def test_arguments_that_are_not_understood_are_refused(self, strange: dict[str, Any]) -> None:
        q = torch.ones(1, 2, 4, 8)
        with reading(pack([Sample((2, 3, 4, 5), 1)], CPU)), pytest.raises(SpecError, match=next(iter(strange))):
            packed_attention(nn.Identity(), q, q, q, None, **strange)

    @pytest.mark.parametrize("window", [1, 3, 9])
    @pytest.mark.parametrize("softcap", [None, 2.0])
    def test_windows_and_softcaps_by_the_definition(self, window: int, softcap: float | None) -> None:
        """Two samples of seven and six tokens; each query by hand."""
        lengths, heads, groups, width = (7, 6), 4, 2, 8
        chance = torch.Generator().manual_seed(1)
        q = torch.randn(1, heads, sum(lengths), width, generator=chance, dtype=torch.float64)
        k, v = torch.randn(2, 1, groups, sum(lengths), width, generator=chance, dtype=torch.float64)
        samples = [Sample(tuple(range(2, 2 + n)), 1) for n in lengths]
        with reading(pack(samples, CPU)):
            ours, _ = packed_attention(nn.Identity(), q, k, v, None, 0.3, sliding_window=window, softcap=softcap)
        start = 0
        for length in lengths:
            for at in range(start, start + length):
                seen = slice(max(start, at + 1 - window), at + 1)
                for head in range(heads):
                    scores = k[0, head // 2, seen] @ q[0, head, at] * 0.3
                    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
                    assert torch.allclose(ours[0, at, head], scores.softmax(0) @ v[0, head // 2, seen])
            start += length


def test_the_gradient_of_scaled_and_capped_logits() -> None:
    chance = torch.Generator().manual_seed(2)
    hidden = torch.randn(2, 5, 4, generator=chance, dtype=torch.float64, requires_grad=True)
    head, bias = torch.randn(7, 4, generator=chance, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    targets, scaling = torch.tensor([1, 3, 0, 2, 1]), Scaling(bias, 0.5, 1.5)
    assert torch.autograd.gradcheck(lambda h: TokenLosses.apply(h, head, targets, scaling), (hidden,))


def test_padded_batches_hold_the_row() -> None:
    samples = [Sample(tuple(range(2, 2 + n)), 1) for n in (3, 5, 2)]
    packed = pack(samples, CPU)
    (whole,) = padded(packed, True)
    assert whole.ids.tolist() == [[2, 3, 4, 0, 0], [2, 3, 4, 5, 6], [2, 3, 0, 0, 0]]
    assert whole.mask is not None and whole.mask.sum(1).tolist() == [3, 5, 2]
    assert whole.predicting.tolist() == [0, 1, 5, 6, 7, 8, 10]
    singles = padded(packed, False)
    assert [one.ids.tolist() for one in singles] == [[list(s.ids)] for s in samples]
    assert all(one.mask is None for one in singles)
    assert torch.cat([one.counted for one in singles]).tolist() == list(range(7))


class TestTargets:
    def test_missing_names_are_answered_with_those_there_are(self) -> None:
        config = AutoConfig.for_model("gpt2", vocab_size=128, n_embd=32, n_layer=2, n_head=2)
        with pytest.raises(SpecError) as caught:
            kind_of(config, EVERY)
        assert "set recipe.target_modules to some of c_attn, c_fc, c_proj, or to all-linear" in str(caught.value)

    def test_weights_that_peft_reads_as_the_experts_are_refused(self) -> None:
        config = AutoConfig.for_model(
            "deepseek_v3", **{**SHAPE, "num_key_value_heads": 4}, n_routed_experts=4, moe_intermediate_size=24,
            n_group=1, topk_group=1, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
            qk_nope_head_dim=8, v_head_dim=8,
        )  # fmt: skip
        with pytest.raises(SpecError, match="PEFT cannot adapt the modules named gate_proj"):
            kind_of(config, ("o_proj", "gate_proj"))

    def test_kernels_that_read_past_an_adapter(self) -> None:
        config = AutoConfig.for_model("mamba", vocab_size=128, hidden_size=32, num_hidden_layers=2)
        with pytest.raises(SpecError, match="PEFT cannot adapt the modules named out_proj"):
            kind_of(config, ("in_proj", "out_proj"))


def test_the_decision_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Qwen2Config(**SHAPE, rope_theta=12345.0)
    first = kind_of(config, EVERY)
    monkeypatch.setattr("gridsweep.train.miniature.miniature", lambda config: pytest.fail("made again"))
    assert kind_of(deepcopy(config), EVERY) is first


def test_weights_over_which_packed_losses_differ_are_trained_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    base = miniature(Qwen2Config(**SHAPE))
    whole = LeanBase.losses
    monkeypatch.setattr(LeanBase, "losses", lambda *given: whole(*given) + 0.05)
    kind, engine = engine_for(Kind("lean"), base, EVERY)
    assert kind.trainer == "plain" and "its losses come out otherwise" in kind.reason
    assert isinstance(engine, PlainBase)


@pytest.mark.parametrize("model_type", ["qwen2", "gemma2"])
def test_in_bfloat16_a_good_base_passes_and_a_changed_one_does_not(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measure is the model's own noise: 0.05 nats a token, were all losses off by so much, are too many here."""
    config = AutoConfig.for_model(model_type, **SHAPE, head_dim=16)
    torch.manual_seed(0)
    base = empty(config, torch.bfloat16).requires_grad_(False).eval()
    LeanBase(base, EVERY).close()
    whole = LeanBase.losses
    monkeypatch.setattr(LeanBase, "losses", lambda *given: whole(*given) + 0.05)
    with pytest.raises(SpecError, match="its losses come out otherwise"):
        LeanBase(base, EVERY)


def test_a_group_over_plain_weights_resumes_to_the_bit(tmp_path: Any) -> None:
    """Interrupted after three of six steps, with dropout, and two members or one."""
    recipe = Recipe(batch_size=2, accumulation=2)
    members = [Part(n, LoraParams(2, 4, 1e-2, 0.2), 5, 0, 6) for n in "xy"]
    samples = [Sample(tuple((5 * n * i + 3 * i) % 120 + 2 for i in range(6 + n)), 2) for n in range(8)]

    def fresh(some: list[Part]) -> Group:
        base = miniature(Qwen2Config(**SHAPE))
        return Group(base, some, recipe, 6, samples, Model("./x"), engine=PlainBase(base, EVERY))

    def run(group: Group, first: int, last: int) -> list[float]:
        return [group.step(step, lambda: None)["x"] for step in range(first, last)]

    through = run(fresh(members), 0, 6)
    stopped = fresh(members[:1])
    before = run(stopped, 0, 3)
    stopped.save("x", tmp_path)
    resumed = fresh(members[:1])
    resumed.load("x", tmp_path)
    assert before + run(resumed, 3, 6) == through
    assert resumed.plan.members == 1


def test_a_reason_is_told_for_what_is_not_lean() -> None:
    config = AutoConfig.for_model("lfm2", **SHAPE, layer_types=["conv", "full_attention"])
    kind = kind_of(config, ("all-linear",))
    assert kind.trainer == "plain"
    assert kind.told == f"plain PEFT, one experiment at a time ({kind.reason})"
