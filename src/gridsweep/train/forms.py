"""Forms of rows: which columns hold the prompt, the response, or the whole conversation (docs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Literal, NamedTuple

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Columns
from gridsweep.train.conversations import Conversation, Turn
from gridsweep.train.turns import MARKER, Skipped, asked_turns, history_of, text_of, turns_of

CHATS = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "instruction", "question", "query", "input")
RESPONSES = ("response", "completion", "output", "answer")
CONTEXTS = ("input", "context")
SYSTEMS = ("system", "system_prompt")

ACCEPTED = (
    "messages or conversations; a prompt (prompt, instruction, question, query) with a response (response, completion, "
    "output, answer); or text"
)

TrainOn = Literal["all_answers", "last_answer"]


class Read(NamedTuple):
    """A row's conversation, the form it has, and the columns that were read."""

    conversation: Conversation
    form: str
    used: tuple[str, ...]


def read_row(where: str, values: Mapping[str, object], columns: Columns | None, train_on: TrainOn) -> Read:
    """Return what a row holds, by the columns given or else by their names in lower case (`by_name`).

    Raise `Skipped` if there is nothing to learn in it, `SpecError` if its columns or values are not understood.
    """
    chosen = _chosen(values, where) if columns is None else columns
    if chosen.messages is not None:
        conversation = _chat(where, values, chosen)
    elif chosen.text is not None:
        conversation = _text(where, values, chosen.text)
    else:
        conversation = _answered(where, values, chosen)
    if train_on == "last_answer":
        conversation = Conversation(conversation.turns, conversation.answers[-1:], conversation.text)
    if any("<extra_id_" in str(turn["content"]) and MARKER.search(turn["content"]) for turn in conversation.turns):
        raise Skipped("turn marker within a turn")
    main = (chosen.messages or chosen.text,) if chosen.prompt is None else (chosen.prompt, chosen.response)
    return Read(conversation, ", ".join(map(str, main)), named_columns(chosen))


