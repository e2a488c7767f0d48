"""What memory a group takes, as a value: the base, each adapter's state, and what a token of a pass keeps.

Left out are the fragments of the allocator and the context of CUDA, for which `HEADROOM` is kept free, and short-lived
results of one operation; whoever fills a device to its end counts them with `SHORT_LIVED`. While the optimizer steps,
one more row of a stack lives than is counted here; by then what the pass kept is gone, which as a rule is more.
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
"""How many float32 rows of a stack an adapter has, by what they are."""
HEADROOM = 0.1  # of a device's memory
SHORT_LIVED = 1.2  # times what a pass keeps: what one operation makes and drops again, masks and slopes of SwiGLU


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of groups over one base of `base` bytes, whose numbers have `element` bytes.

    `shapes` are the adapted modules' (in, out), `config` the model's, of Qwen2's or Llama's shape. `counted` is the
    share of tokens with a loss, `remembered` whether dropout's masks are kept, `device` a type of device.
    """

    base: int
    element: int
    shapes: Shapes
    config: Config
    counted: float = 1.0
    remembered: bool = False
    device: str = "cuda"

    def parameters(self, r: int) -> int:
        """The weights of an adapter of rank `r`."""
        return r * sum(width + out for width, out in self.shapes.values())

    def adapter(self, r: int) -> int:
        """Bytes of an adapter's weights, gradient, Adam's moments and average: float32 each."""
        return 4 * sum(STATE.values()) * self.parameters(r)

    def token(self, r: int, members: int = 1) -> float:
        """Bytes that a token of one of `members` in a pass keeps for the backward pass."""
        return bytes_per_token(
            self.shapes, self.config, r, self.element, members=members, counted=self.counted, remembered=self.remembered
        )

    def token_of_each(self, ranks: Sequence[int]) -> float:
        """Bytes that one token of each member of a pass keeps for the backward pass."""
        return sum(self.token(r, len(ranks)) for r in ranks)

    def logits(self, members: int) -> int:
        """Bytes of the logits of a pass that live at once: as they come, in float32, and their slope."""
        vocabulary = self.config.vocab_size
        return members * rows_at_once(members, vocabulary, self.device) * vocabulary * (2 * self.element + 8)

    def in_a_pass(self, ranks: list[int], tokens: int) -> float:
        """Bytes of a pass of members of these ranks over so many tokens of each."""
        return tokens * self.token_of_each(ranks) + self.logits(len(ranks))

    def resident(self, memory: float, r: int, tokens: int) -> int:
        """How many adapters of rank `r` live beside the base and a pass of one of them, in `memory` bytes."""
        return _whole(self._room(memory) - self.in_a_pass([r], tokens), self.adapter(r))

    def at_once(self, memory: float, r: int, tokens: int) -> int:
        """How many adapters of rank `r` live there and pass together, with `tokens` of each in a pass."""
        return _whole(self._room(memory), self.adapter(r) + self.in_a_pass([r], tokens))

    def tokens(self, memory: float, ranks: list[int], members: int, r: int) -> int:
        """How many tokens of each of `members` of rank `r` fit a pass, with adapters of all `ranks` living."""
        room = self._room(memory) - sum(self.adapter(rank) for rank in ranks) - self.logits(members)
        return _whole(room, members * self.token(r, members))

    def _room(self, memory: float) -> float:
        return memory * (1 - HEADROOM) - self.base


def of_model(
    model: CausalLM, targets: tuple[str, ...], *, counted: float = 1.0, remembered: bool = False, device: str = "cuda"
) -> Footprint:
    """Of a model as transformers makes it, on whatever device ("meta" too) and without adapters."""
    import torch

    shapes = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in targets
    }
    return Footprint(weights_of(model), model.dtype.itemsize, shapes, model.config, counted, remembered, device)


def weights_of(model: CausalLM) -> int:
    """Bytes of a model's weights; what is tied counts once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _whole(room: float, each: float) -> int:
    return max(0, int(room // each))
