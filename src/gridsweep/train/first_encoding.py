"""Version 1 of the encoding: the last answer after the prompt, ended by `eos_token`.

Sweeps that were submitted before the encoding had a version go on with it, to the id; nothing here changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, Turn
from gridsweep.train.plain_format import TEMPLATE
from gridsweep.train.samples import Encoded, Sample

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer


def encode_first(tokenizer: Tokenizer, pairs: Sequence[Conversation], max_length: int) -> Encoded:
    """Tokenize pairs: the prompt in the model's template, then the response and `eos_token`.

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
    facts = {"prompt_template": "chat template" if tokenizer.chat_template else "### Instruction/Response"}
    return Encoded(samples, truncated, dropped, facts)


def prompt_text(tokenizer: Tokenizer, turns: Sequence[Turn]) -> str:
    """Return the prompt as text, in the model's chat template if it has one."""
    if tokenizer.chat_template:
        conversation = [dict(turn) for turn in turns]
        return tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return TEMPLATE.format(prompt="\n\n".join(turn["content"] for turn in turns))
