"""Pairs of prompt and response, read from the column layouts that are supported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeGuard

from gridsweep.errors import SpecError
from gridsweep.train.conversations import Conversation, asked

KNOWN = "(prompt, response), (instruction, input, output) or (messages)"


def pair_of(row: Mapping[str, object], source: str) -> Conversation | None:
    """Return the pair in a row; None if a text is missing or blank. Raise `SpecError` for unknown columns.

    HelpSteer2 has the columns (prompt, response) and five scores; as in the published sweep, every pair counts,
    regardless of its scores.
    """
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


def json_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a .jsonl file (one object per line) or a .json file (a list). Raise `SpecError` if invalid."""
    with path.open(encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _object(line, f"{path}, line {number}")
            return
        try:
            rows = json.load(file)
        except ValueError as error:
            raise SpecError(
                f"{path} is not JSON ({error}); mend it, or name it .jsonl if it has an object a line"
            ) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(f"{path} does not hold a list of objects")
    yield from rows


def hub_rows(id: str, split: str, revision: str | None) -> Iterable[Mapping[str, object]]:
    """Return the rows of a Hugging Face dataset, or of a folder of data files. Never runs a dataset's own code."""
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, object]] = load_dataset(id, split=split, revision=revision)
    except Exception as error:  # any error of the hub, the network or the format
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"the dataset {id} ({split}) cannot be loaded: {cause}; check the id, the split and the network, "
            "or give a local .jsonl file"
        ) from error
    return rows


def _object(line: str, where: str) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SpecError(f"{where} is not JSON: {error}; mend or remove the line") from None
    if not isinstance(row, dict):
        raise SpecError(f'{where} is not an object such as {{"prompt": ..., "response": ...}}')
    return row


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())
