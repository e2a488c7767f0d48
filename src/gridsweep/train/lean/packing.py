"""Packed samples: several samples in one row without padding, with the indices needed to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gridsweep.train.samples import Sample

PADDED = 1.25  # samples padded to one length may be this many times as long as the shortest of them


@dataclass(frozen=True, slots=True)
class Alike:
    """Samples of similar lengths, adjacent in a row, with `tokens` tokens in total.

    `places` [tokens] is the index of each token in [samples, longest]; None if all samples have the same length.
    """

    samples: int
    longest: int
    tokens: int
    places: Tensor | None


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids of several samples in one row, with their positions, each [1, tokens].

    `predicting` holds the positions whose next token counts, `targets` these next tokens, `owner` the sample of each:
    all [counted]. `first` is the row's start in the packed effective batch; `alike` holds the samples as grouped for
    attention.
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
    """Pack the samples into one row, in this order."""
    lengths = [len(sample.ids) for sample in samples]
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    ids = torch.tensor([token for sample in samples for token in sample.ids])
    positions = torch.cat([torch.arange(length) for length in lengths])
    counted = [[start + at for part in s.learned for at in part] for start, s in zip(starts, samples, strict=False)]
    at = torch.tensor([index for positions in counted for index in positions], dtype=torch.long)
    owner = torch.repeat_interleave(torch.arange(len(samples)), torch.tensor([len(c) for c in counted]))
    row, places, predicting, targets, owner = (
        t.to(device, non_blocking=True) for t in (ids[None], positions[None], at - 1, ids[at], owner)
    )
    alike = tuple(_alike(some, device) for some in _by_likeness(lengths))
    return Packed(row, places, predicting, targets, owner, alike, first)


def _by_likeness(lengths: Sequence[int]) -> list[list[int]]:
    """Group consecutive lengths; the longest of a group is at most `PADDED` times the shortest.

    The result depends on the lengths alone: the other members of a pass must not affect how a sample's attention is
    rounded.
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
    """Split consecutive samples into runs of at most `tokens` tokens (or a single sample); None: one run."""
    parts: list[list[Sample]] = []
    room = 0
    for sample in samples:
        if not parts or (tokens is not None and len(sample.ids) > room):
            parts.append([])
            room = tokens or 0
        parts[-1].append(sample)
        room -= len(sample.ids)
    return parts
