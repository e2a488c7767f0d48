"""A model's plain losses on an example, and how far they may lie from packed ones by rounding alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gridsweep.train.lean.targets import text_config
from gridsweep.train.samples import Sample

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM

FULL = (torch.float32, torch.float64)
NEAR = 1e-3  # in float32: of the loss, and absolutely
TIMES, FLOOR = 8, 0.02  # in fewer bits: this many times the model's own noise, and some nats a token


@dataclass(frozen=True, slots=True)
class Plainly:
    """The plain losses of an example, float32, and their mean change by one rounding error in every embedding."""

    samples: list[Sample]
    losses: Tensor
    noise: float | None

    def equal(self, packed: Tensor) -> bool:
        """Return whether packed losses are the plain ones, but for rounding."""
        packed = packed.float()
        if self.noise is None:
            return torch.allclose(packed, self.losses, rtol=NEAR, atol=NEAR)
        return (packed - self.losses).abs().mean().item() <= TIMES * self.noise + FLOOR


def plainly(base: CausalLM) -> Plainly:
    """Return the plain losses of two short samples of different lengths."""
    size = text_config(base.config).vocab_size
    samples = [Sample(tuple((7 * n * n + 3 * k) % size for n in range(1, 9 + 4 * k)), 1) for k in range(2)]
    losses = plain_losses(base, samples)
    if base.dtype in FULL:
        return Plainly(samples, losses, None)
    return Plainly(samples, losses, (_rounded_otherwise(base, samples) - losses).abs().mean().item())


def rounding(base: CausalLM, samples: list[Sample]) -> float:
    """Return by how much one rounding error in every embedding moves a plain loss, at most."""
    return (_rounded_otherwise(base, samples) - plain_losses(base, samples)).abs().max().item()


def _rounded_otherwise(base: CausalLM, samples: list[Sample]) -> Tensor:
    disturb = base.get_input_embeddings().register_forward_hook(_disturbed)
    try:
        return plain_losses(base, samples)
    finally:
        disturb.remove()


def plain_losses(base: CausalLM, samples: list[Sample], *, slopes: bool = False) -> Tensor:
    """Return the losses of all learned tokens, each sample read alone, float32; with their graph if `slopes`."""
    with torch.set_grad_enabled(slopes):
        return torch.cat(_each(base, samples))


def _each(base: CausalLM, samples: list[Sample]) -> list[Tensor]:
    losses = []
    for sample in samples:
        ids = torch.tensor([sample.ids], device=base.device)
        at = torch.tensor([place for part in sample.learned for place in part], device=base.device)
        logs = base(input_ids=ids, use_cache=False).logits[0, at - 1].float().log_softmax(-1)
        losses.append(-logs.gather(-1, ids[0, at, None])[:, 0])
    return losses


def _disturbed(_: nn.Module, __: object, out: Tensor) -> Tensor:
    """Move every number by one unit in the last place, up or down."""
    signs = 1 - 2 * (torch.arange(out.numel(), device=out.device).view(out.shape) * 7919 // 31 % 2)
    return out * (1 + signs.to(out.dtype) * torch.finfo(out.dtype).eps)
