"""The members of a group, in the order of the passes, and their tensors, in stacks by rank."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.train.lean.files import Pairs
from gridsweep.train.lean.initial import initial_row
from gridsweep.train.lean.linear import Block
from gridsweep.train.lean.stack import Shapes, Stack
from gridsweep.train.lean.variants import Variant


@dataclass(frozen=True, slots=True)
class Bench:
    """The blocks of a training pass, and the gradients to copy back after it: (there, here)."""

    blocks: list[Block]
    loans: list[tuple[Tensor, Tensor]]

    def give_back(self) -> None:
        for there, here in self.loans:
            there.copy_(here)


class Roster:
    """Members by name, with members of one rank adjacent.

    Passes are computed on `device`; if `home` is given, the stacks are stored there and copied in for each pass.
    Raise `SpecError` if a member's rank exceeds a layer's width.
    """

    def __init__(
        self, members: Sequence[Part], variants: Mapping[str, Variant], shapes: Shapes, device: torch.device,
        home: torch.device | None,
    ):  # fmt: skip
        self.parts = {part.experiment: part for part in sorted(members, key=lambda part: part.params.r)}
        self.variants = {name: variants.get(name, Variant()) for name in self.parts}
        self.device, self.lent = device, home is not None
        self.stacks: dict[int, Stack] = {}
        self.benches: dict[tuple[str, ...], Bench] = {}
        for part in self.parts.values():
            _check_rank(part, shapes)
        for r in sorted({part.params.r for part in self.parts.values()}):
            own = self.of_rank(r)
            rows = [initial_row(r, shapes, part.seed) for part in own]
            scales = [self.variants[part.experiment].scale(part.params) for part in own]
            self.stacks[r] = Stack(r, shapes, rows, scales, home or device)

    def of_rank(self, r: int) -> list[Part]:
        """Return the members of one rank, in the order of its stack."""
        return [part for part in self.parts.values() if part.params.r == r]

    def portions(self, size: int) -> list[list[str]]:
        """Split all members evenly into the fewest portions of at most `size` members."""
        names = list(self.parts)
        count = max(1, -(-len(names) // size))
        ends = [len(names) * n // count for n in range(count + 1)]
        return [names[first:last] for first, last in itertools.pairwise(ends) if first < last]

    def seats(self, names: Sequence[str]) -> Iterator[tuple[Stack, slice, slice]]:
        """Yield the location of a portion's members: a stack, their rows in the stack, and their rows in the pass."""
        at = 0
        for r, stack in self.stacks.items():
            rows = [row for row, part in enumerate(self.of_rank(r)) if part.experiment in names]
            if rows:
                yield stack, slice(rows[0], rows[-1] + 1), slice(at, at := at + len(rows))

    def seat(self, experiment: str) -> tuple[Stack, int]:
        """Return a member's stack and row. Raise `SpecError` if there is no such member."""
        if experiment not in self.parts:
            raise SpecError(f"{experiment} is not in this group of {', '.join(self.parts)}")
        ((stack, span, _),) = self.seats([experiment])
        return stack, span.start

    def pairs(self, experiment: str, rows: str) -> Pairs:
        """Return views of one member's A and B in its stack's `weights`, `mean`, `square` or `average`."""
        stack, row = self.seat(experiment)
        return stack.of_member(getattr(stack, rows), row)

    def drop(self, experiments: Collection[str]) -> None:
        """Remove these members; the others do not change."""
        for name in experiments:
            self.seat(name)
        for r, stack in list(self.stacks.items()):
            rows = [row for row, part in enumerate(self.of_rank(r)) if part.experiment not in experiments]
            if not rows:
                del self.stacks[r]
            elif len(rows) < len(stack):
                stack.keep(rows)
        self.parts = {name: part for name, part in self.parts.items() if name not in experiments}
        self.benches.clear()

    def to_train(self, names: Sequence[str]) -> Bench:
        """Return the blocks to train a portion: views of the stacks, or copies if the stacks are on another device."""
        bench = self.benches.get(tuple(names))
        if bench is None:
            bench = Bench([], [])
            for stack, span, rows in self.seats(names):
                weights = stack.weights[span].to(self.device, copy=self.lent)
                grads = stack.grads[span].to(self.device, copy=self.lent)
                kept = [1 - self.parts[name].params.dropout for name in names[rows]]
                bench.blocks.append(_block(stack, span, rows, weights, grads, kept))
                if self.lent:
                    bench.loans.append((stack.grads[span], grads))
            if not self.lent:
                self.benches[tuple(names)] = bench
        return bench

    def to_evaluate(self, names: Sequence[str], weights: Mapping[int, Tensor]) -> list[Block]:
        """Return the blocks to evaluate a portion, without gradients or dropout; `weights` are the stacks', by rank."""
        return [
            _block(stack, span, rows, weights[stack.r][span].to(self.device), None, [1.0] * (rows.stop - rows.start))
            for stack, span, rows in self.seats(names)
        ]


def _block(
    stack: Stack, span: slice, rows: slice, weights: Tensor, grads: Tensor | None, kept: Sequence[float]
) -> Block:
    """Return the block of some rows of a stack; `kept` is the share of values that dropout keeps and scales up by."""
    scales = [scale / share for scale, share in zip(stack.scales[span], kept, strict=True)]
    scale = torch.tensor(scales, dtype=weights.dtype, device=weights.device).view(-1, 1, 1)
    slopes = None if grads is None else stack.by_module(grads)
    return Block(rows, scale, stack.by_module(weights), slopes, any(share < 1 for share in kept))


def _check_rank(part: Part, shapes: Shapes) -> None:
    for module, shape in shapes.items():
        if part.params.r > min(shape):
            raise SpecError(
                f"{part.experiment} has rank {part.params.r}, but {module} is only {shape[0]} to {shape[1]} wide; "
                f"set r to at most {min(shape)}, or take the module out of recipe.target_modules"
            )
