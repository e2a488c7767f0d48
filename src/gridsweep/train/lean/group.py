"""A group: several experiments of one sweep, trained together over one frozen base, step by step.

A member's numbers depend on its own values only. On a CPU with one thread this is exact: every product is computed in
blocks of one member, so a member has the same losses bit for bit when it trains alone, in any group, after other
members have left, or after a pause. On a GPU the products of all members are one operation, and differ by rounding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.records.disk import DISK
from gridsweep.sweep.experiments import Model, Recipe
from gridsweep.train.lean import files
from gridsweep.train.lean.base import LeanBase
from gridsweep.train.lean.engine import Engine
from gridsweep.train.lean.linear import Bits, Pass
from gridsweep.train.lean.masks import keep_bits, limits, token_keys
from gridsweep.train.lean.packing import Packed, pack, runs
from gridsweep.train.lean.roster import Roster
from gridsweep.train.lean.targets import Layers
from gridsweep.train.lean.variants import Variant
from gridsweep.train.learning_rate import learning_rate
from gridsweep.train.samples import Sample, effective_batch

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM

T = TypeVar("T")

WINDOW, SO_FAR = 0.08, 6  # weights are averaged over this share of all steps, at most a sixth of those made
EVALUATED_AT_ONCE = 1024  # tokens of each member; nothing is kept for a backward pass


@dataclass(slots=True)
class History:
    """The facts about earlier steps that the result needs; other attempts may have made these steps."""

    recent: list[float] = field(default_factory=list)  # training losses of the last tenth of all steps
    initial_validation_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A member's summed loss and number of counted tokens for every sample, in the given order."""

    sums: Tensor  # [samples], float64
    counts: Tensor  # [samples], int64

    @property
    def mean(self) -> float:
        """Return the mean loss over all counted tokens."""
        return (self.sums.sum() / self.counts.sum()).item()

    def of(self, samples: Sequence[int]) -> Scores:
        """Return the scores of some samples, given by index."""
        places = torch.tensor(samples)
        return Scores(self.sums[places], self.counts[places])


@dataclass(slots=True)
class Plan:
    """How a step is split: members in a pass, tokens of each in a pass (None: all), and whether masks are kept.

    On a CPU, members and masks change no loss, and tokens change only its rounding. `gridsweep.train.lean.measure`
    finds the fastest plan; the default is a safe one.
    """

    members: int = 4
    tokens: int | None = None
    remember: bool = True


def newest_share(step: int, total_steps: int) -> float:
    """Return the share of the weights after step `step` (from 0) in the moving average.

    Early in training, an average over a fixed window consists mostly of outdated weights: at an eighth of the steps it
    ranked experiments at random. The window therefore grows with the steps made; the first share is 1.
    """
    return 1 / max(1.0, min(WINDOW * total_steps, (step + 1) / SO_FAR))


