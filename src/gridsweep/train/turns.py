"""Turns of a conversation, in the notations of OpenAI, ShareGPT, Alpaca's history and HelpSteer2's prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Turn

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool", "function_response": "tool",
}  # fmt: skip
"""What chat templates call the roles of other notations."""

READ_BY_TEMPLATES = ("name", "reasoning_content", "thinking", "tool_call_id")
"""Keys of a turn, beside its role, content and tool calls, that chat templates read."""

MARKED = re.compile(r"\n?<extra_id_[01]>(System|User|Assistant)(?:\n|\Z)")
"""The markers between the turns of a multi-turn prompt in HelpSteer and HelpSteer2; the first turn has none."""

MARKER = re.compile(r"<extra_id_[01]>(?:System|User|Assistant)\b")
"""Such a marker where no turn can begin: within an answer, a message or a history."""

TOO_DEEP = "nested too deeply to be read; flatten it"


class Skipped(Exception):
    """A row that holds nothing to learn; the text says why, as it is counted."""


def text_of(value: object, column: str, where: str) -> str:
    """Return a text, which may be a list of parts; blank for None. Raise `SpecError` for anything else."""
    if isinstance(value, list):
        value = "".join(_part(part, column, where) for part in value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SpecError(f"{where}: {column} holds {_kind(value)}{_remedy(value, 'convert the column to text')}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # an emoji cut in two; no tokenizer can read it
            raise Skipped("broken character") from None
    return value


def turns_of(value: object, column: str, where: str) -> list[Turn]:
    """Return the turns in a list of messages, or in a text that holds one as JSON.

    Raise `Skipped` if there are none or one is blank, `SpecError` if the notation is not understood.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except RecursionError:
            raise SpecError(f"{where}: {column} is {TOO_DEEP}") from None
        except ValueError:
            raise SpecError(
                f"{where}: {column} is text but no list of turns in JSON; write it with json.dumps"
            ) from None
    if value is None or value == "":
        raise Skipped("no conversation")
    if not isinstance(value, list):
        what = f"{where}: {column} holds {_kind(value)}"
        raise SpecError(f"{what}{_remedy(value, 'write a list of turns with role and content', 'a list of turns')}")
    return list(_turns(value, column, where))


def _turns(messages: list[object], column: str, where: str) -> Iterator[Turn]:
    for number, message in enumerate(messages, 1):
        place = f"turn {number} of {column}"
        if not isinstance(message, Mapping):
            what = f"{place} is {_kind(message)}, not an object"
            raise SpecError(f'{where}: {what}; write {{"role": "user", "content": ...}}')
        given = next((message[key] for key in ("role", "from") if message.get(key) is not None), None)
        role = ROLES.get(str(given).strip().lower())
        if role is None:
            raise SpecError(f"{where}: {place} has the role {given!r}; use one of {', '.join(ROLES)}")
        raw = next((message[key] for key in ("content", "value") if message.get(key) is not None), None)
        content, calls = text_of(raw, place, where), _calls(message.get("tool_calls"), place, where)
        if not content.strip() and not calls and role in ("user", "assistant"):
            raise Skipped("blank prompt" if role == "user" else "blank response")
        if not content.strip() and role == "system":
            continue
        turn: dict[str, object] = {"role": role, "content": content}
        turn |= {key: message[key] for key in READ_BY_TEMPLATES if message.get(key) is not None}
        if calls:
            turn["tool_calls"] = calls
        if role == "assistant" and message.get("weight") == 0:
            turn["weight"] = 0
        yield turn


