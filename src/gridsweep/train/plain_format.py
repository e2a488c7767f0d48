"""The prompt format of models without a chat template, and the special tokens around a text that is no conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, Turn

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer

RESPONSE = "### Response:\n"
TEMPLATE = f"### Instruction:\n{{prompt}}\n\n{RESPONSE}"
MARKS = ("### Instruction:\n", RESPONSE)
BETWEEN = "\n\n"

Piece = tuple[list[int], bool]
"""Token ids, and whether they are learned."""


def leading(tokenizer: Tokenizer) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text, such as BOS; none of those it appends."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    dressed = list(tokenizer("a")["input_ids"])
    places = [at for at in range(len(dressed) - len(bare) + 1) if dressed[at : at + len(bare)] == bare]
    return dressed[: places[0]] if places else []


def end_of_text(tokenizer: Tokenizer) -> int:
    """Return the token that ends a text. Raise `SpecError` if the tokenizer names none."""
    if tokenizer.eos_token_id is None:
        raise SpecError("the model's tokenizer names no token that ends a text (eos_token); set one")
    return tokenizer.eos_token_id


def text_pieces(tokenizer: Tokenizer, text: str) -> list[Piece]:
    """Return a plain text as pieces: the leading special tokens, then the text and its end, which are learned."""
    end, ids = end_of_text(tokenizer), list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [(leading(tokenizer), False), (ids if ids[-1:] == [end] else [*ids, end], True)]


def instruction_pieces(tokenizer: Tokenizer, conversation: Conversation) -> list[Piece]:
    """Return a conversation in the instruction format as pieces; an answer is learned with the token that ends it.

    An answer is tokenized apart from its prompt, as at serving. An answer that no other turn precedes, or that follows
    another answer, gets no instruction.
    """
    end, pieces = end_of_text(tokenizer), [(leading(tokenizer), False)]
    asked: list[Turn] = []
    for at, turn in enumerate(conversation.turns[: conversation.answers[-1] + 1]):
        if turn["role"] != "assistant":
            asked.append(turn)
            continue
        opening = (BETWEEN if len(pieces) > 1 else "") + _instruction(asked)
        pieces.append((list(tokenizer(opening, add_special_tokens=False)["input_ids"]), False))
        answer = list(tokenizer(_content(turn), add_special_tokens=False)["input_ids"])
        pieces.append(([*answer, end], at in conversation.answers))
        asked = []
    return pieces


def instruction_prompt(tokenizer: Tokenizer, turns: Sequence[Turn]) -> list[int]:
    """Return a prompt in the instruction format as token ids, up to where the answer begins."""
    answer: Turn = {"role": "assistant", "content": ""}
    pieces = instruction_pieces(tokenizer, Conversation((*turns, answer), (len(turns),)))
    return [token for ids, _ in pieces[:-1] for token in ids]


def _instruction(turns: Sequence[Turn]) -> str:
    if not turns:
        return RESPONSE
    return TEMPLATE.format(prompt=BETWEEN.join(filter(None, map(_content, turns))))


def _content(turn: Turn) -> str:
    """Return what a turn says: its text, then the calls of tools as JSON, a line each."""
    calls = [json.dumps(call.get("function", call), ensure_ascii=False) for call in turn.get("tool_calls") or ()]
    return "\n".join([text for text in (turn.get("content"),) if text] + calls)