class Group:
    """Members trained for `total_steps` optimizer steps over one frozen base; the group replaces layers of the base.

    `recipe` holds what all members share; a member with a recipe of its own has its own schedule, decay and clipping.
    `train` holds the samples, the same for all members, in the order of the seed `order` (default: the recipe's).
    `variants` names members with rsLoRA or LoRA+; `layers` says which layers have adapters; `home` is the device that
    stores adapters and optimizer states if it is not the base's (for example, host memory);
    `before_pass(members, tokens)` is called before each training pass. Raise `SpecError` if a member does not fit the
    model.

    `engine` computes the losses if it is not the lean one; it is made for the same base, targets and layers.
    """

    def __init__(
        self,
        base: CausalLM,
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
        order: int | None = None,
        before_pass: Callable[[int, int], None] = lambda members, tokens: None,
        engine: Engine | None = None,
    ):
        self.recipe, self.total_steps, self.train, self.model = recipe, total_steps, train, model
        self.recipes = {part.experiment: part.recipe or recipe for part in members}
        self.plan, self.before_pass = replace(plan or Plan()), before_pass
        self.order = recipe.seed if order is None else order
        self.histories = {part.experiment: History() for part in members}
        self.diverged: dict[str, str] = {}
        self.device = base.device
        self.lean: Engine = engine or LeanBase(base, recipe.target_modules, layers)
        self.plan.members = min(self.plan.members, self.lean.most or self.plan.members)
        try:
            self.roster = Roster(members, variants or {}, self.lean.shapes, self.device, home)
        except BaseException:  # including out of memory: a smaller group must be able to use the base
            self.close()
            raise

    @property
    def members(self) -> list[str]:
        """The names of the remaining members, in the order of the passes."""
        return list(self.roster.parts)

    def step(self, step: int, breathe: Callable[[], None]) -> dict[str, float]:
        """Make optimizer step `step` (from 0) for all members; return each member's mean loss over response tokens.

        `breathe` is called before each pass; if it raises, the state stays as before the step. A member whose loss is
        not finite makes no step: the member is dropped, and `diverged` holds the reason. On out of memory, the size of
        a pass is halved and the step starts over.
        """
        losses = self._fitting(lambda: self._losses(step, breathe), self.batch(step))
        lost = {n: f"the training loss is {x} at step {step + 1}" for n, x in losses.items() if not math.isfinite(x)}
        self.diverged |= lost
        self.drop(lost)
        share = newest_share(step, self.total_steps)
        for r, stack in self.roster.stacks.items():
            parts = self.roster.of_rank(r)
            recipes = [self.recipes[part.experiment] for part in parts]
            rates = [
                learning_rate(recipe, part.params.lr, step, self.total_steps)
                for recipe, part in zip(recipes, parts, strict=True)
            ]
            ratios = [self.roster.variants[part.experiment].b_ratio for part in parts]
            stack.step(rates, ratios, [recipe.weight_decay for recipe in recipes], [r.clip for r in recipes], share)
        for name in self.members:
            history = self.histories[name]
            history.recent = [*history.recent, losses[name]][-max(1, self.total_steps // 10) :]
        return losses

    @torch.no_grad()
    def evaluate(
        self, samples: Sequence[Sample], breathe: Callable[[], None], averaged: bool = False
    ) -> dict[str, Scores]:
        """Return every member's loss on every sample, with its weights or their average; `breathe` before each pass."""
        weights = {r: stack.average if averaged else stack.weights for r, stack in self.roster.stacks.items()}

        def losses(names: Sequence[str], packed: Packed) -> Tensor:
            return self.lean.losses(Pass(len(names), self.roster.to_evaluate(names, weights)), packed)

        portions = self.roster.portions
        return self._fitting(lambda: self._scores(samples, breathe, portions(self.plan.members), losses), [])

    @torch.no_grad()
    def evaluate_base(self, samples: Sequence[Sample], breathe: Callable[[], None]) -> Scores:
        """Return the loss of the base without adapters: every member's loss before its first step, because B = 0."""

        def losses(names: Sequence[str], packed: Packed) -> Tensor:
            return self.lean.losses(Pass(1, []), packed)

        return self._scores(samples, breathe, [[""]], losses)[""]

    def drop(self, experiments: Collection[str]) -> None:
        """Remove these members; the others do not change."""
        if experiments:
            self.roster.drop(experiments)

    def weights(self, experiment: str, averaged: bool = False) -> dict[str, Tensor]:
        """Return a copy of the adapter or its moving average: A and B of every module, by PEFT's names."""
        pairs = self.roster.pairs(experiment, "average" if averaged else "weights")
        return {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in files.named(pairs).items()
        }

    def save_adapter(self, experiment: str, folder: Path, averaged: bool = False) -> None:
        """Save only the adapter, in plain PEFT format: its weights, or their moving average."""
        files.write_adapter(
            folder, self.weights(experiment, averaged), self.roster.parts[experiment],
            self.roster.variants[experiment], self.model, self.lean.layout,
        )  # fmt: skip

    def save(self, experiment: str, folder: Path) -> None:
        """Save adapter, optimizer state, average and history: with the step number, the complete state. No pickle."""
        self.save_adapter(experiment, folder)
        stack, row = self.roster.seat(experiment)
        mean, square, average = (self.roster.pairs(experiment, kind) for kind in ("mean", "square", "average"))
        files.write_state(folder, mean, square, average, stack.steps[row], self._identity(experiment))
        (folder / "history.json").write_text(json.dumps(asdict(self.histories[experiment])), encoding="utf-8")

    def load(self, experiment: str, folder: Path) -> None:
        """Load a member's saved state. Raise `SpecError` if it belongs to another training."""
        stack, row = self.roster.seat(experiment)
        saved, steps = files.read_state(folder, self._identity(experiment))
        try:
            history = History(**json.loads((folder / "history.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            if getattr(error, "errno", None) in DISK:
                raise  # it says nothing of the checkpoint
            raise SpecError(f"the checkpoint {folder} cannot be read: {error}; go on from an earlier one") from error
        there = {kind: files.named(self.roster.pairs(experiment, kind)) for kind in saved}
        for kind, tensors in saved.items():
            if {n: t.shape for n, t in there[kind].items()} != {n: t.shape for n, t in tensors.items()}:
                raise SpecError(f"the checkpoint in {folder} does not fit this model; remove it to start again")
        for kind, tensors in saved.items():
            for name, view in there[kind].items():
                view.copy_(tensors[name])
        stack.steps[row] = steps
        self.histories[experiment] = history

    def close(self) -> None:
        """Restore the base model."""
        self.lean.close()

    def batch(self, step: int) -> list[Sample]:
        """Return the samples of one optimizer step."""
        return effective_batch(self.train, step, self.recipe.batch_size * self.recipe.accumulation, self.order)

    def forward_backward(self, names: Sequence[str], packed: Packed, step: int, counted: int) -> Tensor:
        """Add to the gradients of some members; return their shares of the mean loss over `counted` tokens."""
        self.before_pass(len(names), packed.tokens)
        bench = self.roster.to_train(names)
        now = Pass(len(names), bench.blocks, self._bits(names, packed, step), self.plan.remember)
        each = self.lean.losses(now, packed).sum(1) / counted
        each.sum().backward()
        bench.give_back()
        return each.detach()

    def _losses(self, step: int, breathe: Callable[[], None]) -> dict[str, float]:
        """Return each member's loss; the gradients are left in the stacks."""
        for stack in self.roster.stacks.values():
            stack.grads.zero_()
        samples = self.batch(step)
        counted = sum(sample.counted for sample in samples)
        packs: list[Packed] = []
        for run in runs(samples, self.plan.tokens):
            packs.append(pack(run, self.device, packs[-1].first + packs[-1].tokens if packs else 0))
        losses: dict[str, float] = {}
        for names in self.roster.portions(self.plan.members):
            total = torch.zeros(len(names), device=self.device)
            for packed in packs:
                breathe()
                total += self.forward_backward(names, packed, step, counted)
            losses |= dict(zip(names, total.tolist(), strict=True))
        return losses

    def _scores(
        self, samples: Sequence[Sample], breathe: Callable[[], None], portions: Sequence[Sequence[str]],
        losses_of: Callable[[Sequence[str], Packed], Tensor],
    ) -> dict[str, Scores]:  # fmt: skip
        counts = torch.tensor([sample.counted for sample in samples])
        sums = {name: torch.zeros(len(samples), dtype=torch.float64) for names in portions for name in names}
        order = sorted(range(len(samples)), key=lambda index: len(samples[index].ids))
        at = 0
        for batch in runs([samples[index] for index in order], EVALUATED_AT_ONCE):
            packed = pack(batch, self.device)
            places = torch.tensor(order[at : (at := at + len(batch))])
            for names in portions:
                breathe()
                losses = losses_of(names, packed).double()
                totals = losses.new_zeros(len(names), len(batch)).index_add_(1, packed.owner, losses).cpu()
                for name, total in zip(names, totals, strict=True):
                    sums[name][places] = total
        return {name: Scores(total, counts) for name, total in sums.items()}

    def _bits(self, names: Sequence[str], packed: Packed, step: int) -> Bits | None:
        """Return the dropout masks of one pass."""
        parts = [self.roster.parts[name] for name in names]
        if not any(part.params.dropout for part in parts):
            return None
        positions = packed.first + torch.arange(packed.tokens, device=self.device)
        keys = torch.stack([token_keys(part.seed, step, positions) for part in parts])
        limit = limits([part.params.dropout for part in parts], self.device)
        return lambda module, width, rows: keep_bits(keys[rows], module, width, limit[rows])

    def _fitting(self, passes: Callable[[], T], batch: Sequence[Sample]) -> T:
        """Return `passes()`; on out of memory, halve the members in a pass, or else the tokens, and retry."""
        while True:
            try:
                return passes()
            except torch.OutOfMemoryError:
                if not self._smaller([len(sample.ids) for sample in batch]):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _smaller(self, lengths: Sequence[int]) -> bool:
        """Halve the plan's pass; return whether that was possible."""
        members = min(self.plan.members, len(self.members))
        tokens = min(self.plan.tokens or sum(lengths), sum(lengths))
        if members > 1:
            self.plan.members = (members + 1) // 2
        elif lengths and tokens > max(lengths):
            self.plan.tokens = max(max(lengths), tokens // 2)
        else:
            return False
        return True

    def _identity(self, experiment: str) -> dict[str, str]:
        part, variant = self.roster.parts[experiment], self.roster.variants[experiment]
        return files.identity(part, variant, self.recipes[experiment], self.total_steps, self.lean.layout.layers)
