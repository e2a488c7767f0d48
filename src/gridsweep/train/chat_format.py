"""How a chat template writes conversations: where an answer begins, what ends it, what becomes of a system turn.

All of it is found out by letting the template write short conversations, whatever the template's text looks like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any  # a turn holds what chat templates read

from gridsweep.train.conversations import Turn

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Marked, Tokenizer

_SYSTEM: Turn = {"role": "system", "content": "Sq1system"}
_ASKED: Turn = {"role": "user", "content": "Sq2asked"}
_ANSWER: Turn = {"role": "assistant", "content": "Sq3answer"}
_AGAIN: Turn = {"role": "user", "content": "Sq4again"}
_REPLY: Turn = {"role": "assistant", "content": "Sq5reply"}

_MARK = r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|</?[a-z_]+>|\[/?[A-Z_]+\]"
_TURN_MARK = r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|\[/?[A-Z_]+\]"
_NO_TURN_MARK = r"</?(think|thinking|reasoning|tools?|tool_calls?|tool_responses?)>|\[/?THINK\]"
_REASONING = re.compile(r"<think>.*\Z", re.DOTALL)
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_DATE = re.compile(r"\bstrftime_now\b")

_DATE_CODES = (*(f"-{code}" for code in "dHIjmMSy"), *"aAbBcdDefFGHIjklmMnpPrRsStTuUVwWxXyYzZ")

COUNTED = ("<|start|>assistant", "<｜Assistant｜>")
"""Headers that count with the answer in TRL's masks: a model writes the former itself, before each of its messages."""

COUNTED_NEWLINE = ("<|im_start|>assistant\n", "You are Qwen, created by Alibaba Cloud.")
"""The header whose newline counts in TRL's masks, and what tells Qwen 2.5's template from others with that header."""


class Unwritable(Exception):
    """The template refuses a conversation; the message is the template's."""


