"""Where the learned answers stand in a conversation as its template writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gridsweep.train.chat_format import ChatFormat, Unwritable, Writer, common
from gridsweep.train.conversations import Turn

_OTHER = "\ue000Sq6other\ue001"  # begins and ends unlike any answer, so that a comparison stops at the answer's ends

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation as text, the half-open spans of its learned answers, and how many lack their content verbatim."""

    text: str
    spans: tuple[Span, ...]
    altered: int


def written(write: Writer, form: ChatFormat, turns: Sequence[Turn], answers: Sequence[int]) -> Written:
    """Return a conversation up to its last learned answer, and where the answers stand, their ends included.

    A learned answer before the last is written as if it were the last where the template would leave out its lead:
    Qwen3 writes `<think>\\n\\n</think>\\n\\n` before the last answer only, and answers learn to begin with it.
    Raise `Unwritable` if the template refuses the turns, or rewrites an earlier answer beyond recognition.
    """
    turns = turns[: answers[-1] + 1]
    text, spans, altered = write(turns), [], 0
    whole, shift = text, 0
    for at in answers:
        (start, end), lead = _place(write, form, turns, at, whole)
        if lead:
            text = text[: start + shift] + lead + text[start + shift :]
        header = form.header[len(form.header) - form.counted :]
        counted = form.counted if whole[:start].endswith(header) else 0
        spans.append((start + shift - counted, end + shift + len(lead)))
        shift += len(lead)
        altered += str(turns[at].get("content") or "").strip() not in text[slice(*spans[-1])]
    if form.closing and not text.endswith(form.closing):
        text += form.closing
    spans[-1] = (spans[-1][0], len(text))
    if any(a[1] > b[0] for a, b in pairwise(spans)):
        raise Unwritable("it writes earlier answers otherwise once a turn follows; set train_on: last_answer")
    return Written(text, tuple(spans), altered)


def _place(write: Writer, form: ChatFormat, turns: Sequence[Turn], at: int, whole: str) -> tuple[Span, str]:
    """Return the span of one answer in the whole conversation, and the lead to insert at its start."""
    prompt = form.cut(write(turns[:at], ask=True)) if at else ""  # no template writes a conversation without turns
    start = len(prompt) if at and whole.startswith(prompt) else None
    if at == len(turns) - 1:
        return (_start(write, form, turns, at, whole) if start is None else start, len(whole)), ""
    until = write(turns[: at + 1])
    if start is not None and (end := _end_by_prefix(form, until, whole)) > start:
        return (start, end), ""
    if start is None:
        start = _start(write, form, turns, at, whole)
    body, end = _after_mark(form, whole, len(whole) - _common_end(whole, _with_other(write, turns, at)))
    following = turns[at + 1].get("content")
    if following and end > common(whole, _with_other(write, turns, at + 1)):
        raise Unwritable("it ends an earlier answer in another way; set train_on: last_answer")
    return (start, end), _missing_lead(form, prompt, until, whole[start:body])


def _end_by_prefix(form: ChatFormat, until: str, whole: str) -> int:
    """Return where an answer ends, by the conversation that ends with it; 0 if the whole begins otherwise."""
    if form.last.strip() and whole.startswith(until):
        return len(until)
    body = len(until) - len(form.last)
    if not until.endswith(form.last) or not whole.startswith(until[:body]):
        return 0
    return _after_mark(form, whole, body)[1]


def _after_mark(form: ChatFormat, whole: str, body: int) -> Span:
    """Return where the end of an answer begins and ends; the answer's text ends at `body`, or calls of tools follow."""
    if whole.startswith(form.middle, body):
        return body, body + len(form.middle)
    if form.closing and (found := form.marks.search(whole, body)):
        return found.span()  # another turn's mark than a user's, such as a tool's
    after = whole.find(form.middle, body)
    if after < 0:
        raise Unwritable("it ends an earlier answer in another way; set train_on: last_answer")
    return after, after + len(form.middle)


def _start(write: Writer, form: ChatFormat, turns: Sequence[Turn], at: int, whole: str) -> int:
    """Return where an answer begins, by changing its content; for templates that change what stands before."""
    before = whole[: common(whole, _with_other(write, turns, at))]
    asked = str(turns[at - 1].get("content") or "").strip() if at else ""
    begin = before.rfind(form.header) + len(form.header)
    if form.header in before and (not asked or asked not in before[begin:]) and form.header:
        return begin
    return len(before.removesuffix(form.lead))


def _missing_lead(form: ChatFormat, prompt: str, until: str, body: str) -> str:
    """Return what the template writes at the beginning of an answer only while it is the last."""
    if not form.drops or not until.endswith(form.last):
        return ""
    begin, end = len(prompt), len(until) - len(form.last)
    if not prompt or not until.startswith(prompt):  # it begins, or follows another answer that is written otherwise
        header = until.rfind(form.header, 0, end)
        if header < 0:
            return ""
        begin = header + len(form.header)
    alone = until[begin:end]
    return alone[: len(alone) - len(body)] if alone.endswith(body) else ""


def _with_other(write: Writer, turns: Sequence[Turn], at: int) -> str:
    return write([*turns[:at], {**turns[at], "content": _OTHER}, *turns[at + 1 :]])


def _common_end(one: str, other: str) -> int:
    return common(one[::-1], other[::-1])
