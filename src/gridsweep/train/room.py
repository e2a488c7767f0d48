"""The memory a group has: a plan that fits it, and what the first step really took of it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import Recipe
from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint, weights_of
from gridsweep.train.lean.base import targeted
from gridsweep.train.lean.fitting import Work, fitting, held, kept, needed
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.memory import Kept
from gridsweep.train.samples import Sample

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM


class Room:
    """Of a group of a model of Qwen2's or Llama's shape, in `memory` bytes.

    `fit` is the plan to begin with. `factor` is what a pass was seen to keep, as a share of what the model of memory
    says: 1 before the first step. Raises `SpecError` when the memory is too small for anything.
    """

    def __init__(self, footprint: Footprint, work: Work, memory: float):
        self.footprint, self.work, self.memory, self.factor = footprint, work, memory, 1.0
        self.fit = fitting(footprint, work, memory)

    def predicted(self, plan: Plan) -> float:
        """Bytes that a step takes at its height."""
        return needed(self.footprint, self.work, plan, away=self.fit.away, factor=self.factor)

    def has(self, plan: Plan) -> bool:
        return self.predicted(plan) <= self.memory * (1 - HEADROOM)

    @contextmanager
    def counting(self, group: Group) -> Iterator[Callable[[], float]]:
        """Counts while it is entered; what is given says the most bytes there were.

        On a GPU that is all that torch had. On a CPU it is the base, the adapters and what autograd kept, which is the
        same every time; what single operations make and drop again is reckoned as the model does.
        """
        before = held(self.footprint, self.work, group.plan, away=self.fit.away)
        if group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(group.device)
            yield lambda: float(torch.cuda.max_memory_allocated(group.device))
            return
        stacks = [tensor for stack in group.roster.stacks.values() for tensor in (stack.weights, stack.grads)]
        count, told = Kept([*group.lean.base.parameters(), *stacks]), group.before_pass

        def begin(members: int, tokens: int) -> None:
            count.begin()
            told(members, tokens)

        group.before_pass = begin
        try:
            with count:
                yield lambda: before + self.footprint.logits(group.plan.members) + SHORT_LIVED * count.most
        finally:
            group.before_pass = told

    def corrected(self, plan: Plan, taken: float) -> Plan:
        """The plan to go on with after a step by `plan` took so many bytes.

        A plan that was not found by timing is chosen anew; one that was stays while it fits.
        """
        away, chosen = self.fit.away, plan == self.fit.plan
        rest = taken - held(self.footprint, self.work, plan, away=away) - self.footprint.logits(plan.members)
        self.factor = max(0.0, rest) / kept(self.footprint, self.work, plan)
        if not chosen and self.has(plan):
            return plan
        try:
            self.fit = fitting(self.footprint, self.work, self.memory, factor=self.factor, away=away)
        except SpecError:  # by the model, that is; it did run
            return plan
        return self.fit.plan


def room_for(
    base: CausalLM, members: Sequence[Part], recipe: Recipe, train: Sequence[Sample], memory: float
) -> Room | None:
    """None for a model of another shape, of whose memory there is no model. Raises `SpecError`."""
    lengths = [len(sample.ids) for sample in train]
    work = Work(
        tuple(part.params.r for part in members),
        sum(heapq.nlargest(recipe.batch_size * recipe.accumulation, lengths)),
        max(lengths),
        any(part.params.dropout for part in members),
    )
    modules, _ = targeted(base, recipe.target_modules, recipe.layers)
    footprint = Footprint(
        weights_of(base), base.dtype.itemsize, {n: (m.in_features, m.out_features) for n, m in modules.items()},
        base.config, sum(sample.counted for sample in train) / sum(lengths), device=base.device.type,
    )  # fmt: skip
    try:
        footprint.token(1)
    except (AttributeError, IndexError):
        return None
    return Room(footprint, work, memory)