def history_of(value: object, column: str, where: str) -> list[Turn]:
    """Return the earlier questions and answers, a list of [question, answer] or of turns, as turns."""
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except RecursionError:
            raise SpecError(f"{where}: {column} is {TOO_DEEP}") from None
        except ValueError:
            raise SpecError(f"{where}: {column} is text but not JSON; write it with json.dumps") from None
    if not isinstance(value, list):
        what, wanted = f"{where}: {column} holds {_kind(value)}", "a list of [question, answer]"
        raise SpecError(f"{what}{_remedy(value, f'write {wanted}', wanted)}")
    if value and all(isinstance(turn, Mapping) for turn in value):
        return turns_of(value, column, where)
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            what = f"a list of {len(pair)}" if isinstance(pair, list) else _kind(pair)
            raise SpecError(f"{where}: item {number} of {column} is {what}, not a pair; write [question, answer]")
    roles = ("user", "assistant")
    said = [(role, text_of(text, column, where)) for pair in value for role, text in zip(roles, pair, strict=True)]
    if any(not text.strip() for _, text in said):
        raise Skipped("blank turn in the history")
    return [{"role": role, "content": text} for role, text in said]


def asked_turns(prompt: str) -> list[Turn]:
    """Return the turns of a prompt: one, or several where it has the markers of HelpSteer2's multi-turn prompts."""
    first, *rest = MARKED.split(prompt) if "<extra_id_" in prompt else [prompt]
    said = [("user", first), *zip((role.lower() for role in rest[::2]), rest[1::2], strict=True)]
    if said[0][1] == "" and len(said) > 1:
        said.pop(0)  # the first turn has a marker too
    if said[-1] == ("assistant", ""):
        said.pop()  # the marker of the answer that follows
    said = [(role, text) for role, text in said if role != "system" or text.strip()]
    if not said or any(not text.strip() for _, text in said):
        raise Skipped("blank prompt")
    return [{"role": role, "content": text} for role, text in said]


def _remedy(value: object, remedy: str, wanted: str = "text") -> str:
    """Return what a message says after the kind of a value that is not `wanted`; a missing one has its own remedy."""
    missing = isinstance(value, float) and value != value
    return "; write null, or remove the row" if missing else f", not {wanted}; {remedy}"


def _part(part: object, column: str, where: str) -> str:
    """Return the text of one part of a content; a bare text may be one of several answers, and is no part."""
    if isinstance(part, Mapping) and isinstance(part.get("text"), str) and part.get("type", "text") == "text":
        return str(part["text"])
    kind = f"a part of type {part.get('type')!r}" if isinstance(part, Mapping) else f"a list of {_kind(part)}"
    raise SpecError(f"{where}: {column} holds {kind}; only a text, or a list of text parts, can be trained on")


def _calls(value: object, column: str, where: str) -> list[object]:
    """Return tool calls as chat templates read them: arguments as an object, keys without a value left out."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except RecursionError:
            raise SpecError(f"{where}: the tool_calls of {column} are {TOO_DEEP}") from None
        except ValueError:
            raise SpecError(
                f"{where}: the tool_calls of {column} are text but not JSON; write them with json.dumps"
            ) from None
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(call, Mapping) for call in value):
        raise SpecError(f"{where}: the tool_calls of {column} are no list of objects; write them as OpenAI does")
    return [_call(call) for call in value]


def _call(call: Mapping[str, object]) -> dict[str, object]:
    told = {key: _without_none(value) for key, value in call.items() if value is not None}
    function = told.get("function", told)
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        with suppress(ValueError):  # a template can write text too
            function["arguments"] = json.loads(function["arguments"])
    return told


def _without_none(value: object) -> object:
    """Return a value without the keys that a table's other rows have and this one has not."""
    if isinstance(value, Mapping):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    """Return what a value is, as a message names it."""
    if isinstance(value, bool):
        return f"a truth value ({str(value).lower()})"
    if isinstance(value, float) and value != value:
        return "NaN, which stands for a missing value"
    if isinstance(value, int | float):
        return f"a number ({value})" if abs(value) < 1e300 else "a number"
    named = {str: "text", list: "a list", dict: "an object", type(None): "nothing"}
    return named.get(type(value), f"a {type(value).__name__}")
