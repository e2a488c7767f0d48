"""The memory that a training pass keeps for its backward pass: a model, and a measurement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gridsweep.train.lean.stack import Shapes

if TYPE_CHECKING:
    from gridsweep.train.pretrained import Config


def bytes_per_token(
    shapes: Shapes, config: Config, r: int, element: int, *, members: int = 1, counted: float = 1.0,
    remembered: bool = False,
) -> float:  # fmt: skip
    """Return the bytes that one token of a member of rank `r` keeps for the backward pass, in samples of one length.

    `shapes` holds the adapted modules' (in, out), all of which are in decoder layers, in a Qwen2- or Llama-shaped
    model with this config, whose numbers have `element` bytes. `members` share a pass, `counted` is the share of
    tokens with a loss, `remembered` says whether dropout masks are kept. Weights, gradients and optimizer states are
    not included, nor is a portion of the logits.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    head: int = getattr(config, "head_dim", None) or hidden // heads
    layers = {name.split(".layers.")[1].split(".")[0] for name in shapes}
    # Inputs and outputs of both norms (each output once for all its readers), queries, keys, values, the attention
    # output, gate, up and their product.
    numbers: float = len(layers) * (4 * hidden + 2 * heads * head + 2 * groups * head + 3 * inner)
    numbers += r * len(shapes)  # drop(x) A^T
    numbers += counted * hidden  # the gradient computed with the losses
    numbers += 2 * head / members  # the rotary embedding's sines and cosines, shared by all members
    single = len(layers) * (2 + heads) + 1  # one float32 per row of every norm, and of every head's softmax
    # The last norm's input is kept; the first norm's is not, because nothing below it is trained.
    total = numbers * element + (single - 1) * 4
    if remembered:
        total += 4 * sum(width for width, _ in shapes.values())
    return total


class Kept:
    """Counts the bytes autograd keeps in the passes inside the context; `weights` do not count.

    `most` is the bytes of the largest pass so far; call `begin` before each pass.
    """

    def __init__(self, weights: Iterable[Tensor]):
        self.known = {w.untyped_storage().data_ptr() for w in weights}
        self.sizes: dict[int, int] = {}
        self.most = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def begin(self) -> None:
        self.sizes.clear()

    def __enter__(self) -> Kept:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.sizes[storage.data_ptr()] = storage.nbytes()
            self.most = max(self.most, sum(self.sizes.values()))
        return tensor
