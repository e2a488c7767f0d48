"""The memory model of a group, as a value: the base, each adapter's state, and the bytes each token of a pass keeps.

The model leaves out allocator fragmentation and the CUDA context, for which `HEADROOM` is kept free, and short-lived
results of single operations; code that fills a device completely accounts for these with `SHORT_LIVED`. During the
optimizer step, one more row of a stack is alive than is counted here; by then the pass's activations are freed, which
are usually larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsweep.train.lean.loss import rows_at_once
from gridsweep.train.lean.memory import bytes_per_token
from gridsweep.train.lean.stack import Shapes

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM, Config

STATE = {"weights": 1, "gradient": 1, "Adam": 2, "average": 1}
"""The number of float32 rows of a stack that an adapter has, by purpose."""
HEADROOM = 0.1  # of a device's memory
SHORT_LIVED = 1.2  # times what a pass keeps: temporaries of single operations, such as masks and slopes of SwiGLU


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of groups over one base of `base` bytes, whose numbers have `element` bytes.

    `shapes` holds the adapted modules' (in, out); `config` is the model's, which must be Qwen2- or Llama-shaped.
    `counted` is the share of tokens with a loss, `remembered` says whether dropout masks are kept, `device` is a
    device type. `beside` is what the process takes beside all this, in bytes, where that is the same memory.
    """

    base: int
    element: int
    shapes: Shapes
    config: Config
    counted: float = 1.0
    remembered: bool = False
    device: str = "cuda"
    beside: float = 0.0

    def parameters(self, r: int) -> int:
        """Return the number of weights of an adapter of rank `r`."""
        return r * sum(width + out for width, out in self.shapes.values())

    def adapter(self, r: int) -> int:
        """Return the bytes of an adapter's weights, gradient, Adam moments and average: float32 each."""
        return 4 * sum(STATE.values()) * self.parameters(r)

    def token(self, r: int, members: int = 1) -> float:
        """Return the bytes that one token of one of `members` in a pass keeps for the backward pass."""
        return bytes_per_token(
            self.shapes, self.config, r, self.element, members=members, counted=self.counted, remembered=self.remembered
        )

    def token_of_each(self, ranks: Sequence[int]) -> float:
        """Return the bytes that one token of each member of a pass keeps for the backward pass."""
        return sum(self.token(r, len(ranks)) for r in ranks)

    def logits(self, members: int) -> int:
        """Return the bytes of a pass's logits that are alive at once: as computed, in float32, and their slope."""
        vocabulary = self.config.vocab_size
        return members * rows_at_once(members, vocabulary, self.device) * vocabulary * (2 * self.element + 8)

    def in_a_pass(self, ranks: list[int], tokens: int) -> float:
        """Return the bytes of a pass of members of these ranks over `tokens` tokens of each."""
        return tokens * self.token_of_each(ranks) + self.logits(len(ranks))

    def resident(self, memory: float, r: int, tokens: int) -> int:
        """Return how many adapters of rank `r` fit in `memory` bytes beside the base and a pass of one adapter."""
        return _whole(self._room(memory) - self.in_a_pass([r], tokens), self.adapter(r))

    def at_once(self, memory: float, r: int, tokens: int) -> int:
        """Return how many adapters of rank `r` fit in `memory` bytes when all share a pass with `tokens` of each."""
        return _whole(self._room(memory), self.adapter(r) + self.in_a_pass([r], tokens))

    def tokens(self, memory: float, ranks: list[int], members: int, r: int) -> int:
        """Return how many tokens of each of `members` of rank `r` fit a pass while adapters of all `ranks` live."""
        room = self._room(memory) - sum(self.adapter(rank) for rank in ranks) - self.logits(members)
        return _whole(room, members * self.token(r, members))

    def _room(self, memory: float) -> float:
        return memory * (1 - HEADROOM) - self.base - self.beside


def of_model(
    model: CausalLM, targets: tuple[str, ...], *, counted: float = 1.0, remembered: bool = False, device: str = "cuda"
) -> Footprint:
    """Return the footprint of a transformers model without adapters, on any device (including "meta")."""
    import torch

    shapes = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in targets
    }
    return Footprint(weights_of(model), model.dtype.itemsize, shapes, model.config, counted, remembered, device)


def weights_of(model: CausalLM) -> int:
    """Return the bytes of a model's weights; tied weights count once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _whole(room: float, each: float) -> int:
    return max(0, int(room // each))
