"""Samples: token ids of which some are learned, which samples a step uses, and which are evaluated at a rung."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids, and which of them are learned: all from `prompt` on, without the half-open spans of `context`.

    A conversation with several learned answers has context between them.
    """

    ids: tuple[int, ...]
    prompt: int
    context: tuple[tuple[int, int], ...] = ()

    @property
    def learned(self) -> list[range]:
        """The positions of the learned tokens; the first token has no predecessor to predict it."""
        found, start = [], max(1, self.prompt)
        for begin, end in (*self.context, (len(self.ids), len(self.ids))):
            if start < min(begin, len(self.ids)):
                found.append(range(start, min(begin, len(self.ids))))
            start = max(start, end)
        return found

    @property
    def counted(self) -> int:
        """The number of learned tokens."""
        return sum(map(len, self.learned))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Samples, and how many were cut: `truncated` lost their end, `dropped` had no room for a response.

    `facts` say how they are written. `folded` counts system turns that were joined to the first question because the
    template takes none, `altered` answers whose content the template did not write word for word, `marked`
    conversations that hold special tokens or turn marks in their texts. `first` names the first row of these kinds.
    """

    samples: list[Sample]
    truncated: int
    dropped: int
    facts: Mapping[str, str] = field(default_factory=dict)
    folded: int = 0
    altered: int = 0
    marked: int = 0
    first: Mapping[str, str] = field(default_factory=dict)


def effective_batch(samples: Sequence[Sample], step: int, size: int, seed: int) -> list[Sample]:
    """Return the samples of one optimizer step, shortest first: a function of (seed, step).

    Epochs follow each other without a gap, each a new order of all samples. Samples are sorted because
    micro-batches of similar lengths need little padding; the order within a step changes nothing.
    """
    positions = range(step * size, (step + 1) * size)
    count = len(samples)
    chosen = (_order(count, seed, position // count)[position % count] for position in positions)
    return sorted((samples[index] for index in chosen), key=lambda sample: len(sample.ids))


def judging(count: int, seed: int) -> list[int]:
    """Return which of `count` validation samples are evaluated at a rung: a quarter, at least 8 if available.

    All experiments use the same samples.
    """
    chosen = random.Random(f"judging by {seed}").sample(range(count), min(count, max(8, -(-count // 4))))
    return sorted(chosen)


@lru_cache(maxsize=2)  # two, because a step can span the end of an epoch
def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"epoch {epoch} of {seed}").shuffle(order)
    return order
