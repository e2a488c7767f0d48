"""What a group needs of the model it trains over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from gridsweep.train.lean.linear import Pass
from gridsweep.train.lean.packing import Packed
from gridsweep.train.lean.stack import Shapes
from gridsweep.train.lean.targets import Layout

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM


class Engine(Protocol):
    """A frozen base with slots for adapters on the modules in `shapes`, which `layout` describes.

    `most` is the largest number of members in a pass (None: any number).
    """

    base: CausalLM
    shapes: Shapes
    layout: Layout
    most: int | None

    def losses(self, now: Pass, packed: Packed) -> Tensor:
        """Return the cross-entropy of every counted token: [members, counted], float32."""
        ...

    def close(self) -> None:
        """Restore the base model."""
        ...
