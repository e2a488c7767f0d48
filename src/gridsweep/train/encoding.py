"""Conversations as token ids, and which of them are learned.

Version 1 is in `first_encoding`. In version 2 the chat template writes the whole conversation; learned are the answers
with the end that the template gives them, equal to TRL's `assistant_only_loss` masks. A model without a template gets
the instruction format of `plain_format`, and a plain text is learned whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.train.chat_format import Unwritable, common
from gridsweep.train.conversations import Conversation, Turn, by_row
from gridsweep.train.first_encoding import encode_first
from gridsweep.train.plain_format import Piece, end_of_text, instruction_pieces, text_pieces
from gridsweep.train.samples import Encoded, Sample
from gridsweep.train.spans import Span, Written, written
from gridsweep.train.wording import NEWEST, Wording

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Tokenizer

AT_A_TIME = 1000  # conversations tokenized in one call: their offsets take memory

Tokens = tuple[list[int], list[Span]]
"""A conversation's token ids, and the half-open spans of its learned positions."""


@dataclass(slots=True)
class _Count:
    folded: int = 0
    altered: int = 0
    endless: int = 0
    marked: int = 0
    first: dict[str, str] = field(default_factory=dict)

    def note(self, what: str, row: str) -> None:
        """Keep the first row of a kind; samples are shuffled."""
        if row:
            self.first[what] = min(row, self.first.get(what, row), key=by_row)


def encode(
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    max_length: int,
    *,
    encoding: int = NEWEST,
    date: datetime | None = None,
    template: str | None = None,
) -> Encoded:
    """Tokenize conversations and find their learned tokens.

    A conversation longer than `max_length` tokens is cut at its end, and dropped if no learned token is left. Raise
    `SpecError` with the conversation's row if the template refuses it.
    """
    wording = Wording(tokenizer, encoding, date, template)
    if encoding == 1:
        return encode_first(tokenizer, conversations, max_length)
    samples, truncated, dropped, count = [], 0, 0, _Count()
    for ids, spans in _tokens(wording, conversations, count):
        sample = _sample(ids[:max_length], spans)
        if not sample.counted:
            dropped += 1
            continue
        truncated += len(ids) > max_length
        samples.append(sample)
    facts = _facts(wording, conversations, count.endless)
    return Encoded(samples, truncated, dropped, facts, count.folded, count.altered, count.marked, count.first)


def _sample(ids: Sequence[int], spans: Sequence[Span]) -> Sample:
    """Return a sample that learns the spans; what lies between them is context, and what follows them is left out."""
    kept = [(begin, min(end, len(ids))) for begin, end in spans if begin < min(end, len(ids))]
    if not kept:
        return Sample(tuple(ids), len(ids))
    gaps = ((end, begin) for (_, end), (begin, _) in pairwise(kept) if end < begin)
    return Sample(tuple(ids[: kept[-1][1]]), kept[0][0], tuple(gaps))


def _tokens(wording: Wording, conversations: Sequence[Conversation], count: _Count) -> Iterator[Tokens]:
    """Yield the tokens of each conversation, in order."""
    for begin in range(0, len(conversations), AT_A_TIME):
        made: list[Written | Tokens] = []
        for at, conversation in enumerate(conversations[begin : begin + AT_A_TIME], begin + 1):
            try:
                made.append(_made(wording, conversation, count))
            except Unwritable as error:
                named = f"{conversation.where}: " if conversation.where else ""
                sample = "this row" if named else f"sample {at}"
                raise SpecError(
                    f"{named}the chat template refuses {sample} ({_opening(conversation)}): {error}; correct it, or "
                    "name another template as model.chat_template"
                ) from None
        whole = iter(_tokenized(wording.tokenizer, [one for one in made if isinstance(one, Written)]))
        yield from (next(whole) if isinstance(one, Written) else one for one in made)


def _made(wording: Wording, conversation: Conversation, count: _Count) -> Written | Tokens:
    """Return one conversation as text with its learned spans, or as tokens where no template writes it."""
    if not conversation.turns:
        return _joined(text_pieces(wording.tokenizer, conversation.text))
    if mark := wording.mark_in(conversation.turns[: conversation.answers[-1] + 1]):
        count.marked += 1
        count.note("marked", conversation.where and f"{conversation.where}, {mark!r}")
    if wording.form is None:
        return _joined(instruction_pieces(wording.tokenizer, conversation))
    turns = wording.turns(conversation.turns)
    joined = len(conversation.turns) - len(turns)
    count.folded += joined
    if joined:
        count.note("folded", conversation.where)
    answers = [at - joined for at in conversation.answers]
    if wording.write.marked:
        ids, spans = _marked(wording, turns[: answers[-1] + 1], answers)
        count.endless += bool(spans) and wording.ends.isdisjoint(ids[slice(*spans[-1])])
        return ids, spans
    one = written(wording.write, wording.form, turns, answers)
    count.altered += one.altered
    if one.altered:
        count.note("altered", conversation.where)
    return one


