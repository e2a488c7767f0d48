"""What a training pass keeps for its backward pass: a model of it, and a count of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gridsweep.train.lean.stack import Shapes

if TYPE_CHECKING:
    from gridsweep.train.lean.group import Group

ROWS = 5  # of a stack: weights, gradients, two moments, the average


def predicted_bytes(group: Group) -> float | None:
    """About the most that the first step holds: base, members, and what its largest pass keeps.

    None for a model that is not of Qwen2's or Llama's shape.
    """
    samples, plan = group.batch(0), group.plan
    lengths = [len(sample.ids) for sample in samples]
    tokens = min(sum(lengths), max(plan.tokens or sum(lengths), max(lengths)))
    counted = sum(sample.counted for sample in samples) / sum(lengths)
    held = sum(p.numel() * p.element_size() for p in group.lean.base.parameters())
    held += sum(ROWS * stack.weights.numel() * stack.weights.element_size() for stack in group.roster.stacks.values())
    passes = []
    for names in group.roster.portions(plan.members):
        total = 0.0
        for params in (group.roster.parts[name].params for name in names):
            try:
                total += tokens * bytes_per_token(
                    group.lean.shapes, group.lean.base.config, params.r, group.lean.base.dtype.itemsize,
                    members=len(names), counted=counted, remembered=plan.remember and params.dropout > 0,
                )  # fmt: skip
            except (AttributeError, IndexError):
                return None
        passes.append(total)
    return held + max(passes)


def bytes_per_token(
    shapes: Shapes, config: Any, r: int, element: int, *, members: int = 1, counted: float = 1.0,
    remembered: bool = False,
) -> float:  # fmt: skip
    """Bytes that one token of one member of rank `r` keeps for the backward pass, in samples of one length.

    `shapes` are the adapted modules' (in, out), all of some decoder layers', in a model of Qwen2's or Llama's shape
    with this config, whose numbers have `element` bytes. `members` share a pass, `counted` is the share of tokens with
    a loss, `remembered` says that dropout's masks are kept. Weights, gradients and optimizer states come on top, as
    does a portion of the logits.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    layers = {name.split(".layers.")[1].split(".")[0] for name in shapes}
    # Both norms' inputs and outputs (the outputs once for all that read them), queries, keys, values and their result,
    # gate, up and their product.
    numbers = len(layers) * (4 * hidden + 2 * heads * head + 2 * groups * head + 3 * inner)
    numbers += r * len(shapes)  # drop(x) A^T
    numbers += counted * hidden  # the gradient that the losses are made with
    numbers += 2 * head / members  # the rotary embedding's sines and cosines, for all
    single = len(layers) * (2 + heads) + 1  # a float32 a row: of every norm, and of every head's softmax
    # The last norm's input, but not the first's, below which nothing is trained.
    total = numbers * element + (single - 1) * 4
    if remembered:
        total += 4 * sum(width for width, _ in shapes.values())
    return total


def saved_bytes(forward: Callable[[], Tensor], weights: list[Tensor]) -> int:
    """How many bytes autograd keeps after `forward`, whose result is still there; `weights` do not count."""
    known = {w.untyped_storage().data_ptr() for w in weights}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result
    return sum(sizes.values())
