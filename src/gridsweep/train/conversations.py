"""Conversations: what a dataset's row holds, whatever its columns are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any  # a turn holds what chat templates read: texts, tool calls, results of tools

Turn = Mapping[str, Any]
"""One turn as chat templates read it: "role", "content", and "tool_calls", "name" or the like if the row has them."""


def by_row(where: str) -> tuple[int, str]:
    """Return what sorts rows by their place in one file: there a shorter number is a smaller one."""
    return len(where), where


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and which of them are learned: `answers` holds positions of the assistant's turns, in ascending order.

    A plain `text` has no turns; all of its tokens are learned. `where` names the row for messages and is no part of
    the conversation's value.
    """

    turns: tuple[Turn, ...]
    answers: tuple[int, ...]
    text: str = ""
    where: str = field(default="", compare=False)

    @property
    def unasked(self) -> bool:
        """Whether a learned answer begins, or follows an answer or a system turn: no question stands before it."""
        return any(at == 0 or self.turns[at - 1]["role"] in ("assistant", "system") for at in self.answers)

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """The turns before the last answer."""
        return self.turns[: self.answers[-1]]

    @property
    def response(self) -> str:
        """The content of the last answer."""
        return str(self.turns[self.answers[-1]]["content"])


def asked(prompt: str, response: str) -> Conversation:
    """Return a question and its answer as a conversation."""
    return Conversation(({"role": "user", "content": prompt}, {"role": "assistant", "content": response}), (1,))