def _joined(pieces: Sequence[Piece]) -> Tokens:
    ids: list[int] = []
    spans = []
    for piece, learned in pieces:
        spans += [(len(ids), len(ids) + len(piece))] if learned else []
        ids += piece
    return ids, spans


def _tokenized(tokenizer: Tokenizer, texts: Sequence[Written]) -> Iterator[Tokens]:
    """Tokenize whole texts; a token that touches a learned span is learned, as in TRL's masks."""
    if not texts:
        return
    if not tokenizer.is_fast:  # such a tokenizer knows no offsets
        for text in texts:
            edges = [0, *(edge for span in text.spans for edge in span)]
            parts = [text.text[a:b] for a, b in pairwise(edges)]
            told = [list(tokenizer(part, add_special_tokens=False)["input_ids"]) if part else [] for part in parts]
            yield _joined([(part, at % 2 == 1) for at, part in enumerate(told)])
        return
    found = tokenizer([text.text for text in texts], add_special_tokens=False, return_offsets_mapping=True)
    for text, ids, offsets in zip(texts, found["input_ids"], found["offset_mapping"], strict=True):
        yield ids, _positions(text.spans, offsets)


def _positions(spans: Sequence[Span], offsets: Sequence[Span]) -> list[Span]:
    """Return spans of characters as spans of tokens; offsets never decrease, and those of spaces can be empty."""
    found: list[Span] = []
    for begin, end in spans:
        first = next((at for at, (_, stop) in enumerate(offsets) if stop > begin), len(offsets))
        last = next((at for at, (start, _) in enumerate(offsets[first:], first) if start >= end), len(offsets))
        found.append((max(first, found[-1][1]) if found else first, last))
    return found


def _marked(wording: Wording, turns: Sequence[Turn], answers: Sequence[int]) -> Tokens:
    """Return the tokens of a conversation whose template marks what the assistant writes."""
    write = wording.write
    out = write.with_mask(turns)
    ids, mask, offsets = list(out["input_ids"]), list(out["assistant_masks"]), out["offset_mapping"]
    if sum(turn["role"] == "assistant" for turn in turns) > len(answers):
        text, kept = write(turns), [0] * len(mask)
        for at in answers:
            begin = common(write(turns[:at]), text)
            end = common(write(turns[: at + 1]), text) if at + 1 < len(turns) else len(text)
            for place, (start, _) in enumerate(offsets):
                kept[place] |= mask[place] and begin <= start < end
        mask = kept
    spans, place = [], 0
    for learned, run in groupby(mask):
        length = len(list(run))
        spans += [(place, place + length)] if learned else []
        place += length
    return ids, spans


def _facts(wording: Wording, conversations: Sequence[Conversation], endless: int) -> dict[str, str]:
    """Return how the conversations are written, for the report; `endless` counts those without a learned end."""
    if not any(conversation.turns for conversation in conversations):
        return {"prompt_template": "none: plain texts"}
    if wording.form is None:
        eos = wording.tokenizer.decode([end_of_text(wording.tokenizer)])
        return {"prompt_template": "### Instruction/Response", "answers_end_with": eos}
    facts = {
        "prompt_template": "chat template" if wording.template is None else "model.chat_template",
        "answers_end_with": wording.tokenizer.decode(sorted(wording.ends)),
    }
    if endless:
        end, share = facts["answers_end_with"], f"{endless} of {len(conversations)} samples"
        facts["answers_end_with"] = f"nothing in {share}: the template's generation marks leave out {end}"
        facts["unended"] = f"the model does not learn to end an answer in {share}"
    if wording.write.dated:
        facts["template_date"] = f"{wording.date:%Y-%m-%d}" if wording.date else "the day of the encoding"
    return facts


def _opening(conversation: Conversation) -> str:
    """Return the beginning of the first question, by which a row is found."""
    asked = next((turn.get("content") for turn in conversation.turns if turn["role"] == "user"), None)
    return repr(str(asked or "")[:40])
