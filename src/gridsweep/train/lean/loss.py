"""The cross-entropy of every counted token, from hidden states, without holding all logits at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gridsweep.train.lean.autograd import Context
from gridsweep.train.lean.linear import frozen_product

LOGITS_AT_ONCE = {"cpu": 2**18, "cuda": 2**24}
"""The number of logits alive at once, by device type.

On a CPU the number is per member, so that the group does not affect a member's rounding; elsewhere it is for all
members of a pass.
"""
FEWEST_ROWS = 16


def rows_at_once(members: int, vocabulary: int, device: str) -> int:
    """Return the number of tokens of each member whose logits are alive at once; `device` is a device type."""
    if device == "cpu":
        members = 1
    return max(FEWEST_ROWS, LOGITS_AT_ONCE["cpu" if device == "cpu" else "cuda"] // (members * vocabulary))


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a model does to its logits: it adds `bias` [vocabulary], multiplies, and limits them to +-`softcap`."""

    bias: Tensor | None = None
    factor: float = 1.0
    softcap: float | None = None

    def apply(self, logits: Tensor) -> Tensor:
        """Return the model's logits; `logits` already has the bias."""
        if self.factor != 1:
            logits = logits * self.factor
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def slope(self, slope: Tensor, logits: Tensor) -> Tensor:
        """Return the derivative by the product with the head, given that by `logits`, the model's."""
        if self.softcap is not None:
            slope = slope * (1 - (logits / self.softcap) ** 2)
        return slope if self.factor == 1 else slope * self.factor


PLAIN = Scaling()


class TokenLosses(torch.autograd.Function):
    """Cross-entropy of every counted token, float32: [members, counted].

    Inputs are hidden [members, counted, hidden size], head [vocabulary, hidden size], targets [counted] and what the
    model does to its logits. The gradient is computed in the forward pass, while the logits are alive; only the
    gradient, as large as `hidden`, is kept.
    """

    @staticmethod
    def forward(ctx: Context, hidden: Tensor, head: Tensor, targets: Tensor, scaling: Scaling = PLAIN) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        rows = rows_at_once(hidden.shape[0], head.shape[0], hidden.device.type)
        kept = torch.empty_like(hidden) if wanted else None
        kind = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        losses = torch.empty(hidden.shape[:2], dtype=kind, device=hidden.device)
        for first in range(0, hidden.shape[1], rows):
            part = slice(first, first + rows)
            logits = frozen_product(hidden[:, part], head.mT, scaling.bias).to(kind)
            if scaling is not PLAIN:
                logits = scaling.apply(logits)
            logs = torch.log_softmax(logits, -1)
            wants = targets[part].expand(hidden.shape[0], -1).unsqueeze(-1)
            losses[:, part] = -logs.gather(-1, wants).squeeze(-1)
            if kept is not None:
                # The derivative by the logits: the probabilities, minus one at the target.
                slope = logs.exp_()
                slope.scatter_(-1, wants, slope.gather(-1, wants) - 1)
                if scaling is not PLAIN:
                    slope = scaling.slope(slope, logits)
                kept[:, part] = frozen_product(slope.to(hidden.dtype), head)
        ctx.save_for_backward(kept)
        return losses

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        return kept * grad.unsqueeze(-1).to(kept.dtype), None, None, None
