"""Attention that keeps the samples of a packed row apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

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


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model's attention does beyond plain causal attention.

    `scaling` multiplies the scores (None: 1 / sqrt(width)). A query sees the last `window` keys. `softcap` limits the
    scores to +-`softcap` by tanh. `sinks` [heads] are scores that take their share and give nothing.
    """

    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


_reading: list[Packed] = []


@contextmanager
def reading(packed: Packed) -> Iterator[None]:
    """Name the packed row that attention reads inside the context: many models pass on no arguments of others."""
    _reading.append(packed)
    try:
        yield
    finally:
        _reading.pop()


HARMLESS = frozenset({"position_ids", "position_embeddings", "cache_position", "use_cache", "output_attentions"})
"""Arguments that change nothing here: the positions are in the queries, and there is no cache."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Compute causal attention within each sample: [members, heads, tokens, width] -> [members, tokens, heads, width].

    Samples of similar lengths are computed together, padded on the right to the longest of them; there is no padding
    anywhere else. A causal query does not see what is on its right, so no mask is needed. Raise `SpecError` for
    arguments that are not understood.
    """
    packed = _reading[-1]
    strange = [name for name, given in others.items() if given is not None and name not in HARMLESS]
    strange += ["attention_mask"] if attention_mask is not None else []
    strange += ["dropout"] if dropout else []
    strange += ["is_causal=False"] if is_causal is False else []
    if strange:
        raise SpecError(f"the model's attention takes {', '.join(strange)}, which packed attention does not support")
    kind = Kind(scaling, sliding_window, softcap, s_aux)
    sizes = [alike.tokens for alike in packed.alike]
    parts = zip(packed.alike, query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    outs = [_attention(alike, q, k, v, kind) for alike, q, k, v in parts]
    return torch.cat(outs, 1) if len(outs) > 1 else outs[0], None


def _attention(alike: Alike, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
    members, heads = query.shape[:2]
    q, k, v = (_samples(tensor, alike) for tensor in (query, key, value))
    seen = None  # all keys up to the query's own
    if kind.window is not None and alike.longest > kind.window:
        seen = _window(alike.longest, kind.window, query.device)
    if kind.softcap is None and kind.sinks is None:
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=seen is None, scale=kind.scaling, enable_gqa=key.shape[1] != heads
        ).transpose(1, 2)
    else:
        seen = _window(alike.longest, alike.longest, query.device) if seen is None else seen
        out = _eager(q, k, v, seen, kind).transpose(1, 2)
    out = out.reshape(members, alike.samples * alike.longest, heads, out.shape[-1])
    return out if alike.places is None else applied(Select, out, alike.places)


def _eager(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, kind: Kind) -> Tensor:
    """Return attention with all scores at once, for kinds that have no kernel; the softmax is in float32."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) if groups > 1 else tensor for tensor in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if kind.scaling is None else kind.scaling)
    if kind.softcap is not None:
        scores = torch.tanh(scores / kind.softcap) * kind.softcap
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    if kind.sinks is not None:
        sinks = kind.sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], -1)
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    shares = torch.softmax(scores, -1, dtype=wide).to(query.dtype)
    return shares[..., : seen.shape[-1]] @ value


@lru_cache(maxsize=16)
def _window(length: int, window: int, device: torch.device) -> Tensor:
    """Return which keys a query sees: bool [length, length]."""
    at = torch.arange(length, device=device)
    back = at[:, None] - at[None]
    return (back >= 0) & (back < window)


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
