"""The ways of training that benchmarks/gpu.py times: plain PEFT as it is mostly run, PEFT tuned, and lean groups."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from gridsweep.sweep.designs import published
from gridsweep.sweep.experiments import LoraParams, Recipe
from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint
from gridsweep.train.lean import loss
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.roster import Roster
from gridsweep.train.samples import Sample, effective_batch

EFFECTIVE = Recipe(batch_size=2, accumulation=4)
MEAN, SPREAD, LONGEST, SHORTEST = 500.0, 0.8, 384, 16
"""Lengths like HelpSteer2's: lognormal with this mean in tokens and this spread of their logarithm. Then 47 % are cut,
and the mean of what is left is 297."""
IGNORED = -100


def samples(count: int, longest: int, vocabulary: int, seed: int = 0) -> list[Sample]:
    """Random tokens in the mix of lengths, scaled to `longest`; a third of each is prompt."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        drawn = chance.lognormvariate(math.log(MEAN) - SPREAD**2 / 2, SPREAD) * longest / LONGEST
        length = min(longest, max(SHORTEST, round(drawn)))
        found.append(Sample(tuple(chance.randrange(2, vocabulary) for _ in range(length)), length // 3))
    return found


def as_they_come(train: Sequence[Sample], step: int) -> list[Sample]:
    """The samples of a step, unsorted."""
    batch = effective_batch(train, step, 8, EFFECTIVE.seed)
    random.Random(step).shuffle(batch)
    return batch


def levelled(batch: Sequence[Sample]) -> list[Sample]:
    """As many samples of as many tokens in all, but of one length (the remainder is left out): no padding at all."""
    ids = [token for sample in batch for token in sample.ids]
    length = len(ids) // len(batch)
    return [Sample(tuple(ids[n * length : (n + 1) * length]), length // 3) for n in range(len(batch))]


def shared_copy(base: Any) -> Any:
    """Another module tree over the same weights."""
    return copy.deepcopy(base, {id(tensor): tensor for tensor in chain(base.parameters(), base.buffers())})


@dataclass
class Way:
    """One way of making steps; `make(n)` makes the n-th and returns the tokens of all adapters, padding not counted.

    `held` are the bytes of the state of its adapters; `why` says why it was not measured.
    """

    name: str
    kind: str
    adapters: int
    make: Callable[[int], int]
    held: int
    r: int = 0
    in_a_pass: int = 1
    tokens_in_a_pass: int | None = None
    why: str = ""
    shrink: Callable[[], str] | None = None  # what can be done where memory is too small
    seconds: list[float] = field(default_factory=list)  # a token
    joules: list[float] = field(default_factory=list)  # a token
    peak: int = 0


class Peft:
    """An adapter of plain PEFT with its optimizer: float32 adapters under bfloat16's autocast on a GPU."""

    def __init__(self, base: Any, params: LoraParams, train: Sequence[Sample]):
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=params.r, lora_alpha=int(params.alpha), lora_dropout=params.dropout,
            target_modules=list(EFFECTIVE.target_modules), task_type="CAUSAL_LM",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.lora = get_peft_model(shared_copy(base), config)
        self.device, self.train, self.r = base.device, train, params.r
        self.weights = [p for p in self.lora.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=params.lr, weight_decay=0.01, fused=True)
        self.checkpointing = False

    @property
    def held(self) -> int:
        return 4 * sum(p.numel() * p.element_size() for p in self.weights)  # with gradient and Adam's moments

    def naive(self, n: int) -> int:
        """Micro-batches of 2 as they come, each padded to its longest; logits of all tokens."""
        batch = as_they_come(self.train, n)
        return self._step([batch[first : first + 2] for first in range(0, len(batch), 2)], every=True)

    def tuned(self, n: int) -> int:
        """One micro-batch of 8 without padding; logits only where they count."""
        return self._step([levelled(as_they_come(self.train, n))], every=False)

    @torch.no_grad()
    def judge(self, level: bool) -> Callable[[int], int]:
        """8 samples judged, padded to the longest, or without padding."""

        def make(n: int) -> int:
            self.lora.eval()
            batch = as_they_come(self.train, n)
            batch = levelled(batch) if level else batch
            with torch.no_grad(), self._autocast():
                self._loss(batch, every=not level)
            return sum(len(sample.ids) for sample in batch)

        return make

    def checkpoint(self) -> str:
        """Recompute in the backward pass, as one does where memory is too small."""
        if self.checkpointing:
            return ""
        self.checkpointing = True
        self.lora.base_model.model.gradient_checkpointing_enable({"use_reentrant": False})
        return "with activation checkpointing"

    def _step(self, parts: list[list[Sample]], every: bool) -> int:
        self.lora.train()
        self.optimizer.zero_grad(set_to_none=True)
        counted = sum(sample.counted for part in parts for sample in part)
        for part in parts:
            with self._autocast():
                total = self._loss(part, every) / counted
            total.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        return sum(len(sample.ids) for part in parts for sample in part)

    def _loss(self, part: Sequence[Sample], every: bool) -> Tensor:
        longest = max(len(sample.ids) for sample in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for row, sample in enumerate(part):
            size = len(sample.ids)
            ids[row, :size] = torch.tensor(sample.ids)
            labels[row, sample.prompt : size] = ids[row, sample.prompt : size]
            mask[row, :size] = 1
        ids, labels, mask = (tensor.to(self.device, non_blocking=True) for tensor in (ids, labels, mask))
        if every:
            logits, wanted = self.lora(input_ids=ids, attention_mask=mask).logits[:, :-1], labels[:, 1:]
        else:  # all of one length and one prompt
            places = torch.arange(part[0].prompt - 1, longest - 1, device=self.device)
            logits, wanted = self.lora(input_ids=ids, logits_to_keep=places).logits, labels[:, part[0].prompt :]
        return F.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )  # fmt: skip

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()


def spread_over(count: int) -> list[LoraParams]:
    """So many of the published experiments, their ranks mixed as in the whole."""
    every = published()
    return [every[n * len(every) // count] for n in range(count)]


class Lean:
    """One group that is as large as may be, of which steps are made by some of its members or by all."""

    def __init__(self, group: Group, footprint: Footprint, memory: float | None):
        self.group, self.footprint, self.memory = group, footprint, memory
        self.whole = group.roster

    def way(self, members: int, in_a_pass: int, *, name: str = "", kind: str = "lean", kept: bool | None = None,
            logits: int = 0, dropout: bool = True) -> Way:  # fmt: skip
        """Steps of the first `members`, `in_a_pass` at once, with as many tokens of each in a pass as fit."""
        roster = self._narrowed(members)
        remember = self.group.device.type == "cpu" if kept is None else kept
        ranks = [part.params.r for part in roster.parts.values()]
        tokens, why = self._tokens(in_a_pass, max(ranks), remember)
        plan = Plan(in_a_pass, tokens, remember)
        longest = max(len(sample.ids) for sample in self.group.train)

        def fewer() -> str:
            """Fewer tokens in a pass; the model of memory was too hopeful."""
            if (plan.tokens or 8 * longest) <= longest:
                return ""
            plan.tokens = made.tokens_in_a_pass = max(longest, (plan.tokens or 8 * longest) // 2)
            return "fewer tokens"

        def make(n: int) -> int:
            group = self.group
            group.roster, group.plan = roster, replace(plan)
            silent = nullcontext() if dropout else patch.object(group, "_bits", lambda *_: None)
            with silent, patch.dict(loss.LOGITS_AT_ONCE, {"cuda": logits or loss.LOGITS_AT_ONCE["cuda"]}):
                group.step(n, lambda: None)
            if group.plan != plan:  # the group halves what does not fit; that would be another way
                raise torch.OutOfMemoryError
            return members * sum(len(sample.ids) for sample in group.batch(n))

        held = sum(map(self.footprint.adapter, ranks))
        title = name or f"lean, {members} in passes of {in_a_pass}"
        made = Way(title, kind, members, make, held, in_a_pass=in_a_pass, tokens_in_a_pass=tokens, why=why)
        made.shrink = fewer
        return made

    def judging(self, validation: Sequence[Sample], in_a_pass: int) -> Way:
        """8 samples judged for all members, with averaged weights."""
        members = len(self.whole.parts)

        def make(n: int) -> int:
            self.group.roster, self.group.plan = self.whole, Plan(in_a_pass)
            batch = as_they_come(validation, n)
            self.group.evaluate(batch, lambda: None, averaged=True)
            return members * sum(len(sample.ids) for sample in batch)

        held = sum(self.footprint.adapter(part.params.r) for part in self.whole.parts.values())
        return Way(f"judging, lean, {members} members", "judging lean", members, make, held, in_a_pass=in_a_pass)

    def _tokens(self, members: int, r: int, remember: bool) -> tuple[int | None, str]:
        """The most tokens of each in a pass by the model of memory (None: a whole step's); why none fit."""
        if self.memory is None:
            return None, ""
        room = self.memory * (1 - HEADROOM) - torch.cuda.memory_allocated() - self.footprint.logits(members)
        each = SHORT_LIVED * replace(self.footprint, remembered=remember).token(r, members)
        tokens = int(room // (members * each))
        longest = max(len(sample.ids) for sample in self.group.train)
        if tokens < longest:
            return longest, f"out of memory by its model: {members} x {longest} tokens are {each / 1e6:.1f} MB each"
        return (None, "") if tokens >= 8 * longest else (tokens, "")

    def _narrowed(self, members: int) -> Roster:
        """A roster of some, in views of the whole's stacks."""
        some = copy.copy(self.whole)
        wanted = [params.r for params in spread_over(members)]
        parts = []
        some.stacks = {}
        for r, stack in self.whole.stacks.items():
            own = self.whole.of_rank(r)[: wanted.count(r)]
            if own:
                part = some.stacks[r] = copy.copy(stack)
                for rows in ("weights", "grads", "mean", "square", "average"):
                    setattr(part, rows, getattr(stack, rows)[: len(own)])
                part.scales, part.steps = stack.scales[: len(own)], stack.steps[: len(own)]
                parts += own
        some.parts, some.benches = {part.experiment: part for part in parts}, {}
        return some
