"""Whether an engine computes what the model does: losses, gradients, and samples that do not see each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gridsweep.train.lean.linear import Block, Pass
from gridsweep.train.lean.noise import plain_losses, rounding
from gridsweep.train.lean.packing import Packed, pack
from gridsweep.train.samples import Sample

if TYPE_CHECKING:
    from gridsweep.train.lean.engine import Engine
    from gridsweep.train.lean.stack import Shapes
    from gridsweep.train.pretrained import CausalLM

EXACT = 1e-5  # nats, or this share of a larger loss
TIMES, INEXACT = 16, 1e-4  # a model that magnifies rounding may differ by this many times its own, but not by more
SLOPES = 1e-3  # of a module's largest gradient
LENGTHS = (21, 6, 24)  # two of them alike, two longer than a miniature's window
RANK = 2

Pairs = Mapping[str, tuple[Tensor, Tensor]]  # module -> A [1, r, in], B^T [1, r, out]


@dataclass(frozen=True, slots=True)
class Truth:
    """What the plain model computes with an adapter added to its weights: losses, and slopes of A and B^T."""

    losses: Tensor
    slopes: Pairs


def difference(base: CausalLM, made: Callable[[CausalLM], Engine]) -> str | None:
    """Return in words how an engine over a float32 model differs from the model; None if it does not.

    The engine runs two members with different adapters. Their losses and gradients must be the plain ones, and the
    losses of a sample must not move when the tokens of the sample before it change.
    """
    try:
        engine = made(base)
    except Exception as error:  # any error of any architecture's code
        return _reason(error)
    samples = examples()
    try:
        shapes = engine.shapes
        adapters = [adapter(shapes, seed) for seed in (1, 2)]
        ours, slopes = _run(engine, adapters, pack(samples, base.device))
        others = [Sample(tuple(reversed(samples[0].ids)), samples[0].prompt), *samples[1:]]
        moved, _ = _run(engine, adapters, pack(others, base.device))
    except Exception as error:  # any error of any architecture's code
        return _reason(error)
    finally:
        engine.close()
    later = samples[0].counted
    leak = (moved[:, later:] - ours[:, later:]).abs().max().item()
    if leak > (EXACT if _has_experts(base) else 0):  # experts round by the tokens that reach them
        return f"samples packed together see each other (a loss moves by {leak:.2g})"
    allowed = max(EXACT, min(TIMES * rounding(base, samples), INEXACT))
    for member, weights in enumerate(adapters):
        truth = plain_truth(base, samples, weights)
        off = ((ours[member] - truth.losses).abs() / truth.losses.abs().clamp_min(1)).max().item()
        if not off <= allowed:
            return f"its losses come out otherwise (by up to {off:.2g})"
        for name in shapes:
            for got, wanted in zip(slopes[name], truth.slopes[name], strict=True):
                near = SLOPES * allowed / EXACT
                if not (got[member] - wanted[0]).abs().max() <= near * wanted.abs().max() + 1e-6:
                    return f"the gradient of {name} comes out otherwise"
    return None


def is_causal(base: CausalLM) -> bool:
    """Return whether a loss depends on the tokens up to its own alone: another last token changes no other loss."""
    (sample, *_) = examples()
    other = Sample((*sample.ids[:-1], sample.ids[-1] ^ 1), sample.prompt)
    moved = (plain_losses(base, [sample]) - plain_losses(base, [other]))[:-1].abs().max().item()
    return moved <= EXACT


def examples() -> list[Sample]:
    """Return samples of random tokens, fixed."""
    chance = torch.Generator().manual_seed(7)
    return [Sample(tuple(torch.randint(2, 250, (n,), generator=chance).tolist()), 1 + n // 3) for n in LENGTHS]


def adapter(shapes: Shapes, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return random weights of an adapter that matter: A [1, r, in], B^T [1, r, out]."""
    chance = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(1, RANK, width, generator=chance) / width**0.5,
            torch.randn(1, RANK, out, generator=chance) / RANK,
        )
        for name, (width, out) in shapes.items()
    }


def plain_truth(base: CausalLM, samples: Sequence[Sample], weights: Pairs) -> Truth:
    """Return what the plain model computes, each sample read alone, with the adapter added to its weights."""
    from gridsweep.train.lean.targets import is_conv1d

    before: dict[str, Tensor] = {}
    parameters: dict[str, torch.nn.Parameter] = {}
    flipped = {name: is_conv1d(base.get_submodule(name)) for name in weights}
    try:
        for name, (a, b) in weights.items():
            parameter = base.get_submodule(name).weight
            assert isinstance(parameter, torch.nn.Parameter)
            before[name], parameters[name] = parameter.data, parameter
            change = b[0].mT @ a[0]
            parameter.data = parameter.data + (change.mT if flipped[name] else change)
            parameter.requires_grad_(True)
        with torch.enable_grad():
            losses = plain_losses(base, list(samples), slopes=True)
            losses.sum().backward()
        slopes = {}
        for name, (a, b) in weights.items():
            grad = parameters[name].grad
            slope = torch.zeros_like(before[name]) if grad is None else grad
            slope = slope.mT if flipped[name] else slope
            slopes[name] = (b @ slope[None], a @ slope.mT[None])
        return Truth(losses.detach(), slopes)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(False)
            parameter.data, parameter.grad = before[name], None


def _run(engine: Engine, adapters: Sequence[Pairs], packed: Packed) -> tuple[Tensor, Pairs]:
    """Return the losses [members, counted], and the slopes of A and B^T of all members."""
    members = len(adapters)
    weights = {
        name: (torch.cat([w[name][0] for w in adapters]), torch.cat([w[name][1] for w in adapters]))
        for name in engine.shapes
    }
    slopes = {name: (torch.zeros_like(a), torch.zeros_like(b)) for name, (a, b) in weights.items()}

    def bits(module: str, width: int, rows: slice) -> Tensor:
        """Keep everything; a layer that reads other tokens than the row's does not fit these masks."""
        return torch.full((rows.stop - rows.start, packed.tokens, width), -1, dtype=torch.int32)

    block = Block(slice(0, members), torch.ones(members, 1, 1), weights, slopes, True)
    losses = engine.losses(Pass(members, [block], bits), packed)
    losses.sum().backward()
    return losses.detach(), slopes


def _has_experts(base: CausalLM) -> bool:
    names = (type(module).__name__ for _, module in base.named_modules())
    return any("Expert" in name or "moe" in name.lower() for name in names)


def _reason(error: Exception) -> str:
    from gridsweep.errors import SpecError

    if isinstance(error, SpecError):
        return " ".join(str(error).split())[:300]
    return f"its code does not run such passes ({type(error).__name__})"
