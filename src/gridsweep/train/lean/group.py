"""A group: several experiments of one sweep trained together over one frozen base, step by step.

What a member's numbers are depends on its own values only. On a CPU, with one thread, that is exact: every product is
made in blocks of one member, so a member alone, in any group, after others have left or after a pause goes through the
same losses bit for bit. On a GPU the products of all members are one, and differ by their rounding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gridsweep.attempt import Part
from gridsweep.errors import SpecError
from gridsweep.sweep import Model, Recipe
from gridsweep.train.lean import files
from gridsweep.train.lean.base import Layers, LeanBase
from gridsweep.train.lean.initial import initial_row
from gridsweep.train.lean.linear import Bits, Block, Pass
from gridsweep.train.lean.masks import keep_bits, limits, token_keys
from gridsweep.train.lean.packing import Packed, pack, runs
from gridsweep.train.lean.stack import Stack
from gridsweep.train.lean.variants import Variant
from gridsweep.train.learning_rate import learning_rate
from gridsweep.train.samples import Sample, by_length, effective_batch
from gridsweep.train.training import EVALUATED_AT_ONCE, History

WINDOW = 0.08  # of all steps, over which the average of the weights is taken


@dataclass(frozen=True, slots=True)
class Scores:
    """A member's summed loss and counted tokens of every sample, in the order they were given."""

    sums: Tensor  # [samples], float64
    counts: Tensor  # [samples], int64

    @property
    def mean(self) -> float:
        """The mean loss over all counted tokens."""
        return (self.sums.sum() / self.counts.sum()).item()


@dataclass(slots=True)
class Plan:
    """How a step is cut up: members in a pass, tokens of each in a pass (None: all), and whether masks are kept.

    None of it changes a member's losses by more than rounding, and the number of members by nothing on a CPU.
    """

    members: int = 8
    tokens: int | None = None
    remember: bool = True


