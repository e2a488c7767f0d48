"""Attention that keeps the samples of a packed row apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from gridsweep.errors import SpecError
from gridsweep.train.lean.autograd import Context, applied
from gridsweep.train.lean.packing import Alike, Packed

NAME = "gridsweep_packed"


class Select(torch.autograd.Function):
    """Select rows `places` (all distinct) of x [members, rows, ...], without the slow sum for repeated indices."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, places: Tensor) -> Tensor:
        ctx.places, ctx.shape = places, x.shape
        return x.index_select(1, places)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        return grad.new_zeros(ctx.shape).index_copy_(1, ctx.places, grad), None


class Spread(torch.autograd.Function):
    """Place x [members, tokens, ...] at rows `places` of `rows` rows, the other rows 0: the inverse of `Select`."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, places: Tensor, rows: int) -> Tensor:
        ctx.places = places
        return x.new_zeros(x.shape[0], rows, *x.shape[2:]).index_copy_(1, places, x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(1, ctx.places), None, None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packed: Packed | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Compute causal attention within each sample: [members, heads, tokens, width] -> [members, tokens, heads, width].

    Samples of similar lengths are computed together, padded on the right to the longest of them; there is no padding
    anywhere else. A causal query does not see what is on its right, so no mask is needed. Raise `SpecError` for
    unsupported kinds of attention.
    """
    if packed is None:
        raise ValueError("packed attention needs the samples' lengths")
    longest = max(alike.longest for alike in packed.alike)
    if softcap is not None or (sliding_window is not None and longest > sliding_window):
        kind = "softcapped" if softcap is not None else f"limited to a window of {sliding_window} tokens"
        raise SpecError(f"the model's attention is {kind}, which is not supported with {longest} tokens a sample")
    sizes = [alike.tokens for alike in packed.alike]
    parts = zip(packed.alike, query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    outs = [_attention(alike, q, k, v, scaling) for alike, q, k, v in parts]
    return torch.cat(outs, 1) if len(outs) > 1 else outs[0], None


def _attention(alike: Alike, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    members, heads = query.shape[:2]
    q, k, v = (_samples(tensor, alike) for tensor in (query, key, value))
    out = F.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=scaling, enable_gqa=key.shape[1] != heads
    ).transpose(1, 2)
    out = out.reshape(members, alike.samples * alike.longest, heads, out.shape[-1])
    return out if alike.places is None else applied(Select, out, alike.places)


def _samples(tensor: Tensor, alike: Alike) -> Tensor:
    """Split rows into samples: [members, heads, tokens, width] -> [members * samples, heads, longest, width]."""
    if alike.samples == 1:
        return tensor
    tensor = tensor.transpose(1, 2)
    if alike.places is not None:
        tensor = applied(Spread, tensor, alike.places, alike.samples * alike.longest)
    members, _, heads, width = tensor.shape
    return tensor.reshape(members * alike.samples, alike.longest, heads, width).transpose(1, 2)


AttentionInterface.register(NAME, packed_attention)
