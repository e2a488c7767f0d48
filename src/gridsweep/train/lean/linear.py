"""A frozen linear layer with the LoRA adapters of all members of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gridsweep.train.lean.autograd import Context, applied
from gridsweep.train.lean.masks import masked

Pairs = Mapping[str, tuple[Tensor, Tensor]]  # module -> A [members, r, in], B^T [members, r, out]
Bits = Callable[[str, int, slice], Tensor]


@dataclass(frozen=True, slots=True)
class Block:
    """Members of one rank, adjacent in the pass: their rows, scale [members, 1, 1] and weights by module.

    A backward pass adds to `grads`; None if there is no backward pass.
    """

    rows: slice
    scale: Tensor
    weights: Pairs
    grads: Pairs | None
    drops: bool


@dataclass(frozen=True, slots=True)
class Pass:
    """The inputs of one forward pass; `bits(module, width, rows)` gives dropout masks, `remember` keeps them."""

    members: int
    blocks: Sequence[Block]
    bits: Bits | None = None
    remember: bool = False


class Frozen(Protocol):
    """A linear layer's parameters: W [out, in], perhaps dequantized on every access, and a bias [out]."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...


class LoraLinear(nn.Module):
    """Replacement of a target module: x [members, tokens, in] -> [members, tokens, out]."""

    def __init__(self, name: str, base: nn.Module, frozen: Frozen):
        super().__init__()
        self.name, self.base, self.frozen = name, base, frozen
        self.now: Pass | None = None

    @property
    def weight(self) -> object:
        """The frozen weights, which some models read for their type."""
        return self.base.weight

    @property
    def bias(self) -> object:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.now is None:
            plain: Tensor = self.base(x)
            return plain
        if x.dim() != 3:  # tokens of all members in one row, as in blocks with experts, or with a dimension between
            rows = x.reshape(self.now.members, -1, x.shape[-1])
            return lora_product(rows, self.frozen, self.name, self.now).view(*x.shape[:-1], -1)
        return lora_product(x, self.frozen, self.name, self.now)


def lora_product(x: Tensor, base: Frozen, name: str, now: Pass) -> Tensor:
    """Return x W^T + bias + scale * drop(x) A^T B^T, member by member, with W and bias from `base`.

    The frozen product keeps nothing for the backward pass. x is kept unchanged, so that projections that read the same
    x keep it once; A drop(x)^T is also kept, and is as narrow as the rank. Masks are recomputed or kept. The gradients
    of A and B are added to the blocks' `grads`. Narrow matrices are stored as [r, tokens]: on a CPU, products of this
    shape are up to five times as fast as of [tokens, r].
    """
    # Autograd does not know A and B; this tensor requests a backward pass even where x needs no gradient.
    asks = x.new_zeros((), requires_grad=any(block.grads is not None for block in now.blocks))
    return applied(_LoraProduct, x, base, name, now, asks)


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, base: Frozen, name: str, now: Pass, _: Tensor) -> Tensor:
        out = frozen_product(x, base.weight.mT, base.bias)
        narrow, kept = [], []
        for block in now.blocks:
            a, b = (w.to(x.dtype) for w in block.weights[name])
            inner = x[block.rows]
            if now.bits is not None and block.drops:
                bits = now.bits(name, x.shape[-1], block.rows)
                inner = masked(inner, bits)
                if now.remember:
                    kept.append(bits)
            h = torch.bmm(a, inner.mT).mul_(block.scale)
            out[block.rows].baddbmm_(h.mT, b)
            narrow.append(h)
        # W is not saved: a base in four bits dequantizes it again.
        ctx.base, ctx.name, ctx.now = base, name, now
        ctx.save_for_backward(x, *narrow, *kept)
        return out

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        now: Pass = ctx.now
        name: str = ctx.name
        x, *rest = ctx.saved_tensors
        narrow, kept = rest[: len(now.blocks)], iter(rest[len(now.blocks) :])
        grad = grad.contiguous()
        grad_x = frozen_product(grad, ctx.base.weight) if ctx.needs_input_grad[0] else None
        for block, h in zip(now.blocks, narrow, strict=True):
            rows, bits = block.rows, None
            a, b = (w.to(x.dtype) for w in block.weights[name])
            if now.bits is not None and block.drops:
                bits = next(kept) if now.remember else now.bits(name, x.shape[-1], rows)
            inner = x[rows] if bits is None else masked(x[rows], bits)
            grad_h = torch.bmm(b, grad[rows].mT).mul_(block.scale)
            assert block.grads is not None, "a backward pass of blocks that take no gradients"
            grad_a, grad_b = block.grads[name]
            _add_product(grad_a, grad_h, inner)
            _add_product(grad_b, h, grad[rows])
            if grad_x is None:
                continue
            if bits is None:
                grad_x[rows].baddbmm_(grad_h.mT, a)
            else:
                grad_x[rows] += masked(torch.bmm(grad_h.mT, a), bits)
        return grad_x, None, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)


def frozen_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [members, tokens, in] @ weight [in, out] + bias.

    On a CPU each member is a separate block, because the rounding of a matrix product may depend on its number of
    rows. A member's numbers are then the same bit for bit in any group, at no cost. Elsewhere it is one product.
    """
    if x.device.type != "cpu":
        return x @ weight if bias is None else torch.addmm(bias, x.flatten(0, -2), weight).view(*x.shape[:-1], -1)
    weight = weight.expand(x.shape[0], *weight.shape)
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
