"""The adapters of all members of one rank as rows of one matrix, with AdamW and a moving average over the rows.

A row holds every A of an adapter and then every B^T, each contiguous. A [members, r, in] and B^T [members, r, out] of
a module are therefore views, one optimizer step is a few operations for any number of members and modules, and members
are removed by selecting rows. Each rank has its own stack: padding ranks would cost work, and the rounding of a
product would depend on the other members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, int]]  # module name -> (in, out)
BETAS, EPS = (0.9, 0.999), 1e-8  # torch's own defaults


class Stack:
    """Weights, gradients, Adam moments and the average of members of rank `r`: each [members, weights], float32."""

    def __init__(self, r: int, shapes: Shapes, rows: Sequence[Tensor], scales: Sequence[float], device: torch.device):
        self.r, self.shapes, self.device = r, shapes, device
        self.places = _places(r, shapes)
        self.split = sum(r * width for width, _ in shapes.values())  # where the Bs begin
        self.weights = torch.stack(list(rows)).to(device)
        self.grads = torch.zeros_like(self.weights)
        self.mean = torch.zeros_like(self.weights)
        self.square = torch.zeros_like(self.weights)
        self.average = self.weights.clone()
        self.scales = list(scales)
        self.steps = [0] * len(rows)  # optimizer steps made

    def __len__(self) -> int:
        return len(self.steps)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only the members in these rows."""
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        for name in ("weights", "grads", "mean", "square", "average"):
            setattr(self, name, getattr(self, name).index_select(0, index))
        self.scales = [self.scales[row] for row in rows]
        self.steps = [self.steps[row] for row in rows]

    def by_module(self, rows: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return views of A and B^T of every module in some rows [members, weights]."""
        views = {}
        for module, (a, b) in self.places.items():
            width, out = self.shapes[module]
            views[module] = (rows[:, a].unflatten(1, (self.r, width)), rows[:, b].unflatten(1, (self.r, out)))
        return views

    def of_member(self, rows: Tensor, row: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Return views of one member's A [r, in] and B [out, r] of every module in `rows`."""
        return {module: (a[0], b[0].mT) for module, (a, b) in self.by_module(rows[row : row + 1]).items()}

    def step(
        self, rates: Sequence[float], ratios: Sequence[float], decays: Sequence[float], clips: Sequence[float],
        average: float,
    ) -> None:  # fmt: skip
        """Make one AdamW step for each member, as torch does.

        `rates` are learning rates, `ratios` the factors on B's learning rate (LoRA+), `decays` the weight decays; each
        member's gradient is clipped to a norm of at most its value of `clips` (0: no clipping). The new weights get the
        share `average` of the moving average.
        """
        beta, beta_square = BETAS
        if any(clip > 0 for clip in clips):
            norms = torch.linalg.vector_norm(self.grads, dim=1, keepdim=True)
            most = _column([clip if clip > 0 else math.inf for clip in clips], self.grads)
            self.grads.mul_(((norms + 1e-6).reciprocal() * most).clamp_(max=1.0))
        self.steps = [steps + 1 for steps in self.steps]
        self.mean.lerp_(self.grads, 1 - beta)
        self.square.mul_(beta_square).addcmul_(self.grads, self.grads, value=1 - beta_square)
        roots = _column([math.sqrt(1 - beta_square**steps) for steps in self.steps], self.weights)
        change = self.square.sqrt().div_(roots).add_(EPS)
        torch.div(self.mean, change, out=change)
        halves = [(slice(None), [1.0] * len(ratios))]
        if any(ratio != 1 for ratio in ratios):
            halves = [(slice(0, self.split), [1.0] * len(ratios)), (slice(self.split, None), list(ratios))]
        for half, factors in halves:
            peak = [rate * factor for rate, factor in zip(rates, factors, strict=True)]
            sizes = [rate / (1 - beta**steps) for rate, steps in zip(peak, self.steps, strict=True)]
            weights = self.weights[:, half]
            weights.mul_(_column([1 - rate * decay for rate, decay in zip(peak, decays, strict=True)], weights))
            weights.sub_(change[:, half].mul_(_column(sizes, weights)))
        self.average.lerp_(self.weights, average)


def _places(r: int, shapes: Shapes) -> dict[str, tuple[slice, slice]]:
    """Return the slices of A and B of every module in a row."""
    ends, at = {}, 0
    for module, (width, _) in shapes.items():
        ends[module] = slice(at, at := at + r * width)
    places = {}
    for module, (_, out) in shapes.items():
        places[module] = (ends[module], slice(at, at := at + r * out))
    return places


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)
