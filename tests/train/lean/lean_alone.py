"""Plain PEFT, alone, with the same dropout: what a member of a group is compared with."""

from __future__ import annotations

from typing import Any

import torch
from plain_peft import Training, add_lora
from torch import Tensor, nn

from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import Model, Recipe
from gridsweep.train.lean.masks import keep_bits, limits, token_keys
from gridsweep.train.samples import Sample


class KeyedDropout(nn.Module):
    """The mask a member of a group has, for the padded micro-batch `where` tells of."""

    def __init__(self, name: str, p: float, where: Where):
        super().__init__()
        self.name, self.p, self.where = name, p, where

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape, x = x.shape, x.reshape(len(self.where.lengths), -1, x.shape[-1])  # some layers read all rows in one
        keep = torch.zeros_like(x)
        first = self.where.first
        for row, length in enumerate(self.where.lengths):
            keys = token_keys(self.where.seed, self.where.step, torch.arange(first, first + length))
            bits = keep_bits(keys[None], self.name, x.shape[-1], limits([self.p], x.device))
            keep[row, :length] = bits[0].ne(0).to(x.dtype)
            first += length
        return (x * keep / (1 - self.p)).view(shape)


class Where:
    """Which tokens of the packed effective batch the micro-batch under way holds."""

    seed = step = first = 0
    lengths: tuple[int, ...] = ()


class LoraPlus(torch.optim.AdamW):
    """B learns faster: the rate it is told, times the group's ratio."""

    def step(self) -> None:
        for group in self.param_groups:
            group["lr"] *= group["ratio"]
        super().step()


class Alone(Training):
    """Plain PEFT for one experiment, with keyed dropout and, on wish, rsLoRA and LoRA+."""

    def __init__(
        self, base: Any, part: Part, recipe: Recipe, total: int, samples: list[Sample], *,
        rslora: bool = False, b_ratio: float = 1.0, reverse: bool = False,
    ):  # fmt: skip
        lora = add_lora(base, Model("./random"), part.params, recipe, part.seed)
        super().__init__(lora, part, recipe, total, samples, pad=0)
        self.where, self.reverse = Where(), reverse
        self.where.seed = part.seed
        for name, module in lora.named_modules():
            if hasattr(module, "lora_dropout"):
                plain = name.removeprefix("base_model.model.")
                if part.params.dropout:
                    module.lora_dropout["default"] = KeyedDropout(plain, part.params.dropout, self.where)
                if rslora:
                    module.scaling["default"] = part.params.alpha / part.params.r**0.5

        if b_ratio != 1:
            groups = [
                {"params": [p for name, p in self.named.items() if letter in name], "ratio": ratio}
                for letter, ratio in (("lora_A", 1.0), ("lora_B", b_ratio))
            ]
            self.optimizer = LoraPlus(groups, weight_decay=recipe.weight_decay)

    def step(self, step: int, breathe: Any) -> float:
        self.where.step, self.where.first, self.where.lengths = step, 0, ()
        return super().step(step, breathe)

    def _token_losses(self, samples: Any) -> Tensor:
        self.where.first += sum(self.where.lengths)
        self.where.lengths = tuple(len(sample.ids) for sample in samples)
        return super()._token_losses(samples[::-1] if self.reverse else samples)
