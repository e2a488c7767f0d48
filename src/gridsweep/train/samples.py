"""Pairs as token ids: which tokens count, which samples a step uses, and which samples are evaluated at a rung."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, Turn

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer

TEMPLATE = "### Instruction:\n{prompt}\n\n### Response:\n"


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
    """Samples, and how many were cut: `truncated` lost their end, `dropped` had no room for a response."""

    samples: list[Sample]
    truncated: int
    dropped: int


def encode(tokenizer: Tokenizer, pairs: Sequence[Conversation], max_length: int) -> Encoded:
    """Tokenize pairs: the prompt in the model's template, then the response and the token that ends it.

    A pair longer than `max_length` tokens is cut at its end; a pair whose prompt alone fills `max_length` is dropped.
    """
    if tokenizer.eos_token_id is None:
        raise SpecError("the model's tokenizer names no token that ends a text (eos_token); set one")
    # A chat template writes the special tokens itself; without a template the tokenizer must add them.
    special = not tokenizer.chat_template
    prompts = tokenizer([prompt_text(tokenizer, pair.prompt) for pair in pairs], add_special_tokens=special)[
        "input_ids"
    ]
    responses = tokenizer([pair.response for pair in pairs], add_special_tokens=False)["input_ids"]

    samples, truncated, dropped = [], 0, 0
    for prompt, response in zip(prompts, responses, strict=True):
        ids = (*prompt, *response, tokenizer.eos_token_id)
        if len(prompt) >= max_length:
            dropped += 1
            continue
        truncated += len(ids) > max_length
        samples.append(Sample(ids[:max_length], len(prompt)))
    return Encoded(samples, truncated, dropped)


def prompt_text(tokenizer: Tokenizer, turns: Sequence[Turn]) -> str:
    """Return the prompt as text, in the model's chat template if it has one."""
    if tokenizer.chat_template:
        conversation = [dict(turn) for turn in turns]
        return tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return TEMPLATE.format(prompt="\n\n".join(turn["content"] for turn in turns))


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