def by_name(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return a row's values by their columns' names in lower case; of columns that are equal then, the filled one."""
    if all(name == name.lower().strip() for name in values):
        return values
    found: dict[str, object] = {}
    for name, value in values.items():
        plain = name.lower().strip()
        if plain not in found or found[plain] in (None, ""):
            found[plain] = value
    return found


def refuse_alike(where: str, values: Mapping[str, object], used: Sequence[str]) -> None:
    """Raise `SpecError` if a column that was read has a namesake with a value of its own, but for upper case."""
    if len(by_name(values)) == len(values):
        return
    for read in used:
        alike = [n for n, value in values.items() if n.lower().strip() == read and value not in (None, "")]
        if len(alike) > 1:
            key = "text" if read == "text" else "messages" if read in CHATS else "prompt: ..., response"
            raise SpecError(
                f"{where}: the columns {' and '.join(map(repr, alike))} differ only in case or spaces; "
                f"name one with dataset.columns: {{{key}: ...}}, or rename one"
            )


def is_row(values: Mapping[str, object], *, text: bool = True) -> bool:
    """Whether an object is a row by its columns: a conversation, a prompt with a response, or with `text` a text."""
    if set(CHATS) & values.keys():
        return True
    named = by_name(values)
    chosen = _pick(tuple(named), frozenset(name for name, value in named.items() if value not in (None, "")))
    if not isinstance(chosen, Columns):
        return False
    if chosen.messages is not None:
        return True
    if chosen.text is not None and not text:
        return False
    main = (chosen.text,) if chosen.prompt is None else (chosen.prompt, chosen.response)
    return all(isinstance(named[name], str) or _is_chat(named[name]) for name in main if name is not None)


@lru_cache(maxsize=1000)
def named_columns(columns: Columns) -> tuple[str, ...]:
    """Return the columns that are read, by their names in the dataset."""
    return tuple(column for column in asdict(columns).values() if column is not None)


@lru_cache(maxsize=1000)
def _pick(there: tuple[str, ...], filled: frozenset[str]) -> Columns | str:
    """Return what the columns of a row hold, or what is wrong with them."""

    def one_of(names: tuple[str, ...], what: str) -> str | None:
        found = [name for name in names if name in filled]
        if len(found) > 1:
            raise LookupError(f"{' and '.join(found)} could each be the {what}")
        return next(iter(found), next((name for name in names if name in there), None))

    try:
        system = one_of(SYSTEMS, "system turn")
        chat = next((name for name in CHATS if name in filled), None)
        if chat is not None:
            return Columns(messages=chat, system=system)
        prompts = tuple(name for name in PROMPTS if name != "input" or not set(PROMPTS[:-1]) & set(there))
        prompt, response = one_of(prompts, "prompt"), one_of(RESPONSES, "response")
        if prompt is not None and response is not None:
            context = one_of(tuple(name for name in CONTEXTS if name != prompt), "context")
            if prompt == "prompt" and context in filled:
                raise LookupError(f"{context} could belong to the prompt or not")
            history = "history" if "history" in there else None
            return Columns(prompt, response, context if prompt != "prompt" else None, system, history)
    except LookupError as error:
        return str(error.args[0])
    chat = next((name for name in CHATS if name in there), None)
    if chat is not None:
        return Columns(messages=chat, system=system)
    return Columns(text="text") if "text" in there else f"one of these is needed: {ACCEPTED}"


def _chosen(values: Mapping[str, object], where: str) -> Columns:
    there = tuple(values)
    chosen = _pick(there, frozenset(name for name, value in values.items() if value not in (None, "")))
    if isinstance(chosen, Columns):
        return chosen
    pair = "columns: {messages: chosen}" if "chosen" in there else "columns: {prompt: ..., response: ...}"
    names = ", ".join(there) or "none"
    raise SpecError(f"{where}: the columns are {names}; {chosen}; name yours with dataset.{pair}")


def _chat(where: str, values: Mapping[str, object], columns: Columns) -> Conversation:
    assert columns.messages is not None
    turns = turns_of(values.get(columns.messages), columns.messages, where)
    system = _system(where, values, columns)
    if system and turns and turns[0]["role"] == "system" and turns[0]["content"] != system[0]["content"]:
        raise SpecError(
            f"{where}: {columns.system} and the first turn are two system turns; name the columns that count, "
            f"such as dataset.columns: {{messages: {columns.messages}}}"
        )
    return _learned(system + turns if not (turns and turns[0]["role"] == "system") else turns, 0)


def _answered(where: str, values: Mapping[str, object], columns: Columns) -> Conversation:
    """Return a prompt and its response; the answers within the prompt and its history are context."""
    assert columns.prompt is not None and columns.response is not None
    before = _system(where, values, columns)
    if columns.history is not None:
        before += history_of(values.get(columns.history), columns.history, where)
    prompt, response = values.get(columns.prompt), values.get(columns.response)
    if _is_chat(prompt):
        before += turns_of(prompt, columns.prompt, where)
        more = _context(where, values, columns)
        if more:
            raise SpecError(
                f"{where}: {columns.context} beside a list of turns is not understood; name dataset.columns"
            )
    else:
        asking = text_of(prompt, columns.prompt, where), _context(where, values, columns)
        before += asked_turns("\n\n".join(text for text in asking if text.strip()))
    if _is_chat(response):
        return _learned(before + turns_of(response, columns.response, where), len(before))
    answer = text_of(response, columns.response, where)
    if not answer.strip():
        raise Skipped("blank response")
    return _learned([*before, {"role": "assistant", "content": answer}], len(before))


def _context(where: str, values: Mapping[str, object], columns: Columns) -> str:
    return "" if columns.context is None else text_of(values.get(columns.context), columns.context, where)


def _system(where: str, values: Mapping[str, object], columns: Columns) -> list[Turn]:
    if columns.system is None:
        return []
    text = text_of(values.get(columns.system), columns.system, where)
    return [{"role": "system", "content": text}] if text.strip() else []


def _text(where: str, values: Mapping[str, object], column: str) -> Conversation:
    text = text_of(values.get(column), column, where)
    if not text.strip():
        raise Skipped("blank text")
    return Conversation((), (), text)


def _is_chat(value: object) -> bool:
    """Whether a prompt or response is a list of turns rather than a text or a list of a text's parts."""
    return isinstance(value, list) and any(
        isinstance(part, Mapping) and ({"role", "from"} & part.keys()) for part in value
    )


def _learned(turns: list[Turn], first: int) -> Conversation:
    """Return a conversation whose answers from position `first` on are learned, without turns after the last."""
    answers = [n for n, turn in enumerate(turns) if n >= first and turn["role"] == "assistant" and "weight" not in turn]
    if not answers:
        raise Skipped("no answer")
    if answers[-1] == 0:
        raise Skipped("no prompt")
    kept = ({key: value for key, value in turn.items() if key != "weight"} for turn in turns[: answers[-1] + 1])
    return Conversation(tuple(kept), tuple(answers))
