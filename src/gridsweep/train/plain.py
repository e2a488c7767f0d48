"""A frozen base with adapters as PEFT has them: the whole model as it is, one member at a time.

It trains every model whose linear layers PEFT adapts, with the losses, the order of samples, the dropout masks and the
files of the lean trainer, but it shares no work between members.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridsweep.train.lean.linear import Block, LoraLinear, Pass, lora_product
from gridsweep.train.lean.packing import Packed
from gridsweep.train.lean.stack import Shapes
from gridsweep.train.lean.targets import Layers, frozen, layout_of, sizes, targeted

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM


@dataclass(frozen=True, slots=True)
class Padded:
    """Samples padded on the right: ids [samples, longest], whether a position holds a token (None: all do).

    `places` [samples * longest] is the index of each position in the packed row (0 where there is no token);
    `counted` selects the counted tokens of the row that are in these samples, `predicting` the positions before them.
    """

    ids: Tensor
    mask: Tensor | None
    places: Tensor
    counted: Tensor
    predicting: Tensor


class PlainBase:
    """Gives every target module an adapter, until `close`.

    With `together`, the samples of a pass are padded to one batch; else each is read alone. Raise `SpecError` if the
    model has no such modules.
    """

    most: int | None = 1

    def __init__(self, base: CausalLM, targets: tuple[str, ...], layers: Layers = "all", *, together: bool = True):
        self.base, self.together = base, together
        names, numbers = targeted(base, targets, layers)
        self.layout = layout_of(base, targets, names, numbers)
        self.shapes: Shapes = {name: sizes(module) for name, module in names.items()}
        self.linears = [PlainLora(name, module, frozen(module)) for name, module in names.items()]
        for linear in self.linears:
            self._put(linear.name, linear)

    def losses(self, now: Pass, packed: Packed) -> Tensor:
        """Return the cross-entropy of every counted token: [members, counted], float32."""
        batches = padded(packed, self.together)
        return torch.stack([self._losses(_alone(now, member), packed, batches) for member in range(now.members)])

    def close(self) -> None:
        """Restore the base model."""
        for linear in self.linears:
            self._put(linear.name, linear.base)
            linear.now = None

    def _losses(self, now: Pass, packed: Packed, batches: list[Padded]) -> Tensor:
        parts = []
        for batch in batches:
            for linear in self.linears:
                linear.now = _at(now, batch.places) if now.blocks else None
            logits = self.base(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits
            wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
            predicting = logits.flatten(0, 1).index_select(0, batch.predicting).to(wide)
            parts.append(F.cross_entropy(predicting, packed.targets[batch.counted], reduction="none"))
        order = torch.cat([batch.counted for batch in batches]).argsort()
        return torch.cat(parts)[order]

    def _put(self, name: str, module: nn.Module) -> None:
        parent, _, own = name.rpartition(".")
        setattr(self.base.get_submodule(parent), own, module)


class PlainLora(LoraLinear):
    """A target module with one member's adapter: x [..., in] -> [..., out]."""

    def forward(self, x: Tensor) -> Tensor:
        if self.now is None:
            plain: Tensor = self.base(x)
            return plain
        rows = x.reshape(1, -1, x.shape[-1])
        if rows.shape[1] == 0:  # an expert without tokens
            empty: Tensor = self.base(x)
            return empty
        return lora_product(rows, self.frozen, self.name, _for_rows(self.now, rows.shape[1])).view(*x.shape[:-1], -1)


def padded(packed: Packed, together: bool) -> list[Padded]:
    """Return a packed row's samples as one padded batch, or as a batch for each."""
    row, device = packed.positions[0], packed.ids.device
    starts = [*(row == 0).nonzero().flatten().tolist(), packed.tokens]
    spans = list(pairwise(starts))
    groups = [spans] if together else [[span] for span in spans]
    found = []
    for group in groups:
        first, last = group[0][0], group[-1][1]
        longest = max(end - start for start, end in group)
        at = torch.arange(longest, device=device)
        begin = torch.tensor([start for start, _ in group], device=device)
        there = at < torch.tensor([end - start for start, end in group], device=device)[:, None]
        places = torch.where(there, begin[:, None] + at, 0)
        counted = ((packed.predicting >= first) & (packed.predicting < last)).nonzero().flatten()
        where = torch.zeros(packed.tokens, dtype=torch.long, device=device)
        where[places[there]] = there.flatten().nonzero().flatten()
        mask = None if bool(there.all()) else there.long()
        ids = torch.where(there, packed.ids[0][places], 0)
        found.append(Padded(ids, mask, places.flatten(), counted, where[packed.predicting[counted]]))
    return found


def _alone(now: Pass, member: int) -> Pass:
    """Return the pass of one of its members."""
    blocks = []
    for block in now.blocks:
        if block.rows.start <= member < block.rows.stop:
            row = slice(member - block.rows.start, member - block.rows.start + 1)
            weights = {name: (a[row], b[row]) for name, (a, b) in block.weights.items()}
            grads = block.grads and {name: (a[row], b[row]) for name, (a, b) in block.grads.items()}
            blocks.append(Block(slice(0, 1), block.scale[row], weights, grads, block.drops))
    bits = now.bits
    if bits is None:
        return Pass(1, blocks, None, now.remember)
    return Pass(1, blocks, lambda module, width, _: bits(module, width, slice(member, member + 1)), now.remember)


def _at(now: Pass, places: Tensor) -> Pass:
    """Return a pass over these places of its row."""
    bits = now.bits
    if bits is None:
        return now
    return Pass(1, now.blocks, lambda *asked: bits(*asked).index_select(1, places), now.remember)


def _for_rows(now: Pass, rows: int) -> Pass:
    """Return a pass over `rows` rows: a layer that reads other rows than the batch's, as an expert does, takes the
    first masks, and the first again."""
    bits = now.bits
    if bits is None:
        return now

    def fitted(module: str, width: int, span: slice) -> Tensor:
        found = bits(module, width, span)
        if found.shape[1] == rows:
            return found
        return found.index_select(1, torch.arange(rows, device=found.device) % found.shape[1])

    return Pass(1, now.blocks, fitted, now.remember)
