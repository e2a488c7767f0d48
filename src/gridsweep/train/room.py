"""The memory budget of a group: a plan that fits it, and the memory that the first step really took."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import Recipe
from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint, weights_of
from gridsweep.train.lean.fitting import Work, fitting, held, kept, needed
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.memory import Kept
from gridsweep.train.lean.targets import sizes, targeted, text_config
from gridsweep.train.samples import Sample

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM


class Room:
    """Memory budget of a group, for Qwen2- and Llama-shaped models; `memory` in bytes.

    `fit` is the initial plan. `factor` is the ratio of what a pass was measured to keep to what the memory model
    predicts: 1 before the first step. Raise `SpecError` if the memory is too small for any plan.
    """

    def __init__(self, footprint: Footprint, work: Work, memory: float):
        self.footprint, self.work, self.memory, self.factor = footprint, work, memory, 1.0
        self.fit = fitting(footprint, work, memory)

    def predicted(self, plan: Plan) -> float:
        """Return the predicted peak bytes of a step."""
        return needed(self.footprint, self.work, plan, away=self.fit.away, factor=self.factor)

    def has(self, plan: Plan) -> bool:
        return self.predicted(plan) <= self.memory * (1 - HEADROOM)

    @contextmanager
    def counting(self, group: Group) -> Iterator[Callable[[], float]]:
        """Count memory inside the context; the yielded function returns the peak bytes.

        On a GPU that is torch's peak. On a CPU it is the process, the base, the adapters and what autograd kept;
        temporaries of single operations are estimated as in the memory model.
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

    def corrected(self, plan: Plan, taken: float, resident: float | None = None) -> Plan:
        """Return the plan to continue with, after a step with `plan` took `taken` bytes.

        A plan that was not found by timing is chosen again; a timed plan stays as long as it fits. `resident` is the
        process's peak in that step, if it is the same memory: what the count does not explain is the process's own.
        """
        if resident is not None and resident > taken:
            self.footprint = replace(self.footprint, beside=self.footprint.beside + resident - taken)
            taken = resident
        away, chosen = self.fit.away, plan == self.fit.plan
        rest = taken - held(self.footprint, self.work, plan, away=away) - self.footprint.logits(plan.members)
        self.factor = max(0.0, rest) / kept(self.footprint, self.work, plan)
        if not chosen and self.has(plan):
            return plan
        try:
            self.fit = fitting(self.footprint, self.work, self.memory, factor=self.factor, away=away)
        except SpecError:  # too large by the memory model, although the step did run
            return plan
        return self.fit.plan


def room_for(
    base: CausalLM, members: Sequence[Part], recipe: Recipe, train: Sequence[Sample], memory: float, *,
    beside: float = 0.0,
) -> Room | None:  # fmt: skip
    """Return the group's room; None for model shapes without a memory model. Raise `SpecError` if nothing fits.

    `beside` is what the process takes of `memory` beside base and group, in bytes.
    """
    lengths = [len(sample.ids) for sample in train]
    work = Work(
        tuple(part.params.r for part in members),
        sum(heapq.nlargest(recipe.batch_size * recipe.accumulation, lengths)),
        max(lengths),
        any(part.params.dropout for part in members),
    )
    modules, _ = targeted(base, recipe.target_modules, recipe.layers)
    footprint = Footprint(
        weights_of(base), base.dtype.itemsize, {name: sizes(module) for name, module in modules.items()},
        text_config(base.config), sum(sample.counted for sample in train) / sum(lengths), device=base.device.type,
        beside=beside,
    )  # fmt: skip
    try:
        footprint.token(1)
    except (AttributeError, IndexError):
        return None
    return Room(footprint, work, memory)
