"""The plan that memory allows: what passes together, what is kept, and where adapters wait, by the model of memory.

Given up first is what costs least time: dropout's masks, which a few integer operations make again; then members in a
pass, down to one, for a pass over a whole step's tokens fills a device by itself; then tokens, in halves down to the
longest sample, for small passes starve it. Last of all adapters and optimizer states go to the host's memory: every
pass then copies weights in and gradients out, and the host's processor makes the optimizer's steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gridsweep.errors import SpecError
from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint
from gridsweep.train.lean.group import Plan

CPU_TOKENS = 512
"""In a pass on a CPU, where fewer stay in its caches. A constant: it decides about rounding, so memory may not."""
MEMBERS = {"cpu": 4, "cuda": 8}
"""In a pass, before anything was timed: on a CPU more gain nothing."""
GB = 1e9


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be trained: every member's rank, in the passes' order, and how many tokens samples have.

    `step` are those of the largest optimizer step there may be, `longest` those of one sample. `drops` says that there
    is dropout, whose masks can be kept.
    """

    ranks: tuple[int, ...]
    step: int
    longest: int
    drops: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """A plan and whether adapters wait at `home`, in the host's memory; `bytes` are needed by the model."""

    plan: Plan
    away: bool
    bytes: float


def fitting(footprint: Footprint, work: Work, memory: float, *, factor: float = 1.0, away: bool | None = None) -> Fit:
    """The best of `fits` in `memory` bytes, less headroom. `away` says where adapters are, where that is settled.

    `factor` is what passes were seen to keep, as a share of what the model says. Raises `SpecError` when there is none.
    """
    least = None
    for fit in fits(footprint, work, factor):
        if away is None or fit.away == away:
            if fit.bytes <= memory * (1 - HEADROOM):
                return fit
            least = fit
    assert least is not None
    adapters = sum(map(footprint.adapter, work.ranks))
    raise SpecError(
        f"one member and one sample of {work.longest} tokens need about {least.bytes / (1 - HEADROOM) / GB:.2f} GB, "
        f"of which {HEADROOM:.0%} stays free, and the device has {memory / GB:.2f} GB: the base takes "
        f"{footprint.base / GB:.2f} GB, {len(work.ranks)} adapters {adapters / GB:.2f} GB; lower recipe.max_length or "
        "pack, or take a smaller model or a larger device"
    )


def fits(footprint: Footprint, work: Work, factor: float = 1.0) -> Iterator[Fit]:
    """All ways to make a step, from the one that costs least time to the one that needs least memory."""
    on_cpu = footprint.device == "cpu"
    most = min(len(work.ranks), MEMBERS["cpu" if on_cpu else "cuda"])
    # On a CPU adapters have no other memory to go to.
    for away in (False,) if on_cpu else (False, True):
        for tokens in _tokens(work, on_cpu):
            for members in range(most, 0, -1):
                for remember in (True, False) if work.drops else (True,):
                    plan = Plan(members, tokens, remember)
                    yield Fit(plan, away, needed(footprint, work, plan, away=away, factor=factor))


def needed(footprint: Footprint, work: Work, plan: Plan, *, away: bool = False, factor: float = 1.0) -> float:
    """Bytes of the base, the adapters on the device and the largest pass, by the model; `factor` as in `fitting`."""
    ranks = _largest_pass(work, plan)
    return held(footprint, work, plan, away=away) + footprint.logits(len(ranks)) + factor * kept(footprint, work, plan)


def held(footprint: Footprint, work: Work, plan: Plan, *, away: bool = False) -> float:
    """Bytes that are there before a pass begins."""
    if not away:
        return footprint.base + sum(map(footprint.adapter, work.ranks))
    lent = sum(footprint.parameters(r) for r in _largest_pass(work, plan))
    return footprint.base + 4 * LENT * lent


LENT = 2  # rows of a stack, weights and gradients, are with a pass where the others wait elsewhere


def kept(footprint: Footprint, work: Work, plan: Plan) -> float:
    """Bytes that the largest pass keeps for its backward pass, and what single operations make and drop again."""
    ranks = _largest_pass(work, plan)
    tokens = work.step if plan.tokens is None else min(work.step, max(plan.tokens, work.longest))
    per = replace(footprint, remembered=plan.remember and work.drops)
    return SHORT_LIVED * tokens * per.token_of_each(ranks)


def _largest_pass(work: Work, plan: Plan) -> Sequence[int]:
    return sorted(work.ranks)[-plan.members :]


def _tokens(work: Work, on_cpu: bool) -> list[int | None]:
    """Tokens of each member in a pass, from most to least; None is a whole step's."""
    if on_cpu:
        return [CPU_TOKENS]
    found: list[int | None] = [None]
    tokens = work.step // 2
    while tokens > work.longest:
        found.append(tokens)
        tokens //= 2
    return [*found, work.longest] if work.longest < work.step else found
