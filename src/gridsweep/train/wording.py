"""How a tokenizer's conversations are written, for training and serving alike: the prompt, and what ends an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.train.chat_format import ChatFormat, Unwritable, Writer, first_line, folded, format_of, own_marks
from gridsweep.train.conversations import Turn
from gridsweep.train.first_encoding import prompt_text
from gridsweep.train.plain_format import MARKS, instruction_prompt, leading

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer

NEWEST = 2
"""The version of the encoding that a new submission gets."""


@dataclass(frozen=True)
class Wording:
    """How conversations are written: by the tokenizer's chat template or the one given, in the version `encoding`.

    `date` is what a template that writes today's date gets; without one it writes the day on which it runs.
    """

    tokenizer: Tokenizer
    encoding: int = NEWEST
    date: datetime | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        if self.encoding not in (1, NEWEST):
            raise SpecError(f"encoding {self.encoding} is unknown; upgrade gridsweep, or submit the sweep again")
        if self.encoding == 1 and self.template is not None:
            raise SpecError("model.chat_template needs encoding 2 and this sweep has encoding 1; submit it again")

    @cached_property
    def write(self) -> Writer:
        """The template, ready to write turns."""
        return self._chat[0]

    @cached_property
    def form(self) -> ChatFormat | None:
        """What the template writes around an answer; None without a template. Raise `SpecError` if it cannot write."""
        return self._chat[1]

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an assistant's turn: the template's marks, or `eos_token`."""
        if self.encoding > 1 and self.form is not None and self.form.ending:
            marks = (self.tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in self.form.ending)
            return frozenset(ids[0] for ids in marks)
        eos = self.tokenizer.eos_token_id
        return frozenset() if eos is None else frozenset([eos])

    @cached_property
    def marks(self) -> re.Pattern[str]:
        """What a text should not hold: special tokens, and what begins or ends a turn."""
        found = own_marks(self.write) | (frozenset() if self.form is not None else frozenset(MARKS))
        return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))) or r"(?!)")

    def mark_in(self, turns: Sequence[Turn]) -> str:
        """Return the first special token or turn mark in the texts of turns; '' if there is none."""
        for turn in turns:
            calls = json.dumps(turn["tool_calls"], ensure_ascii=False, default=str) if turn.get("tool_calls") else ""
            texts = (turn.get("content"), turn.get("reasoning_content"), turn.get("thinking"), calls)
            for text in texts:
                if isinstance(text, str) and (found := self.marks.search(text)):
                    return found.group()
        return ""

    @cached_property
    def _chat(self) -> tuple[Writer, ChatFormat | None]:
        plain = Writer(self.tokenizer, self.template, self.date)
        try:
            if not plain.source:
                return plain, None
            try:
                return plain, format_of(plain)
            except Unwritable:
                parts = replace(plain, parts=True)
                return parts, format_of(parts)
        except Unwritable as error:
            raise SpecError(
                f"the chat template cannot write a question and its answer: {error}; "
                "correct it, or name another file as model.chat_template"
            ) from None

    def turns(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Return turns as the template takes them: a system turn that it does not take is joined to the question."""
        return folded(turns) if self.form is not None and self.form.folds else turns

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Return turns as token ids, up to where the answer begins. Raise `SpecError` if the template refuses them."""
        try:
            if self.encoding == 1:
                special = not self.tokenizer.chat_template
                return list(self.tokenizer(prompt_text(self.tokenizer, turns), add_special_tokens=special)["input_ids"])
            if self.form is None:
                return instruction_prompt(self.tokenizer, turns)
            text = self.form.served(self.write(self.turns(turns), ask=True))
        except SpecError:
            raise
        except Exception as error:  # a template can raise whatever its expressions raise
            raise SpecError(f"the model's chat template refuses these messages: {first_line(error)}") from None
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, text: str) -> list[int]:
        """Return a plain text to be continued as token ids, without an end that the tokenizer may append."""
        if self.encoding == 1:
            return list(self.tokenizer(text)["input_ids"])
        return [*leading(self.tokenizer), *self.tokenizer(text, add_special_tokens=False)["input_ids"]]


def ends(tokenizer: Tokenizer, template: str | None = None) -> frozenset[int]:
    """Return the token ids that end an assistant's turn."""
    return Wording(tokenizer, template=template).ends


def prompt(
    tokenizer: Tokenizer, turns: Sequence[Turn], *, date: datetime | None = None, template: str | None = None
) -> list[int]:
    """Return turns as token ids, up to where the answer begins."""
    return Wording(tokenizer, date=date, template=template).prompt(turns)
