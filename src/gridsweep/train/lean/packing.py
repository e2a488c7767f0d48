"""Samples one after another without padding, and what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gridsweep.train.samples import Sample

PADDED = 1.25  # times as long as the shortest of them may samples be that are padded to one length


@dataclass(frozen=True, slots=True)
class Alike:
    """Samples of like lengths, next to each other in a row, of so many tokens together.

    `places` [tokens] is where each token lies in [samples, longest], None where all are of one length.
    """

    samples: int
    longest: int
    tokens: int
    places: Tensor | None


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids of several samples in one row, with their positions, each [1, tokens].

    `predicting` are the positions whose next token counts, `targets` those tokens and `owner` the sample each belongs
    to, each [counted]. `first` is where the row begins in the packed effective batch, `alike` are its samples as
    attention takes them.
    """

    ids: Tensor
    positions: Tensor
    predicting: Tensor
    targets: Tensor
    owner: Tensor
    alike: tuple[Alike, ...]
    first: int

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]


def pack(samples: Sequence[Sample], device: torch.device, first: int = 0) -> Packed:
    """The samples in one row, in this order."""
    lengths = [len(sample.ids) for sample in samples]
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    ids = torch.tensor([token for sample in samples for token in sample.ids])
    positions = torch.cat([torch.arange(length) for length in lengths])
    # A first token has no predecessor that could predict it.
    counted = [range(start + max(1, s.prompt), start + len(s.ids)) for start, s in zip(starts, samples, strict=False)]
    at = torch.tensor([index for positions in counted for index in positions], dtype=torch.long)
    owner = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor([len(c) for c in counted]))
    row, places, predicting, targets, owner = (
        t.to(device, non_blocking=True) for t in (ids[None], positions[None], at - 1, ids[at], owner)
    )
    alike = tuple(_alike(some, device) for some in _by_likeness(lengths))
    return Packed(row, places, predicting, targets, owner, alike, first)


def _by_likeness(lengths: Sequence[int]) -> list[list[int]]:
    """Consecutive lengths in groups, the longest of one at most `PADDED` times the shortest.

    A function of the lengths alone: who else is in a pass must not decide how a sample's attention is rounded.
    """
    groups: list[list[int]] = []
    for length in lengths:
        if not groups or max(length, *groups[-1]) > PADDED * min(length, *groups[-1]):
            groups.append([])
        groups[-1].append(length)
    return groups


def _alike(lengths: list[int], device: torch.device) -> Alike:
    longest, places = max(lengths), None
    if min(lengths) != longest:
        places = torch.cat([number * longest + torch.arange(length) for number, length in enumerate(lengths)])
        places = places.to(device, non_blocking=True)
    return Alike(len(lengths), longest, sum(lengths), places)


def runs(samples: Sequence[Sample], tokens: int | None) -> list[list[Sample]]:
    """Consecutive samples in runs of at most `tokens` tokens (or a single sample); None is one run."""
    parts: list[list[Sample]] = []
    room = 0
    for sample in samples:
        if not parts or (tokens is not None and len(sample.ids) > room):
            parts.append([])
            room = tokens or 0
        parts[-1].append(sample)
        room -= len(sample.ids)
    return parts
