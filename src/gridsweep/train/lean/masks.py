"""Dropout masks keyed by identity: a function of (seed, step, token, module, column), the same on any device.

A mask costs a few integer operations, so the backward pass can recompute it instead of keeping it. A mask is stored
as bits, -1 (all ones) where a value stays and 0 where it is dropped: `&` on the value's bits is the cheapest masking,
and drops NaN too.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

# Odd constants of well-known mixers (Steele and others' SplitMix64, and Wellons' 32-bit "lowbias"), as signed integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_SPLIT = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_MIX = (0x7FEB352D, 0x846CA68B - 2**32)
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def token_keys(seed: int, step: int, positions: Tensor) -> Tensor:
    """Return a key for each token of one member's optimizer step: int32 [tokens].

    `positions` are the tokens' places in the packed effective batch, so that micro-batches do not change the keys.
    """
    z = positions.long() * _GOLDEN + _integer(f"{seed} {step}", 8)
    z = (z ^ (z >> 30)) * _SPLIT[0]
    z = (z ^ (z >> 27)) * _SPLIT[1]
    return ((z ^ (z >> 31)) >> 32).to(torch.int32)


def limits(dropouts: list[float], device: torch.device) -> Tensor:
    """Return the thresholds of `keep_bits` for members with these dropout probabilities: int32 [members, 1, 1]."""
    return torch.tensor([-(2**30) + round(p * 2**31) - 1 for p in dropouts], dtype=torch.int32, device=device).view(
        -1, 1, 1
    )


def keep_bits(keys: Tensor, module: str, width: int, limit: Tensor) -> Tensor:
    """Return -1 where the input of `module` stays, 0 where it is dropped: int32 [members, tokens, width].

    `keys` [members, tokens] are from `token_keys`, `limit` [members, 1, 1] is from `limits`. A dropout of 0 keeps all.
    """
    rows = _mixed(keys ^ _integer(module, 4)).unsqueeze(-1)
    bits = _mixed(rows ^ _columns(width, keys.device))
    # The shift leaves 31 bits, so that the difference cannot overflow; the sign of the difference is the mask.
    return torch.sub(limit, bits.bitwise_right_shift_(1), out=bits).bitwise_right_shift_(31)


def masked(values: Tensor, bits: Tensor) -> Tensor:
    """Return `values` with 0 where `bits` is 0; the rest is not scaled up."""
    kind = _INTEGERS[values.element_size()]
    return (values.view(kind) & bits.to(kind)).view(values.dtype)


def _mixed(z: Tensor) -> Tensor:
    z = z * _MIX[0]
    z ^= z >> 15
    return z.mul_(_MIX[1])


@lru_cache(maxsize=64)
def _columns(width: int, device: torch.device) -> Tensor:
    return token_keys(0, 0, torch.arange(width, device=device))


@lru_cache(maxsize=4096)
def _integer(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big", signed=True)
