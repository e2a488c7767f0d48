"""The pieces by themselves: gradients, masks, the packed row, the optimizer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lean_builders import SAMPLES, small_base
from torch import Tensor
from torch.nn import functional as F

from gridsweep.train.lean.attention import Select, Spread
from gridsweep.train.lean.layers import RmsNorm, SwiGlu, lean_instead
from gridsweep.train.lean.linear import Block, Pass, lora_product
from gridsweep.train.lean.loss import FEWEST_ROWS, TokenLosses, rows_at_once
from gridsweep.train.lean.masks import keep_bits, limits, masked, token_keys
from gridsweep.train.lean.packing import PADDED, pack, runs
from gridsweep.train.lean.stack import Stack
from gridsweep.train.samples import Sample

pytestmark = pytest.mark.train
CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0, grad: bool = True) -> Tensor:
    numbers = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return numbers.requires_grad_(grad)


class TestGradients:
    @pytest.mark.parametrize("remember", [True, False])
    @pytest.mark.parametrize("dropout", [0.0, 0.4])
    def test_of_the_product(self, remember: bool, dropout: float) -> None:
        """Two ranks at once, in double; those of A and B, which autograd is not told of, against plain autograd's."""
        members, tokens, width, out = 3, 4, 6, 5
        limit = limits([dropout] * members, CPU)
        keys = torch.stack([token_keys(seed, 0, torch.arange(tokens)) for seed in range(members)])

        def bits(module: str, width: int, rows: slice) -> Tensor:
            return keep_bits(keys[rows], module, width, limit[rows])

        spans, ranks = [slice(0, 1), slice(1, 3)], [1, 2]
        weights = [
            (drawn(s.stop - s.start, r, width), drawn(s.stop - s.start, r, out))
            for s, r in zip(spans, ranks, strict=True)
        ]
        grads = [tuple(torch.zeros_like(w) for w in pair) for pair in weights]
        scales = [drawn(s.stop - s.start, 1, 1, grad=False) for s in spans]
        blocks = [
            Block(s, scale, {"m": tuple(w.detach() for w in pair)}, {"m": slopes}, dropout > 0)
            for s, scale, pair, slopes in zip(spans, scales, weights, grads, strict=True)
        ]
        now = Pass(members, blocks, bits if dropout else None, remember)
        x, weight, bias = drawn(members, tokens, width), drawn(out, width, grad=False), drawn(out, grad=False)

        def plain(x: Tensor) -> Tensor:
            there = F.linear(x, weight, bias)
            parts = []
            for s, scale, (a, b) in zip(spans, scales, weights, strict=True):
                inner = x[s] * -bits("m", width, s).double() if dropout else x[s]
                parts.append(there[s] + scale * inner @ a.mT @ b)
            return torch.cat(parts)

        assert torch.autograd.gradcheck(
            lambda x: lora_product(x, SimpleNamespace(weight=weight, bias=bias), "m", now), (x,)
        )
        for pair in grads:
            for slope in pair:
                slope.zero_()
        outward = drawn(members, tokens, out, seed=9, grad=False)
        ours = lora_product(x, SimpleNamespace(weight=weight, bias=bias), "m", now)
        theirs = plain(x)
        assert torch.allclose(ours, theirs)
        ours.backward(outward)
        leaves = [w for pair in weights for w in pair]
        wanted = torch.autograd.grad(theirs, [x, *leaves], outward)
        for got, want in zip([x.grad, *(slope for pair in grads for slope in pair)], wanted, strict=True):
            assert torch.allclose(got, want)

    def test_of_the_losses(self) -> None:
        targets = torch.tensor([1, 3, 0, 2, 1])
        hidden, head = drawn(2, 5, 4), drawn(7, 4, grad=False)
        assert torch.autograd.gradcheck(lambda h: TokenLosses.apply(h, head, targets), (hidden,))
        plain = F.cross_entropy((hidden @ head.T).flatten(0, 1), targets.repeat(2), reduction="none").view(2, 5)
        assert torch.allclose(TokenLosses.apply(hidden, head, targets), plain)

    def test_company_decides_about_the_logits_at_once_on_a_gpu_alone(self) -> None:
        assert rows_at_once(1, 2048, "cpu") == rows_at_once(9, 2048, "cpu") == 128
        assert rows_at_once(1, 152_064, "cuda") == 110 and rows_at_once(4, 152_064, "cuda") == 27
        assert rows_at_once(99, 152_064, "cuda") == rows_at_once(1, 152_064, "cpu") == FEWEST_ROWS

    def test_of_norm_and_activation(self) -> None:
        weight = drawn(6, grad=False)
        assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, weight, 1e-6), (drawn(2, 3, 6),))
        assert torch.autograd.gradcheck(SwiGlu.apply, (drawn(2, 6), drawn(2, 6, seed=1)))

    def test_of_picking_and_spreading_rows(self) -> None:
        places = torch.tensor([4, 0, 2])
        assert torch.autograd.gradcheck(lambda x: Select.apply(x, places), (drawn(2, 5, 3),))
        assert torch.autograd.gradcheck(lambda x: Spread.apply(x, places, 6), (drawn(2, 3, 3),))


