"""Rows as version 0.1.0 read them, for folders that it began: the last answer counts, other rows are left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, asked
from gridsweep.train.data_files import hub_rows, local_path
from gridsweep.train.rows import Row, file_rows

KNOWN = "(prompt, response), (instruction, input, output) or (messages)"


def rows_as_then(id: str, split: str, revision: str | None) -> Iterable[Row]:
    """Return a dataset's rows; `datasets` reads folders, and a file has no splits."""
    path = local_path(id)
    if path is not None and path.is_file():
        return file_rows(path)
    return hub_rows(id if path is None else str(path), split, revision)


def pair_as_then(row: Mapping[str, object], source: str) -> Conversation | None:
    """Return the pair in a row; None if a text is missing or blank. Raise `SpecError` for unknown columns."""
    if "messages" in row:
        return _last_answer(row["messages"])
    if "prompt" in row and "response" in row:
        prompt, response = row["prompt"], row["response"]
    elif "instruction" in row and "output" in row:
        prompt, response = row["instruction"], row["output"]
        if _is_text(prompt) and _is_text(row.get("input")):
            prompt = f"{prompt}\n\n{row['input']}"
    else:
        raise SpecError(f"{source} has the columns {', '.join(row) or 'none'}; one of {KNOWN} is needed")
    return asked(prompt, response) if _is_text(prompt) and _is_text(response) else None


def digest_as_then(pairs: Iterable[Conversation]) -> str:
    """Return the sha256 over the pairs in their order."""
    sha = hashlib.sha256()
    for pair in pairs:
        sha.update(json.dumps([list(map(dict, pair.prompt)), pair.response]).encode())
    return sha.hexdigest()


def _last_answer(messages: object) -> Conversation | None:
    """Return the conversation up to the assistant's last turn, which is the response."""
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        return None
    turns = [{"role": str(turn.get("role")), "content": turn.get("content")} for turn in messages]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    if len(turns) < 2 or not all(_is_text(turn["content"]) for turn in turns):
        return None
    return Conversation(tuple(turns), (len(turns) - 1,))


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())
