"""Measure on this device how many members to put into one pass, and whether to keep dropout masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.packing import Packed, pack, runs

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CLEARLY = 1.03  # a choice must be this many times as fast as the plan's own, because timings are noisy
SHARE = 0.005  # the share of the remaining steps' time that measuring may take


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to split a step, and its speed; `tokens_per_s` counts every member's tokens."""

    members: int
    remember: bool
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All timed choices, and the fastest; empty if not even one member's pass fits the memory."""

    choices: tuple[Choice, ...]

    @property
    def best(self) -> Choice | None:
        return max(self.choices, key=lambda choice: choice.tokens_per_s, default=None)

    def plan(self, plan: Plan) -> Plan:
        """Return `plan` with the fastest choice, unless its own was hardly slower or nothing was timed."""
        own = next((c for c in self.choices if (c.members, c.remember) == (plan.members, plan.remember)), None)
        if self.best is None or (own is not None and self.best.tokens_per_s < CLEARLY * own.tokens_per_s):
            return plan
        return replace(plan, members=self.best.members, remember=self.best.remember)


def measure(
    group: Group, *, sizes: Sequence[int] = SIZES, rounds: int = 5, seconds: float = 50.0, ahead: int | None = None,
    fits: Callable[[Plan], bool] = lambda plan: True, clock: Callable[[], float] | None = None,
) -> Measured:  # fmt: skip
    """Time forward and backward passes of the first samples for portions of these sizes; the group does not change.

    The plan's own choice comes first, then the others from the least memory to the most. A choice is not started if
    its two passes would exceed `seconds` of wall clock, or `SHARE` of the time of `ahead` steps. Each choice warms up
    once. Then follow rounds over all choices, so that other load on the machine affects them equally: one round, and
    up to `rounds` if time allows. `fits` says which plans fit the memory; a choice that runs out of memory anyway is
    left out, with all that need more. `clock` is the process's CPU time on a CPU, else the wall clock.
    """
    clock = clock or (time.process_time if group.device.type == "cpu" else time.perf_counter)
    batch = group.batch(0)
    packed = pack(runs(batch, group.plan.tokens)[0], group.device)
    left = [(n, kept) for n, kept in _choices(group, sizes) if fits(replace(group.plan, members=n, remember=kept))]
    times: dict[tuple[int, bool], list[float]] = {}
    before, begun = group.plan, time.monotonic()
    round_s = 0.0  # of all choices in `times`
    try:
        while left:
            members, kept = choice = left.pop(0)
            start = time.monotonic()
            if times:  # one more member in a pass costs about as much as each of the others
                each = round_s / sum(n for n, _ in times)
                if ahead is not None:
                    whole = each * ahead * len(group.members) * sum(len(s.ids) for s in batch) / packed.tokens
                    seconds = min(seconds, SHARE * whole)
                if start - begun + round_s + 2 * members * each > seconds:
                    break
            if _once(group, replace(before, members=members, remember=kept), packed, clock) is None:
                left = [(n, other) for n, other in left if n < members or (kept and not other)]
                continue
            times[choice] = []
            round_s += time.monotonic() - start
        for round_ in range(rounds):
            if round_ and time.monotonic() - begun + round_s > seconds:
                break
            for (members, kept), took in list(times.items()):
                again = _once(group, replace(before, members=members, remember=kept), packed, clock)
                if again is None:  # the warm-up only just fitted the memory
                    del times[members, kept]
                else:
                    took.append(again)
    finally:
        group.plan = before
    return Measured(
        tuple(Choice(n, kept, n * packed.tokens / median(took)) for (n, kept), took in times.items() if took)
    )


def _choices(group: Group, sizes: Sequence[int]) -> list[tuple[int, bool]]:
    """Return the (members, whether masks are kept) to measure, in order."""
    dropping = any(part.params.dropout for part in group.roster.parts.values())
    masks = (False, True) if dropping else (True,)
    found = [(n, kept) for n in sorted(sizes) if n <= min(group.lean.most or n, len(group.members)) for kept in masks]
    own = (min(group.plan.members, len(group.members)), group.plan.remember or not dropping)
    return sorted(found, key=lambda choice: choice != own)


def _once(group: Group, plan: Plan, packed: Packed, clock: Callable[[], float]) -> float | None:
    """Return the seconds of one pass; None if memory is too small."""
    group.plan = plan
    names = group.members[: plan.members]
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