class TestMasks:
    @settings(max_examples=25, deadline=None)
    @given(st.floats(0, 0.9), st.integers(0, 2**40), st.integers(0, 10**6))
    def test_as_much_is_dropped_as_was_asked_for(self, p: float, seed: int, step: int) -> None:
        keep = self.kept(p, seed, step, torch.arange(300), 256)
        assert keep.mean().item() == pytest.approx(1 - p, abs=0.01)
        assert p or keep.all()

    def test_neighbours_in_every_direction_are_independent(self) -> None:
        """Tokens, columns, steps, seeds and modules, and the corners of rectangles: correlations within chance."""
        one = self.kept(0.5, 1, 1, torch.arange(512), 512) - 0.5
        others = {
            "token": (one[1:], one[:-1]),
            "column": (one[:, 1:], one[:, :-1]),
            "step": (one, self.kept(0.5, 1, 2, torch.arange(512), 512) - 0.5),
            "seed": (one, self.kept(0.5, 2, 1, torch.arange(512), 512) - 0.5),
            "module": (one, self.kept(0.5, 1, 1, torch.arange(512), 512, "other") - 0.5),
            "corners": (one[1:, 1:] * one[:-1, :-1] * 4, one[1:, :-1] * one[:-1, 1:]),
        }
        for name, (left, right) in others.items():
            assert abs((left * right).mean().item()) * 4 < 5 / 512, name  # five standard deviations

    def test_a_mask_is_a_function_of_the_tokens_place(self) -> None:
        whole = self.kept(0.3, 5, 7, torch.arange(100), 64)
        assert torch.equal(self.kept(0.3, 5, 7, torch.arange(40, 60), 64), whole[40:60])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_what_is_dropped_is_nought_even_where_it_was_no_number(self, dtype: torch.dtype) -> None:
        bits = keep_bits(token_keys(0, 0, torch.arange(8))[None], "m", 16, limits([0.5], CPU))
        out = masked(torch.full((1, 8, 16), float("nan"), dtype=dtype), bits)
        assert torch.equal(out.isnan(), bits.ne(0))
        assert torch.equal(out == 0, bits.eq(0))

    @staticmethod
    def kept(p: float, seed: int, step: int, positions: Tensor, width: int, module: str = "m") -> Tensor:
        bits = keep_bits(token_keys(seed, step, positions)[None], module, width, limits([p], CPU))
        assert set(bits.unique().tolist()) <= {-1, 0}
        return -bits[0].float()


class TestPacking:
    def test_the_positions_that_predict_a_counted_token(self) -> None:
        packed = pack(SAMPLES[:5], CPU)
        ids = packed.ids[0]
        at = 0
        for number, sample in enumerate(SAMPLES[:5]):
            own = packed.owner == number
            assert packed.targets[own].tolist() == list(sample.ids[sample.prompt :])
            assert (packed.predicting[own] - at).tolist() == list(range(sample.prompt - 1, len(sample.ids) - 1))
            assert ids[at : at + len(sample.ids)].tolist() == list(sample.ids)
            at += len(sample.ids)

    @given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    def test_samples_that_attention_pads_are_alike_and_all_are_there(self, lengths: list[int]) -> None:
        alike = pack([Sample((5,) * (n + 1), 0) for n in lengths], CPU).alike
        assert sum(some.samples for some in alike) == len(lengths)
        assert sum(some.tokens for some in alike) == sum(lengths) + len(lengths)
        for some in alike:
            assert some.tokens <= some.samples * some.longest <= PADDED * some.tokens
            assert (some.places is None) == (some.tokens == some.samples * some.longest)

    @given(st.integers(1, 200))
    def test_runs_hold_all_in_order_and_no_more_than_allowed(self, tokens: int) -> None:
        parts = runs(SAMPLES, tokens)
        assert [sample for run in parts for sample in run] == SAMPLES
        assert all(len(run) == 1 or sum(len(s.ids) for s in run) <= tokens for run in parts)


def test_only_a_layer_that_computes_the_same_is_replaced() -> None:
    base = small_base()
    norm = base.model.layers[0].input_layernorm
    assert lean_instead(norm) is not None
    assert lean_instead(base.model.layers[0].mlp) is not None
    assert lean_instead(base.model.layers[0].self_attn) is None

    class OtherRMSNorm(type(norm)):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1.01

    other = OtherRMSNorm(32)
    assert lean_instead(other) is None


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.floats(1e-5, 1e-1), min_size=3, max_size=3), st.lists(st.floats(0, 0.5), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.0, 0.1, 100.0]), min_size=3, max_size=3), st.integers(0, 99),
)  # fmt: skip
def test_the_optimizer_is_torchs_adamw_for_each_member(
    rates: list[float], decays: list[float], clips: list[float], seed: int
) -> None:
    """LoRA+ as two parameter groups; the gradient of one member is huge, which the others do not notice."""
    chance = torch.Generator().manual_seed(seed)
    shapes, ratios = {"m": (6, 4)}, [1.0, 3.0, 1.0]
    rows = [torch.randn(20, generator=chance) for _ in range(3)]
    stack = Stack(2, shapes, rows, [1.0] * 3, CPU)
    alone = []
    for row, rate, ratio, decay in zip(rows, rates, ratios, decays, strict=True):
        a, b = row[:12].clone().requires_grad_(), row[12:].clone().requires_grad_()
        groups = [{"params": [a], "lr": rate}, {"params": [b], "lr": rate * ratio}]
        alone.append(((a, b), torch.optim.AdamW(groups, weight_decay=decay)))
    for _ in range(5):
        stack.grads.copy_(torch.randn(3, 20, generator=chance))
        stack.grads[2] *= 1e6
        for row, ((a, b), optimizer), clip in zip(stack.grads.clone(), alone, clips, strict=True):
            a.grad, b.grad = row[:12], row[12:]
            if clip:
                torch.nn.utils.clip_grad_norm_([a, b], clip)
            optimizer.step()
        stack.step(rates, ratios, decays, clips, 0.9)
    for row, ((a, b), _) in zip(stack.weights, alone, strict=True):
        assert torch.allclose(row, torch.cat([a, b]), rtol=1e-5, atol=1e-6)
