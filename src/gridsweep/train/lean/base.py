"""The frozen base model with slots for adapters, run on packed samples for all members at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from gridsweep.errors import SpecError
from gridsweep.train.lean.attention import NAME, Select
from gridsweep.train.lean.autograd import applied
from gridsweep.train.lean.layers import lean_instead
from gridsweep.train.lean.linear import LoraLinear, Pass
from gridsweep.train.lean.loss import TokenLosses
from gridsweep.train.lean.packing import Packed, pack
from gridsweep.train.samples import Sample

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM

Layers = Literal["all", "upper-half"]
_LAYER = re.compile(r"(.*?\.(\d+))\.")


class LeanBase:
    """Replaces every target module with a `LoraLinear`, until `close`.

    Layers below the first decoder layer with adapters are the same for all members and are computed once.
    Raise `SpecError` if the model has no such modules, or if its losses would differ from the plain model's.
    """

    def __init__(self, base: CausalLM, targets: tuple[str, ...], layers: Layers = "all"):
        self.base = base
        self.replaced: dict[str, nn.Module] = {}
        self.attention = base.config._attn_implementation
        self.head = base.get_output_embeddings()
        self.now: Pass | None = None
        names, self.upper = targeted(base, targets, layers)
        self.shapes = {n: (m.in_features, m.out_features) for n, m in names.items()}
        first = _LAYER.match(next(iter(names)))
        if first is None:
            raise SpecError(f"{next(iter(names))} is in no decoder layer; set recipe.target_modules to some that are")
        example = self._example()
        before = self._plain_losses(example)
        for name, module in list(base.named_modules()):
            lean = lean_instead(module)
            if lean is not None:
                self._replace(name, lean)
        self.linears = [LoraLinear(name, module) for name, module in names.items()]
        for linear in self.linears:
            self._replace(linear.name, linear)
        self.hook = base.get_submodule(first[1]).register_forward_pre_hook(self._for_members)
        base.set_attn_implementation(NAME)
        try:
            after = self.losses(Pass(1, [], None, False), pack(example, base.device))[0]
            near = 1e-3 if base.dtype in (torch.float32, torch.float64) else 0.15
            if not torch.allclose(after.float(), before, rtol=near, atol=near):
                raise SpecError(f"{type(base).__name__} cannot be trained lean: its losses come out otherwise")
        except BaseException:
            self.close()
            raise

    def losses(self, now: Pass, packed: Packed) -> Tensor:
        """Return the cross-entropy of every counted token: [members, counted], float32."""
        self.now = now
        for linear in self.linears:
            linear.now = now if now.blocks else None
        decoder = self.base.base_model
        hidden = decoder(
            input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed
        ).last_hidden_state
        return applied(TokenLosses, applied(Select, hidden, packed.predicting), self.head.weight, packed.targets)

    def close(self) -> None:
        """Restore the base model."""
        self.hook.remove()
        for name, module in reversed(self.replaced.items()):
            self._put(name, module)
        self.replaced = {}
        self.base.set_attn_implementation(self.attention)

    def _for_members(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self.now is not None, "a pass outside of `losses`"
        hidden, *others = inputs
        return (hidden.expand(self.now.members, *hidden.shape[1:]).contiguous(), *others)

    def _replace(self, name: str, module: nn.Module) -> None:
        self.replaced[name] = self.base.get_submodule(name)
        self._put(name, module)

    def _put(self, name: str, module: nn.Module) -> None:
        parent, _, own = name.rpartition(".")
        setattr(self.base.get_submodule(parent), own, module)

    def _example(self) -> list[Sample]:
        """Return two short samples of different lengths, for comparing lean with plain losses."""
        size = self.base.config.vocab_size
        return [Sample(tuple((7 * n * n + 3 * k) % size for n in range(1, 9 + 4 * k)), 1) for k in range(2)]

    @torch.no_grad()
    def _plain_losses(self, samples: list[Sample]) -> Tensor:
        losses = []
        for sample in samples:
            ids = torch.tensor([sample.ids], device=self.base.device)
            logs = self.base(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            losses.append(-logs.gather(-1, ids[0, 1:, None])[:, 0])
        return torch.cat(losses)


def targeted(base: CausalLM, targets: tuple[str, ...], layers: Layers) -> tuple[dict[str, nn.Linear], list[int] | None]:
    """Return the linear layers to adapt, in the model's order, and the numbers of their decoder layers (None: all).

    Raise `SpecError` if the model has no module of a target name.
    """
    linear = {name: module for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    inner = {name: module for name, module in linear.items() if module is not base.get_output_embeddings()}
    kinds = sorted({name.rpartition(".")[2] for name in inner})
    missing = [target for target in targets if target not in kinds]
    if missing:
        raise SpecError(
            f"the model has no modules named {', '.join(missing)} in its decoder layers; "
            f"set recipe.target_modules to some of {', '.join(kinds)}"
        )
    chosen = {name: module for name, module in inner.items() if name.rpartition(".")[2] in targets}
    if layers == "all":
        return chosen, None
    count = base.config.num_hidden_layers
    upper = list(range(count // 2, count))
    matches = {name: _LAYER.match(name) for name in chosen}
    numbers = {name: int(match[2]) for name, match in matches.items() if match is not None}
    return {name: m for name, m in chosen.items() if numbers.get(name) in upper}, upper
