"""Choose the plan that fits the memory, by the memory model: pass sizes, kept masks, and where adapters are stored.

Memory is saved in the order of the least cost in time. First, dropout masks are recomputed, which takes a few integer
operations. Second, fewer members share a pass, down to one, because one member's whole step fills a device by itself.
Third, a pass has fewer tokens, in halves down to the longest sample; small passes leave the device underused. Last,
adapters and optimizer states move to host memory: every pass then copies weights in and gradients out, and the host's
processor makes the optimizer steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gridsweep.errors import SpecError
from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint
from gridsweep.train.lean.group import Plan

CPU_TOKENS = 512
"""Tokens in a pass on a CPU, where small passes stay in the caches.

The value is a constant, not derived from the memory, because it affects rounding.
"""
MEMBERS = {"cpu": 4, "cuda": 8}
"""Members in a pass before any timing, by device type; on a CPU, more members gain nothing."""
GB = 1e9


@dataclass(frozen=True, slots=True)
class Work:
    """The training work: every member's rank, in the order of the passes, and token counts.

    `step` is the number of tokens of the largest possible optimizer step, `longest` that of the longest sample.
    `drops` says whether there is dropout, whose masks can be kept.
    """

    ranks: tuple[int, ...]
    step: int
    longest: int
    drops: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """A plan, whether adapters are stored in host memory (`home`), and the `bytes` needed by the memory model."""

    plan: Plan
    away: bool
    bytes: float


def fitting(footprint: Footprint, work: Work, memory: float, *, factor: float = 1.0, away: bool | None = None) -> Fit:
    """Return the first of `fits` within `memory` bytes, less headroom. `away`, if given, fixes where adapters are.

    `factor` is the ratio of what passes were measured to keep to the memory model. Raise `SpecError` if nothing fits.
    """
    least = None
    for fit in fits(footprint, work, factor):
        if away is None or fit.away == away:
            if fit.bytes <= memory * (1 - HEADROOM):
                return fit
            least = fit
    assert least is not None
    adapters = sum(map(footprint.adapter, work.ranks))
    several = "1 adapter" if len(work.ranks) == 1 else f"{len(work.ranks)} adapters"
    process = f", Python and its libraries {footprint.beside / GB:.2f} GB" if footprint.beside else ""
    raise SpecError(
        f"one member and one sample of {work.longest} tokens need about {least.bytes / (1 - HEADROOM) / GB:.2f} GB, "
        f"of which {HEADROOM:.0%} stays free, and the device has {memory / GB:.2f} GB: the base takes "
        f"{footprint.base / GB:.2f} GB, {several} {adapters / GB:.2f} GB{process}; lower recipe.max_length or "
        "pack, or take a smaller model or a larger device"
    )


def fits(footprint: Footprint, work: Work, factor: float = 1.0) -> Iterator[Fit]:
    """Yield all ways to make a step, from the least time to the least memory."""
    on_cpu = footprint.device == "cpu"
    most = min(len(work.ranks), MEMBERS["cpu" if on_cpu else "cuda"])
    # On a CPU there is no other memory to move adapters to.
    for away in (False,) if on_cpu else (False, True):
        for tokens in _tokens(work, on_cpu):
            for members in range(most, 0, -1):
                for remember in (True, False) if work.drops else (True,):
                    plan = Plan(members, tokens, remember)
                    yield Fit(plan, away, needed(footprint, work, plan, away=away, factor=factor))


def needed(footprint: Footprint, work: Work, plan: Plan, *, away: bool = False, factor: float = 1.0) -> float:
    """Return the modeled bytes of base, adapters on the device and largest pass; `factor` as in `fitting`."""
    ranks = _largest_pass(work, plan)
    return held(footprint, work, plan, away=away) + footprint.logits(len(ranks)) + factor * kept(footprint, work, plan)


def held(footprint: Footprint, work: Work, plan: Plan, *, away: bool = False) -> float:
    """Return the bytes in use before a pass begins."""
    there = footprint.base + footprint.beside
    if not away:
        return there + sum(map(footprint.adapter, work.ranks))
    lent = sum(footprint.parameters(r) for r in _largest_pass(work, plan))
    return there + 4 * LENT * lent


LENT = 2  # rows of a stack (weights and gradients) are on the device in a pass when adapters are in host memory


def kept(footprint: Footprint, work: Work, plan: Plan) -> float:
    """Return the bytes that the largest pass keeps for its backward pass, plus temporaries of single operations."""
    ranks = _largest_pass(work, plan)
    tokens = work.step if plan.tokens is None else min(work.step, max(plan.tokens, work.longest))
    per = replace(footprint, remembered=plan.remember and work.drops)
    return SHORT_LIVED * tokens * per.token_of_each(ranks)


def _largest_pass(work: Work, plan: Plan) -> Sequence[int]:
    return sorted(work.ranks)[-plan.members :]


def _tokens(work: Work, on_cpu: bool) -> list[int | None]:
    """Return the possible tokens of each member in a pass, from most to least; None is a whole step's."""
    if on_cpu:
        return [CPU_TOKENS]
    found: list[int | None] = [None]
    tokens = work.step // 2
    while tokens > work.longest:
        found.append(tokens)
        tokens //= 2
    return [*found, work.longest] if work.longest < work.step else found
