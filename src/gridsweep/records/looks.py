"""The answer of a look at a sweep's data and model before anything waits: the protocol of `gridsweep.train.look`."""

from __future__ import annotations

from dataclasses import dataclass, field

TOLD_BY_THE_FIRST = ("training data", "tokenizer", "chat template", "encoded samples")
"""The constants that the first attempt tells if no look could."""

HERE, ELSEWHERE = "look", "look elsewhere"
"""The attempt that a look is said to be of, on the machine that trains or on another, whose memory says nothing."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an encoded sample as text; `learned` if its tokens are in the loss."""

    text: str
    learned: bool


@dataclass(frozen=True, slots=True)
class Look:
    """What could be seen of a sweep's data and model without training.

    `constants` are digests by name; `unseen` says what could not be looked at, and why. `facts` are lines to print, by
    name. `first` is the first training sample. `error` is set if a worker would refuse the sweep, `unreachable` if the
    hub could not be reached. `warnings` are faults of the data that do not stop the sweep.
    """

    constants: dict[str, str] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    first: tuple[Piece, ...] = ()
    error: str = ""
    unreachable: str = ""
    warnings: tuple[str, ...] = ()
    schema_version: int = 1
