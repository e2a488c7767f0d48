"""What a sweep takes as constant: the data as read, the base, the tokenizer, and how text becomes tokens."""

from __future__ import annotations

from collections.abc import Mapping

from gridsweep.errors import SpecError

ENCODING = 2
"""The version of the encoding that new sweeps use: which turns of a row are learned, and what ends an answer.

Version 1 learned the last answer of a row, after the template's prompt, up to the tokenizer's `eos_token`.
"""

COMMITS = {"model commit": "model", "data commit": "dataset"}
"""Constants that pin a revision of the hub: what is loaded from then on is that commit."""

_REMEDIES = {
    "training data": "restore the data",
    "model commit": "name this commit in model.revision",
    "data commit": "name this commit in dataset.revision",
    "dtype": "train on devices that compute in one data type",
}
RESTORE = "restore the files of the model"
AGAIN = "start a new sweep with --folder"


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what is known on both sides and differs, one line each: the thing, before and after."""
    names = [name for name in before if name in now and before[name] != now[name]]
    return [f"the {name} was {_short(before[name])} and is now {_short(now[name])}" for name in names]


def check_constant(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise `SpecError` if anything differs from what the sweep began with."""
    if found := differences(before, now):
        first = next(name for name in before if name in now and before[name] != now[name])
        raise SpecError(
            f"what the sweep takes as constant has changed: {', '.join(found)}",
            remedy=f"{_REMEDIES.get(first, RESTORE)}, or {AGAIN}: results of both would not be comparable",
        )


def _short(value: str) -> str:
    """Return a digest by its first 12 digits; other values as they are."""
    is_digest = len(value) == 64 and all(digit in "0123456789abcdef" for digit in value)
    return value[:12] if is_digest else value
