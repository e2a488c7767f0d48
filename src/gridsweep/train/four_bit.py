"""A frozen base in four bits: NF4 by bitsandbytes, 4.5 bits per weight including scales, dequantized for each product.

Embeddings, norms, biases and the language head are not quantized. A dequantized matrix lives only as long as its
product; the backward pass dequantizes it again. A different base makes a different training; see
docs/decisions/014-four-bit-proxy.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any  # bitsandbytes has no types

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsweep.errors import SpecError
from gridsweep.train.lean.autograd import Context, applied

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM

BLOCK = 64  # weights that share a scale
WORST = 0.16  # of a block's largest weight: half of NF4's widest gap is 0.152


class FourBitLinear(nn.Linear):
    """A linear layer whose `weight` is dequantized on every access, in its original type."""

    def __init__(self, linear: nn.Linear, device: torch.device, name: str):
        nn.Module.__init__(self)  # without nn.Linear's own weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.made = linear.weight.dtype
        weight = linear.weight.detach().to(device)
        if weight.numel() % BLOCK:
            raise SpecError(f"{name} has {weight.numel()} weights, no multiple of {BLOCK}; train without proxy")
        # In one row: bitsandbytes' CPU kernel misreads rows whose length is not a multiple of the block size.
        packed, state = _library().quantize_4bit(weight.reshape(1, -1), blocksize=BLOCK, quant_type="nf4")
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(state.absmax, requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        off = (self.weight.float() - weight.float()).view(-1, BLOCK).abs().amax(1)
        if not bool((off <= WORST * self.scales).all()):
            raise SpecError(f"bitsandbytes does not restore {name} from its four bits here; train without proxy")

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # a property where nn.Linear keeps a parameter
        """Return the dequantized weight [out, in], close to the original."""
        state = _library().QuantState(
            absmax=self.scales, shape=torch.Size((1, self.in_features * self.out_features)), dtype=self.made,
            blocksize=BLOCK, quant_type="nf4",
        )  # fmt: skip
        restored: Tensor = _library().dequantize_4bit(self.packed, state)
        return restored.view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        return applied(_Product, x, self)


class _Product(torch.autograd.Function):
    """x W^T + bias, without keeping W for the backward pass."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, linear: FourBitLinear) -> Tensor:
        ctx.linear = linear
        return F.linear(x, linear.weight, linear.bias)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.linear.weight, None


def in_four_bits(base: CausalLM, device: torch.device) -> CausalLM:
    """Return the model with all linear layers except its head in four bits, moved to `device` one matrix at a time.

    Raise `SpecError` if bitsandbytes is missing or a matrix cannot be packed.
    """
    head = base.get_output_embeddings()
    for name, module in list(base.named_modules()):
        if type(module) is nn.Linear and module is not head:
            parent, _, own = name.rpartition(".")
            setattr(base.get_submodule(parent), own, FourBitLinear(module, device, name))
    return base


def described() -> str:
    """Return the quantization's description for the facts of a result."""
    from importlib.metadata import version

    return f"4-bit NF4 (bitsandbytes {version('bitsandbytes')}), a proxy for the full one"


def _library() -> Any:
    try:
        import bitsandbytes.functional
    except ImportError as error:
        raise SpecError(
            f"proxy: {{base: 4-bit}} needs bitsandbytes ({error}); pip install 'gridsweep[4bit]'"
        ) from error
    return bitsandbytes.functional
