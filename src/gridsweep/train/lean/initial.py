"""A member's initial adapter: the one PEFT draws from the member's seed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gridsweep.train.lean.stack import Shapes


def initial_row(r: int, shapes: Shapes, seed: int) -> Tensor:
    """Return every A and then every B of a new adapter in one row, float32: A as PEFT draws it, B zero.

    PEFT makes two linear layers per module, each of which draws its weights, and then draws A again.
    """
    generator = torch.Generator().manual_seed(seed)
    firsts, seconds = [], []
    for width, out in shapes.values():
        for shape in ((r, width), (out, r), (r, width)):
            drawn = torch.empty(shape)
            torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        firsts.append(drawn.flatten())
        seconds.append(torch.zeros(out * r))
    return torch.cat([*firsts, *seconds])