class Group:
    """Members `Part`s on their way through `total_steps` optimizer steps over one base model, whose places it takes.

    `variants` names members with rsLoRA or LoRA+; `home` is where adapters and their optimizer states wait (the
    base's device unless given: a GPU's small memory is spared by the host's); `before_pass(members, tokens)` is called
    before each forward pass. Raises `SpecError` when a member does not fit the model.
    """

    def __init__(
        self,
        base: Any,
        members: Sequence[Part],
        recipe: Recipe,
        total_steps: int,
        train: Sequence[Sample],
        model: Model,
        *,
        variants: Mapping[str, Variant] | None = None,
        layers: Layers = "all",
        plan: Plan | None = None,
        home: torch.device | None = None,
        before_pass: Callable[[int, int], None] = lambda members, tokens: None,
    ):
        self.recipe, self.total_steps, self.train, self.model = recipe, total_steps, train, model
        self.parts = {part.experiment: part for part in sorted(members, key=lambda part: part.params.r)}
        self.variants = {name: (variants or {}).get(name, Variant()) for name in self.parts}
        self.histories = {name: History() for name in self.parts}
        self.diverged: dict[str, str] = {}
        self.plan, self.before_pass = plan or Plan(), before_pass
        self.average_decay = 1 - 1 / max(1.0, WINDOW * total_steps)
        self.device = base.device
        self.lent = home is not None  # adapters wait elsewhere and are copied in for each pass
        self.benches: dict[tuple[str, ...], Bench] = {}
        self.lean = LeanBase(base, recipe.target_modules, layers)
        try:
            self._check_ranks()
        except SpecError:
            self.close()
            raise
        self.stacks: dict[int, Stack] = {}
        for r in sorted({part.params.r for part in self.parts.values()}):
            own = [part for part in self.parts.values() if part.params.r == r]
            rows = [initial_row(r, self.lean.shapes, part.seed) for part in own]
            scales = [self.variants[part.experiment].scale(part.params) for part in own]
            self.stacks[r] = Stack(r, self.lean.shapes, rows, scales, home or self.device)

    @property
    def members(self) -> list[str]:
        """Who trains on, in the order of the passes."""
        return list(self.parts)

    def step(self, step: int, breathe: Callable[[], None]) -> dict[str, float]:
        """Make optimizer step `step` (from 0) for all members: each one's mean loss over its response tokens.

        Calls `breathe` before each pass; what that raises leaves the state as it was before the step. A member whose
        loss is no finite number makes no step: it is dropped, and `diverged` says why. Out of memory halves what is
        in a pass and begins the step anew.
        """
        while True:
            try:
                losses = self._losses(step, breathe)
                break
            except torch.OutOfMemoryError:
                if not self._smaller(step):
                    raise
        lost = {n: f"the training loss is {x} at step {step + 1}" for n, x in losses.items() if not math.isfinite(x)}
        self.diverged |= lost
        self.drop(lost)
        recipe = self.recipe
        for r, stack in self.stacks.items():
            parts = [part for part in self.parts.values() if part.params.r == r]
            rates = [learning_rate(recipe, part.params.lr, step, self.total_steps) for part in parts]
            ratios = [self.variants[part.experiment].b_ratio for part in parts]
            stack.step(rates, ratios, recipe.weight_decay, recipe.clip, self.average_decay)
        for name in self.parts:
            history = self.histories[name]
            history.recent = [*history.recent, losses[name]][-max(1, self.total_steps // 10) :]
        return losses

    @torch.no_grad()
    def evaluate(
        self, samples: Sequence[Sample], breathe: Callable[[], None], averaged: bool = False
    ) -> dict[str, Scores]:
        """Every member's loss on every sample, with its weights or their average. Calls `breathe` before a pass."""
        counts = torch.tensor([len(s.ids) - max(1, s.prompt) for s in samples])
        sums = {name: torch.zeros(len(samples), dtype=torch.float64) for name in self.parts}
        order = sorted(range(len(samples)), key=lambda index: len(samples[index].ids))  # as `by_length` sorts
        at = 0
        for batch in by_length(samples, EVALUATED_AT_ONCE):
            packed = pack(batch, self.device)
            index = torch.tensor(order[at : at + len(batch)])
            at += len(batch)
            for names in self._slices():
                breathe()
                blocks = self._still(names, averaged)
                losses = self.lean.losses(Pass(len(names), blocks, None, False), packed).double()
                totals = losses.new_zeros(len(names), len(batch)).index_add_(1, packed.owner, losses).cpu()
                for name, total in zip(names, totals, strict=True):
                    sums[name][index] = total
        return {name: Scores(total, counts) for name, total in sums.items()}

    def drop(self, experiments: Collection[str]) -> None:
        """These leave; nothing changes for the others."""
        unknown = [name for name in experiments if name not in self.parts]
        if unknown:
            raise SpecError(f"{', '.join(unknown)} is not in this group of {', '.join(self.parts)}")
        for r, stack in list(self.stacks.items()):
            own = [name for name, part in self.parts.items() if part.params.r == r]
            rows = [row for row, name in enumerate(own) if name not in experiments]
            if not rows:
                del self.stacks[r]
            elif len(rows) < len(own):
                stack.keep(rows)
        self.parts = {name: part for name, part in self.parts.items() if name not in experiments}
        self.benches.clear()

    def weights(self, experiment: str, averaged: bool = False) -> dict[str, Tensor]:
        """A copy of the adapter, A and B of every module, by PEFT's names; or of its moving average."""
        stack, row = self._seat(experiment)
        rows = stack.corrected(self.average_decay) if averaged else stack.weights
        return {name: tensor.clone() for name, tensor in files.named(self._pairs(stack, rows, row)).items()}

    def save_adapter(self, experiment: str, folder: Path, averaged: bool = False) -> None:
        """The adapter alone, as plain PEFT reads it: its weights, or their moving average."""
        files.write_adapter(
            folder, self.weights(experiment, averaged), self.parts[experiment], self.variants[experiment],
            self.model, self.recipe.target_modules, self.lean.upper,
        )  # fmt: skip

    def save(self, experiment: str, folder: Path) -> None:
        """Adapter, optimizer state, average and history; together with the step all there is to know. No pickle."""
        self.save_adapter(experiment, folder)
        stack, row = self._seat(experiment)
        tensors = [self._pairs(stack, rows, row) for rows in (stack.mean, stack.square, stack.average)]
        files.write_state(folder, *tensors, stack.steps[row], self._identity(experiment))
        (folder / "history.json").write_text(json.dumps(asdict(self.histories[experiment])), encoding="utf-8")

    def load(self, experiment: str, folder: Path) -> None:
        """Take up a member's saved state. Raises `SpecError` when it is of another training."""
        stack, row = self._seat(experiment)
        saved, steps = files.read_state(folder, self._identity(experiment))
        for kind, tensors in saved.items():
            there = files.named(self._pairs(stack, getattr(stack, kind), row))
            if {n: t.shape for n, t in there.items()} != {n: t.shape for n, t in tensors.items()}:
                raise SpecError(
                    f"the checkpoint in {folder} does not fit this model and rank; remove it to start again"
                )
            for name, view in there.items():
                view.copy_(tensors[name])
        stack.steps[row] = steps
        self.histories[experiment] = History(**json.loads((folder / "history.json").read_text(encoding="utf-8")))

    def close(self) -> None:
        """Give the base model back as it was."""
        self.lean.close()

    # -- one step

    def _losses(self, step: int, breathe: Callable[[], None]) -> dict[str, float]:
        """Each member's loss; the gradients lie in the stacks."""
        for stack in self.stacks.values():
            stack.grads.zero_()
        samples = self.batch(step)
        counted = sum(sample.counted for sample in samples)
        first, packs = 0, []
        for run in runs(samples, self.plan.tokens):
            packs.append(pack(run, self.device, first))
            first += packs[-1].tokens
        losses: dict[str, float] = {}
        for names in self._slices():
            total = torch.zeros(len(names), device=self.device)
            for packed in packs:
                breathe()
                total += self.forward_backward(names, packed, step, counted)
            losses |= dict(zip(names, total.tolist(), strict=True))
        return {name: losses[name] for name in self.parts}

    def batch(self, step: int) -> list[Sample]:
        """The samples of one optimizer step."""
        return effective_batch(self.train, step, self.recipe.batch_size * self.recipe.accumulation, self.recipe.seed)

    def forward_backward(self, names: Sequence[str], packed: Packed, step: int, counted: int) -> Tensor:
        """Add to the gradients of these members; their share of the loss, [members]."""
        self.before_pass(len(names), packed.tokens)
        bench = self._bench(names)
        now = Pass(len(names), bench.blocks, self._bits(names, packed, step), self.plan.remember)
        each = self.lean.losses(now, packed).sum(1) / counted
        each.sum().backward()
        bench.give_back()
        return each.detach()

    def _slices(self) -> Iterator[list[str]]:
        names, size = list(self.parts), max(1, self.plan.members)
        return (names[first : first + size] for first in range(0, len(names), size))

    def _bits(self, names: Sequence[str], packed: Packed, step: int) -> Bits | None:
        parts = [self.parts[name] for name in names]
        if not any(part.params.dropout for part in parts):
            return None
        positions = packed.first + torch.arange(packed.tokens, device=self.device)
        keys = torch.stack([token_keys(part.seed, step, positions) for part in parts])
        limit = limits([part.params.dropout for part in parts], self.device)
        return lambda module, width, rows: keep_bits(keys[rows], module, width, limit[rows])

    def _still(self, names: Sequence[str], averaged: bool) -> list[Block]:
        """What these members are evaluated with: without gradients and dropout."""
        blocks = []
        for stack, span, rows in self._seats(names):
            source = stack.corrected(self.average_decay) if averaged else stack.weights
            kept = [1.0] * (rows.stop - rows.start)
            blocks.append(_block(stack, span, rows, source[span].to(self.device), None, kept))
        return blocks

    def _bench(self, names: Sequence[str]) -> Bench:
        """What these members are trained with; views of the stacks, unless those are elsewhere."""
        bench = self.benches.get(tuple(names))
        if bench is None:
            bench = Bench([], [])
            for stack, span, rows in self._seats(names):
                weights = stack.weights[span].to(self.device, copy=self.lent)
                grads = stack.grads[span].to(self.device, copy=self.lent)
                parts = [self.parts[name] for name in names[rows]]
                kept = [1 - part.params.dropout for part in parts]
                bench.blocks.append(_block(stack, span, rows, weights, grads, kept))
                if self.lent:
                    bench.loans.append((stack.grads[span], grads))
            if not self.lent:
                self.benches[tuple(names)] = bench
        return bench

    def _seats(self, names: Sequence[str]) -> Iterator[tuple[Stack, slice, slice]]:
        """Where these members, neighbours in the order of all, are: a stack, its rows, and the rows of the pass."""
        at = 0
        for r, stack in self.stacks.items():
            own = [name for name, part in self.parts.items() if part.params.r == r]
            rows = [row for row, name in enumerate(own) if name in names]
            if rows:
                yield stack, slice(rows[0], rows[-1] + 1), slice(at, at := at + len(rows))

    def _seat(self, experiment: str) -> tuple[Stack, int]:
        ((stack, span, _),) = self._seats([experiment])
        return stack, span.start

    def _pairs(self, stack: Stack, rows: Tensor, row: int) -> files.Pairs:
        return {module: (a[0], b[0]) for module, (a, b) in stack.by_module(rows[row : row + 1]).items()}

    def _identity(self, experiment: str) -> dict[str, str]:
        return files.identity(
            self.parts[experiment], self.variants[experiment], self.recipe, self.total_steps, self.lean.upper
        )

    def _smaller(self, step: int) -> bool:
        """Plan half as much in a pass; whether that can be."""
        if self.plan.members > 1:
            self.plan.members = (min(self.plan.members, len(self.parts)) + 1) // 2
            return True
        lengths = [len(sample.ids) for sample in self.batch(step)]
        tokens = min(self.plan.tokens or sum(lengths), sum(lengths))
        if tokens <= max(lengths):
            return False
        self.plan.tokens = max(max(lengths), tokens // 2)
        return True

    def _check_ranks(self) -> None:
        for name, part in self.parts.items():
            for module, shape in self.lean.shapes.items():
                if part.params.r > min(shape):
                    raise SpecError(
                        f"{name} has rank {part.params.r}, but {module} is only {shape[0]} to {shape[1]} wide; "
                        f"set r to at most {min(shape)}, or take the module out of recipe.target_modules"
                    )


@dataclass(frozen=True, slots=True)
class Bench:
    """The blocks of one pass, and the gradients to be carried home after it: (there, here)."""

    blocks: list[Block]
    loans: list[tuple[Tensor, Tensor]]

    def give_back(self) -> None:
        for there, here in self.loans:
            there.copy_(here)


def _block(
    stack: Stack, span: slice, rows: slice, weights: Tensor, grads: Tensor | None, kept: Sequence[float]
) -> Block:
    """`kept` is the share of values that dropout keeps; the others are scaled up by it."""
    scales = [scale / share for scale, share in zip(stack.scales[span], kept, strict=True)]
    scale = torch.tensor(scales, dtype=weights.dtype, device=weights.device).view(-1, 1, 1)
    slopes = None if grads is None else stack.by_module(grads)
    return Block(rows, scale, stack.by_module(weights), slopes, any(share < 1 for share in kept))
