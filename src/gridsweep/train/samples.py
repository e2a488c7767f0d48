"""Pairs as token ids, in batches: which positions count, which samples a step sees."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gridsweep.errors import SpecError
from gridsweep.train.pairs import Pair

IGNORED = -100  # the label of a position that does not count
TEMPLATE = "### Instruction:\n{prompt}\n\n### Response:\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids of prompt and response, the first `prompt` of which are the prompt's."""

    ids: tuple[int, ...]
    prompt: int

    @property
    def counted(self) -> int:
        """How many tokens the loss is over: the response's."""
        return len(self.ids) - self.prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """Samples, and what was cut: `truncated` had their end cut off, `dropped` had no room for a response."""

    samples: list[Sample]
    truncated: int
    dropped: int


def encode(tokenizer: Any, pairs: Sequence[Pair], max_length: int) -> Encoded:
    """Tokenize pairs: the prompt in the model's template, then the response and the token that ends it.

    What is longer than `max_length` tokens is cut at its end; a pair whose prompt alone fills it is dropped.
    """
    if tokenizer.eos_token_id is None:
        raise SpecError("the model's tokenizer names no token that ends a text (eos_token); set one")
    # A chat template writes the special tokens itself; without one the tokenizer has to.
    special = not tokenizer.chat_template
    prompts = tokenizer([prompt_text(tokenizer, pair) for pair in pairs], add_special_tokens=special)["input_ids"]
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


def prompt_text(tokenizer: Any, pair: Pair) -> str:
    """The prompt as the model wants to be asked."""
    if tokenizer.chat_template:
        turns = [dict(turn) for turn in pair.prompt]
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text
    return TEMPLATE.format(prompt="\n\n".join(turn["content"] for turn in pair.prompt))


def collate(samples: Sequence[Sample], pad: int, device: torch.device) -> dict[str, Tensor]:
    """A batch, padded on the right: input_ids, attention_mask and labels, each [samples, tokens]."""
    length = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), length), pad)
    labels = torch.full((len(samples), length), IGNORED)
    mask = torch.zeros((len(samples), length), dtype=torch.long)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        ids[row, :n] = torch.tensor(sample.ids)
        labels[row, sample.prompt : n] = ids[row, sample.prompt : n]
        mask[row, :n] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def effective_batch(samples: Sequence[Sample], step: int, size: int, seed: int) -> list[Sample]:
    """The samples of one optimizer step, shortest first: a function of (seed, step).

    Epochs follow one another without a gap, each a new order of all samples. Shortest first, because
    micro-batches of like lengths need little padding; within a step the order changes nothing.
    """
    positions = range(step * size, (step + 1) * size)
    count = len(samples)
    chosen = (_order(count, seed, position // count)[position % count] for position in positions)
    return sorted((samples[index] for index in chosen), key=lambda sample: len(sample.ids))


def by_length(samples: Iterable[Sample], tokens: int) -> list[list[Sample]]:
    """All samples in batches of like lengths, of at most `tokens` positions (or a single sample)."""
    batches: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: len(sample.ids)):
        if not batches or (len(batches[-1]) + 1) * len(sample.ids) > tokens:
            batches.append([])
        batches[-1].append(sample)
    return batches


@lru_cache(maxsize=2)  # two, for the step that lies across the end of an epoch
def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"epoch {epoch} of {seed}").shuffle(order)
    return order
