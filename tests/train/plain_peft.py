"""Plain PEFT and torch's own AdamW, one experiment at a time: the oracle the co-trainer is held against."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import LoraParams, Model, Recipe
from gridsweep.train.lean.group import History
from gridsweep.train.learning_rate import learning_rate
from gridsweep.train.samples import Sample, effective_batch

EVALUATED_AT_ONCE = 2048  # positions, padding included
IGNORED = -100  # the label of a position that does not count


class Diverged(Exception):
    """A loss that is not a number."""


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


def collate(samples: Sequence[Sample], pad: int, device: torch.device) -> dict[str, Tensor]:
    """A batch, padded on the right: input_ids, attention_mask and labels, each [samples, tokens]."""
    length = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), length), pad)
    labels = torch.full((len(samples), length), IGNORED)
    mask = torch.zeros((len(samples), length), dtype=torch.long)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        ids[row, :n] = torch.tensor(sample.ids)
        labels[row, sample.prompt : n] = ids[row, sample.prompt : n]
        mask[row, :n] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def by_length(samples: Iterable[Sample], tokens: int) -> list[list[Sample]]:
    """All samples in batches of like lengths, of at most `tokens` positions (or a single sample)."""
    batches: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: len(sample.ids)):
        if not batches or (len(batches[-1]) + 1) * len(sample.ids) > tokens:
            batches.append([])
        batches[-1].append(sample)
    return batches


def add_lora(base: Any, model: Model, params: LoraParams, recipe: Recipe, seed: int) -> Any:
    """The base with a fresh adapter, a function of `seed`."""
    config = LoraConfig(
        r=params.r,
        lora_alpha=int(params.alpha) if params.alpha == int(params.alpha) else params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(recipe.target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.id,
        revision=model.revision,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # PEFT renames the base in the config (undone below), and asks transformers in an old way.
        warnings.filterwarnings("ignore", message=".*base_model_name_or_path.* was renamed", category=UserWarning)
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        lora = get_peft_model(base, config)
    # PEFT puts the folder it was loaded from here, which would mean nothing on another machine.
    config.base_model_name_or_path = model.id
    return lora


def load_adapter(lora: Any, folder: Path) -> None:
    """Put saved adapter weights in place."""
    set_peft_model_state_dict(lora, load_file(folder / "adapter_model.safetensors"))
