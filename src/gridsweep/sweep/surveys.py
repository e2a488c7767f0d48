"""What is known of model, data and device before a sweep is designed: the answer of `gridsweep.train.survey`."""

from __future__ import annotations

from dataclasses import dataclass

PERCENTILES = 101
"""How many token lengths describe the data: the shortest, each percentile, the longest."""
ASKED = 2**24
"""The length that a survey encodes to, in tokens: longer than any sample, so that nothing is cut."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A base model by its configuration: parameters, hidden width, and the longest context in tokens (None: unknown).

    `per_rank` is the number of adapter weights of rank 1 on `target_modules`. `lean` says whether members train in
    packs; `trainer` tells how in words.
    """

    architecture: str
    parameters: int
    hidden: int
    context: int | None
    per_rank: int
    target_modules: tuple[str, ...]
    lean: bool
    trainer: str


@dataclass(frozen=True, slots=True)
class DataFacts:
    """The usable samples. `lengths` are 101 percentiles of tokens a sample, uncut; `learned` is the share in the loss.

    Without `own` validation samples, `validation` are part of the same rows. `counted` says how the number of samples
    is known: all were read, or the hub tells it.
    """

    train: int
    validation: int
    own: bool
    lengths: tuple[int, ...]
    learned: float
    counted: str

    def cut_to(self, length: int) -> float:
        """Return the mean number of tokens of a sample that is cut to `length`."""
        return sum(min(one, length) for one in self.lengths) / len(self.lengths)

    def longer(self, length: int) -> float:
        """Return about which share of the samples is longer than `length` tokens."""
        return sum(one > length for one in self.lengths) / len(self.lengths)


@dataclass(frozen=True, slots=True)
class Speed:
    """What `gridsweep doctor --train` measured: tokens a second of this many members together, all of them counted."""

    members: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device at hand: `kind` is cpu or cuda, `memory` is in bytes, `power_w` a GPU's limit (None: unknown).

    `speeds` are kept measurements of this model on this device, with their instant in `measured_at`.
    """

    name: str
    kind: str
    count: int
    memory: float
    power_w: float | None
    speeds: tuple[Speed, ...] = ()
    measured_at: str = ""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """The memory model in bytes: the base, an adapter of rank 1, logits of one member, and a token by its rank.

    A token keeps `token[0] + token[1] * r` bytes for the backward pass. `headroom` is the share that stays free.
    """

    base: int
    adapter: int
    logits: int
    token: tuple[float, float]
    headroom: float

    def fits(self, memory: float, r: int, tokens: int) -> int:
        """Return how many adapters of rank `r` fit `memory` bytes beside the base and one member's pass."""
        keeps = tokens * (self.token[0] + self.token[1] * r) + self.logits
        return max(0, int((memory * (1 - self.headroom) - self.base - keeps) // (self.adapter * r)))


@dataclass(frozen=True, slots=True)
class Survey:
    """All that a survey found; with `error` or `unreachable` the rest is missing. `unseen` says what it cannot know."""

    model: ModelFacts | None = None
    data: DataFacts | None = None
    device: DeviceFacts | None = None
    memory: MemoryFacts | None = None
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""
    unreachable: str = ""
