"""How many members to take into one pass, and whether to keep dropout's masks: tried out on the device at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.packing import Packed, pack, runs

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to cut up a step, and how fast it was; `tokens_per_s` counts every member's tokens."""

    members: int
    remember: bool
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was tried, and the fastest."""

    choices: tuple[Choice, ...]

    @property
    def best(self) -> Choice:
        return max(self.choices, key=lambda choice: choice.tokens_per_s)

    def plan(self, plan: Plan) -> Plan:
        """`plan` with the fastest choice in it."""
        return replace(plan, members=self.best.members, remember=self.best.remember)


def measure(
    group: Group, *, sizes: Sequence[int] = SIZES, rounds: int = 5, seconds: float = 50.0,
    clock: Callable[[], float] | None = None,
) -> Measured:  # fmt: skip
    """Time forward and backward passes of the first samples for portions of these sizes; leaves the group as it was.

    In rounds over all choices, so that another load on the machine meets them alike, until `seconds` of wall clock are
    over but at least once. What half of them does not suffice to warm up is left out. `clock` is the process's CPU time
    on a CPU, else the wall clock. A size that does not fit the memory is left out, with all above it.
    """
    clock = clock or (time.process_time if group.device.type == "cpu" else time.perf_counter)
    packed = pack(runs(group.batch(0), group.plan.tokens)[0], group.device)
    dropping = any(part.params.dropout for part in group.roster.parts.values())
    choices = [(n, kept) for n in sizes if n <= len(group.members) for kept in ((True, False) if dropping else (True,))]
    times: dict[tuple[int, bool], list[float]] = {choice: [] for choice in choices}
    before, begun = group.plan, time.monotonic()
    try:
        for round_ in range(rounds + 1):
            for choice in list(times):
                gone = time.monotonic() - begun
                if round_ > 1 and gone > seconds:
                    break
                if round_ == 0 and gone > seconds / 2 and choice != choices[0]:
                    times = {other: times[other] for other in choices[: choices.index(choice)]}
                    break
                took = _once(group, replace(before, members=choice[0], remember=choice[1]), packed, clock)
                if took is None:
                    times = {other: took for other, took in times.items() if other[0] < choice[0]}
                    break
                if round_:  # the first round warms up
                    times[choice].append(took)
    finally:
        group.plan = before
    return Measured(
        tuple(Choice(n, kept, n * packed.tokens / median(took)) for (n, kept), took in times.items() if took)
    )


def _once(group: Group, plan: Plan, packed: Packed, clock: Callable[[], float]) -> float | None:
    """The seconds of one pass; None where memory is too small."""
    group.plan = plan
    names = group.roster.portions(plan.members)[0]
    _synchronize(group.device)
    start = clock()
    try:
        group.forward_backward(names, packed, 0, max(1, len(packed.targets)))
        _synchronize(group.device)
    except torch.OutOfMemoryError:
        return None
    return clock() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