@dataclass(frozen=True)
class Writer:
    """A tokenizer's chat template, or the one given in its place, with a date for templates that write today's.

    With `parts`, a text is passed as a list of one part, which templates of models with vision ask for.
    """

    tokenizer: Tokenizer
    template: str | None = None
    date: datetime | None = None
    parts: bool = False

    @cached_property
    def source(self) -> str:
        """The template's text; empty if there is none. Raise `Unwritable` if none of several is the default."""
        if self.template is not None or not self.tokenizer.chat_template:
            return self.template or ""
        try:
            return self.tokenizer.get_chat_template()
        except ValueError as error:
            raise Unwritable(first_line(error)) from error

    @cached_property
    def dated_source(self) -> str:
        """The template with its date fixed."""
        return fixed_date(self.date) + self.source if self.date and self.dated else self.source

    @property
    def marked(self) -> bool:
        """Whether the template marks what the assistant writes (`{% generation %}`)."""
        return bool(_GENERATION.search(self.source))

    @property
    def dated(self) -> bool:
        """Whether the template writes today's date."""
        return bool(_DATE.search(self.source))

    def __call__(self, turns: Sequence[Turn], *, ask: bool = False) -> str:
        """Return turns as text, with `ask` up to where the answer begins. Raise `Unwritable` if they are refused."""
        try:
            return self.tokenizer.apply_chat_template(
                self.shaped(turns), chat_template=self.dated_source, tokenize=False, add_generation_prompt=ask
            )
        except Exception as error:  # a template can raise whatever its expressions raise
            raise Unwritable(self._told(error)) from error

    def with_mask(self, turns: Sequence[Turn]) -> Marked:
        """Return turns as tokens with the template's own marks. Raise `Unwritable` if they are refused."""
        try:
            return self.tokenizer.apply_chat_template(
                self.shaped(turns),
                chat_template=self.dated_source,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
            )
        except Exception as error:  # a template can raise whatever its expressions raise
            raise Unwritable(self._told(error)) from error

    def _told(self, error: Exception) -> str:
        """Return the template's error with its line in the template, if Jinja names one."""
        text, line = first_line(error).rstrip("."), line_of(error)
        if "no loader for this environment" in text:
            text = "it includes or imports another file, but a chat template is one text: put that file into it"
        shift = self.dated_source.count("\n") - self.source.count("\n")
        return f"{text} (line {line - shift} of the template)" if line > shift else text

    def shaped(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        """Return turns as the template takes them."""
        if not self.parts:
            return [dict(turn) for turn in turns]
        return [
            {**turn, "content": [{"type": "text", "text": text}]}
            if isinstance(text := turn.get("content"), str)
            else dict(turn)
            for turn in turns
        ]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What a template writes around an answer.

    header   before an answer: `<|im_start|>assistant\\n`; `counted` of its last characters are learned too
    opener   what the template's own prompt adds to the header and an answer without reasoning lacks: `<think>\\n`
    added    the part of the header that the template's own prompt lacks
    lead     between the header and an answer without reasoning: `<think>\\n\\n</think>\\n\\n`; `drops` if the template
             leaves it out once another turn follows
    last     after the last answer;  middle: after one that another turn follows
    closing  what to add to a conversation that the template leaves open
    ending   the marks that end an answer: `<|im_end|>`
    """

    header: str
    opener: str
    added: str
    counted: int
    lead: str
    drops: bool
    last: str
    middle: str
    closing: str
    ending: tuple[str, ...]
    folds: bool
    marks: re.Pattern[str]

    def cut(self, prompt: str) -> str:
        """Return the template's own prompt up to where the learned answer begins."""
        at = prompt.rfind(self.header) + len(self.header) if self.header else 0
        if self.header and self.header in prompt and _REASONING.match(prompt, at):
            return prompt[:at]
        return (prompt.removesuffix(self.opener) if self.opener else prompt) + self.added

    def served(self, prompt: str) -> str:
        """Return the template's own prompt as training taught to go on from it, for serving.

        An opener with which every answer without reasoning begins may stay; after another one, what was learned would
        not follow.
        """
        return (prompt.removesuffix(self.opener) if self.opener != self.lead else prompt) + self.added


def format_of(write: Writer) -> ChatFormat:
    """Find out how a template writes conversations. Raise `Unwritable` if it cannot write a question and its answer."""
    marks = _marks(write.tokenizer)
    plain, asked, whole = write([_ASKED]), write([_ASKED], ask=True), write([_ASKED, _ANSWER])
    before, answered, last = whole.partition(str(_ANSWER["content"]))
    if not answered:
        raise Unwritable("it does not write the assistant's turn")
    start = _answer_start(asked, whole, marks)
    header, added = asked[_shared(plain, asked, marks) : start], ""
    lead = before[start:]
    if not header and lead.strip():  # a template without add_generation_prompt
        reasoning = _REASONING.search(lead)
        added = lead[: reasoning.start()] if reasoning else lead
        header, lead = added, lead[len(added) :]
    preceding, middle = _middle(write, before, last)
    drops = bool(lead) and not preceding.endswith(header + lead)
    closing = "" if last.strip() else _next_mark(write.tokenizer, middle, marks)
    ended = closing or _middle_end(last, middle, marks)
    both = last[: _shared(last, ended, marks)]  # Phi-3 ends a conversation by another mark than a turn
    ending = tuple(marks.findall(closing or (both if marks.search(both) else last)))
    if not closing and not all(_is_token(write.tokenizer, mark) for mark in ending or ("",)):
        closing, ending = write.tokenizer.eos_token or "", ()
    counted, folds = _counted(header, whole), _folds(write)
    return ChatFormat(header, asked[start:], added, counted, lead, drops, last, ended, closing, ending, folds, marks)


def own_marks(write: Writer) -> frozenset[str]:
    """Return the special tokens of a tokenizer, and the marks that the template writes around turns.

    Marks of reasoning and of tools' calls are no part of it: an answer may hold them.
    """
    allowed = re.compile(_NO_TURN_MARK)
    known = getattr(write.tokenizer, "added_tokens_decoder", {}).values()
    special = {str(token) for token in known if token.special and str(token).strip()}
    written = re.findall(_TURN_MARK, write([_ASKED, _ANSWER])) if write.source else []
    return frozenset(mark for mark in special.union(written) if not allowed.fullmatch(mark))


def fixed_date(date: datetime) -> str:
    """Return template text that makes `strftime_now` write `date`, to be put before a template.

    A function cannot be passed instead: transformers lets templates see plain values only.
    """
    steps = "".join(f" | replace('%{code}', {date.strftime('%' + code)!r})" for code in _DATE_CODES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n"  # Jinja drops this newline


def folded(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return turns with a leading system turn joined to the first user turn. Raise `Unwritable` if none follows it."""
    if not turns or turns[0]["role"] != "system":
        return tuple(turns)
    if len(turns) < 2 or turns[1]["role"] != "user":
        raise Unwritable("it takes no system turn, and no user turn follows the one to join it to")
    text = "\n\n".join(str(turn["content"]) for turn in turns[:2] if turn.get("content"))
    return ({**turns[1], "content": text}, *turns[2:])


def _answer_start(asked: str, whole: str, marks: re.Pattern[str]) -> int:
    """Return where the answer begins in the prompt that asks for it: its length without what opens reasoning."""
    begin = asked.rfind(str(_ASKED["content"])) + len(str(_ASKED["content"]))
    reasoning = _REASONING.search(asked, begin)
    kept = asked[: reasoning.start()] if reasoning else asked
    return _shared(kept, whole, marks)


def _middle(write: Writer, before: str, last: str) -> tuple[str, str]:
    """Return what stands before an answer that another turn follows, and what stands between the two.

    `before` and `last` if the template writes one answer only.
    """
    try:
        text = write([_ASKED, _ANSWER, _AGAIN, _REPLY])
    except Unwritable:
        return before, last
    before, _, after = text.partition(str(_ANSWER["content"]))
    return before, after.partition(str(_AGAIN["content"]))[0]


def _middle_end(last: str, middle: str, marks: re.Pattern[str]) -> str:
    """Return the part of `middle` that ends the answer; the rest begins the next turn."""
    if last and middle.startswith(last):
        return last
    shared = _shared(last, middle, marks)
    if marks.search(middle[:shared]):
        return middle[:shared]
    found = marks.search(middle) if last.strip() else None  # another mark in place of the last one's
    return middle[: found.end()] if found else ""


def _next_mark(tokenizer: Tokenizer, middle: str, marks: re.Pattern[str]) -> str:
    """Return the token with which the next turn begins: it ends an answer that the template leaves open, as in GLM."""
    found = marks.match(middle)
    return found.group() if found and _is_token(tokenizer, found.group()) else ""


def _folds(write: Writer) -> bool:
    """Whether a system turn is refused or left out."""
    try:
        return str(_SYSTEM["content"]) not in write([_SYSTEM, _ASKED, _ANSWER])
    except Unwritable:
        return True


def _counted(header: str, whole: str) -> int:
    """Return how many of the header's last characters count with the answer, as in TRL's masks."""
    for text in COUNTED:
        if header.endswith(text):
            return len(text)
    text, brand = COUNTED_NEWLINE
    return 1 if header == text and brand in whole else 0


def _shared(one: str, other: str, marks: re.Pattern[str]) -> int:
    """Return the length of the common beginning, without a mark that it would cut."""
    length = common(one, other)
    for text in (one, other):
        for found in marks.finditer(text):
            if found.start() < length < found.end():
                length = found.start()
    return length


def common(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _marks(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Return a pattern for the tokenizer's added tokens, and for what looks like one."""
    added = sorted((text for text in tokenizer.get_added_vocab() if text.strip()), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, added), _MARK]))


def _is_token(tokenizer: Tokenizer, text: str) -> bool:
    return bool(text) and len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


def line_of(error: BaseException) -> int:
    """Return the line of a template at which Jinja failed; 0 if it is unknown."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    if isinstance(line, int):
        return line
    found = 0
    while trace is not None:  # Jinja writes the template's lines into the trace
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's name."""
    return (str(error) or type(error).__name__).splitlines()[0]
