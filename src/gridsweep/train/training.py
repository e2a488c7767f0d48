"""One experiment's training: an optimizer step, an evaluation, a state that can be saved and taken up again.

Everything a step does is a function of (seeds, step, state): which samples it sees, its learning rate, its
dropout. So an interrupted training goes on exactly as if it had not been; on a CPU bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from gridsweep.attempt import Part
from gridsweep.sweep import Recipe
from gridsweep.train.learning_rate import learning_rate
from gridsweep.train.model import load_adapter, save_adapter, save_tensors
from gridsweep.train.samples import IGNORED, Sample, by_length, collate, effective_batch

EVALUATED_AT_ONCE = 2048  # positions; nothing is kept for a backward pass


class Diverged(Exception):
    """A loss that is not a number: this experiment has failed, and would again."""


@dataclass(slots=True)
class History:
    """What the result needs to know of steps made earlier, perhaps by other attempts."""

    recent: list[float] = field(default_factory=list)  # training losses of the last tenth of all steps
    initial_validation_loss: float | None = None


class Training:
    """The adapter of one experiment on its way through `total_steps` optimizer steps."""

    def __init__(self, lora: Any, part: Part, recipe: Recipe, total_steps: int, train: Sequence[Sample], pad: int):
        self.lora, self.part, self.recipe, self.total_steps = lora, part, recipe, total_steps
        self.train, self.pad = train, pad
        self.history = History()
        self.device = next(lora.parameters()).device
        self.named = {name: p for name, p in lora.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            list(self.named.values()), lr=part.params.lr, weight_decay=recipe.weight_decay, fused=True
        )

    def step(self, step: int, breathe: Callable[[], None]) -> float:
        """Make optimizer step `step` (from 0). Returns its loss: the mean over its response tokens.

        Calls `breathe` before each micro-batch; what that raises leaves the state as it was before the step.
        Raises `Diverged`.
        """
        size, recipe = self.recipe.batch_size, self.recipe
        samples = effective_batch(self.train, step, size * recipe.accumulation, recipe.seed)
        counted = sum(sample.counted for sample in samples)
        self.lora.train()
        self.optimizer.zero_grad(set_to_none=True)
        # For dropout: keyed by the moment instead of by what came before, so nothing of it need be saved.
        torch.manual_seed(_key(self.part.seed, step))
        total = torch.zeros((), device=self.device)
        for first in range(0, len(samples), size):
            breathe()
            loss = self._token_losses(samples[first : first + size]) / counted
            loss.backward()
            total += loss.detach()
        loss_value = total.item()
        if not math.isfinite(loss_value):
            raise Diverged(f"the training loss is {loss_value} at step {step + 1}")
        if recipe.clip > 0:
            torch.nn.utils.clip_grad_norm_(self.named.values(), recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.part.params.lr, step, self.total_steps)
        self.optimizer.step()
        self.history.recent = [*self.history.recent, loss_value][-max(1, self.total_steps // 10) :]
        return loss_value

    @torch.no_grad()
    def evaluate(self, samples: Sequence[Sample], step: int, breathe: Callable[[], None]) -> float:
        """The mean loss over all response tokens. Calls `breathe` before each batch. Raises `Diverged`."""
        self.lora.eval()
        total = 0.0
        for batch in by_length(samples, EVALUATED_AT_ONCE):
            breathe()
            total += self._token_losses(batch).item()
        loss = total / sum(sample.counted for sample in samples)
        if not math.isfinite(loss):
            raise Diverged(f"the validation loss is {loss} at step {step}")
        return loss

    def _token_losses(self, samples: Sequence[Sample]) -> Tensor:
        """The sum of the cross-entropies of all response tokens, in float32."""
        batch = collate(samples, self.pad, self.device)
        labels = batch.pop("labels")[:, 1:]
        logits = self.lora(**batch).logits[:, :-1]
        counts = labels != IGNORED
        return F.cross_entropy(logits[counts].float(), labels[counts], reduction="sum")

    def save_adapter(self, folder: Path) -> None:
        """The adapter alone, as plain PEFT reads it."""
        save_adapter(self.lora, folder)

    def save(self, folder: Path) -> None:
        """Adapter, optimizer state and history; together with the step all there is to know. No pickle."""
        save_adapter(self.lora, folder)
        states = {
            f"{key}/{name}": tensor
            for name, parameter in self.named.items()
            for key, tensor in self.optimizer.state[parameter].items()
        }
        save_tensors(states, folder / "optimizer.safetensors")
        history = {
            "recent": self.history.recent,
            "initial_validation_loss": self.history.initial_validation_loss,
        }
        (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take up a saved state."""
        load_adapter(self.lora, folder)
        saved = load_file(folder / "optimizer.safetensors")
        state: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(self.named))}
        indices = {name: index for index, name in enumerate(self.named)}
        for label, tensor in saved.items():
            key, _, name = label.partition("/")
            state[indices[name]][key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.history = History(**json.loads((folder / "history.json").read_text(encoding="utf-8")))


def _key(seed: int, step: int) -> int:
    """A 63-bit seed for one step of one experiment."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "big") >> 1
