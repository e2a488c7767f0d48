"""A base in four bits: the same training as plain PEFT's over that base, in less memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lean_alone import Alone
from lean_builders import MEMBERS, RECIPE, SAMPLES, TOTAL, group, nothing, small_base
from saved_tensors import saved_bytes
from torch import nn

pytest.importorskip("bitsandbytes")

from gridsweep.errors import SpecError
from gridsweep.train.four_bit import FourBitLinear, in_four_bits
from gridsweep.train.lean.layers import LeanMlp

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
CPU = torch.device("cpu")


def restored(kind: str = "qwen2"):
    """A plain base with the weights that four bits restore."""
    packed, plain = in_four_bits(small_base(kind), CPU), small_base(kind)
    for name, module in plain.named_modules():
        other = packed.get_submodule(name)
        if isinstance(other, FourBitLinear):
            module.weight.data.copy_(other.weight)
    return plain


@pytest.mark.parametrize("targets", [RECIPE.target_modules, ("q_proj", "down_proj")])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_members_train_as_plain_peft_does_over_the_restored_base(kind: str, targets: tuple[str, ...]) -> None:
    recipe = replace(RECIPE, target_modules=targets)
    together = group(recipe=recipe, base=in_four_bits(small_base(kind), CPU))
    alone = {p.experiment: Alone(restored(kind), p, recipe, TOTAL, SAMPLES) for p in MEMBERS}
    for step in range(20):
        losses = together.step(step, nothing)
        for name, one in alone.items():
            assert losses[name] == pytest.approx(one.step(step, nothing), abs=5e-6), (step, name)


@pytest.mark.parametrize("shape", [(128, 96), (64, 64), (32, 100)])
def test_nf4_restores_to_a_sixth_of_a_blocks_largest_weight(shape: tuple[int, int]) -> None:
    """Rows that are no multiple of a block long, too: with those the library's CPU kernel is wrong by itself."""
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0])
    packed = FourBitLinear(linear, CPU, "m")
    off = (packed.weight - linear.weight).view(-1, 64).abs().amax(1)
    assert (off <= 0.16 * linear.weight.view(-1, 64).abs().amax(1)).all()
    x = torch.randn(3, shape[1], requires_grad=True)
    packed(x).square().sum().backward()
    mine, x.grad = x.grad, None
    nn.functional.linear(x, packed.weight, packed.bias).square().sum().backward()
    assert torch.allclose(mine, x.grad)


def test_a_weight_takes_four_and_a_half_bits_and_the_rest_stays() -> None:
    base, packed = small_base(), in_four_bits(small_base(), CPU)
    linears = [m for n, m in base.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    bits = 8 * sum(p.nbytes for m in packed.modules() if isinstance(m, FourBitLinear) for p in (m.packed, m.scales))
    assert bits == 4.5 * sum(m.weight.numel() for m in linears)
    assert torch.equal(packed.get_output_embeddings().weight, base.get_output_embeddings().weight)
    assert packed.dtype == torch.float32


def test_no_restored_matrix_is_kept_for_the_backward_pass() -> None:
    """As much as over a full base, with the lean MLP in place of the plain one."""
    kept = []
    for base in (small_base(), in_four_bits(small_base(), CPU)):
        one = group(base=base)
        assert any(isinstance(module, LeanMlp) for module in base.modules())
        from gridsweep.train.lean.linear import Pass
        from gridsweep.train.lean.packing import pack

        names = one.members
        now = Pass(len(names), one.roster.to_train(names).blocks)
        packed = pack(one.batch(0), CPU)
        kept.append(saved_bytes(lambda o=one, n=now, p=packed: o.lean.losses(n, p), list(base.parameters())))
    assert kept[0] == kept[1]


def test_a_matrix_that_does_not_divide_into_blocks_is_refused() -> None:
    with pytest.raises(SpecError, match="m has 15 weights, no multiple of 64"):
        FourBitLinear(nn.Linear(3, 5), CPU, "m")
