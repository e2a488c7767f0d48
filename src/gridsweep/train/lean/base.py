"""The frozen base model with slots for adapters, run on packed samples for all members at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gridsweep.errors import SpecError
from gridsweep.train.lean.attention import NAME, Select, reading
from gridsweep.train.lean.autograd import applied
from gridsweep.train.lean.head import scaling_of
from gridsweep.train.lean.layers import lean_instead
from gridsweep.train.lean.linear import LoraLinear, Pass
from gridsweep.train.lean.loss import TokenLosses
from gridsweep.train.lean.noise import plainly
from gridsweep.train.lean.packing import Packed, pack
from gridsweep.train.lean.stack import Shapes
from gridsweep.train.lean.targets import LAYER, Layers, decoder_of, frozen, layout_of, sizes, targeted

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM


class LeanBase:
    """Replaces every target module with a `LoraLinear`, until `close`.

    Layers below the first decoder layer with adapters are the same for all members and are computed once.
    Raise `SpecError` if the model has no such modules, or if its losses would differ from the plain model's.
    """

    most: int | None = None

    def __init__(self, base: CausalLM, targets: tuple[str, ...], layers: Layers = "all"):
        self.base = base
        self.replaced: dict[str, nn.Module] = {}
        self.decoder = decoder_of(base)
        self.attention = self.decoder.config._attn_implementation
        self.head, self.scaling = base.get_output_embeddings(), scaling_of(base)
        self.now: Pass | None = None
        names, numbers = targeted(base, targets, layers)
        self.layout = layout_of(base, targets, names, numbers)
        self.shapes: Shapes = {name: sizes(module) for name, module in names.items()}
        first = LAYER.match(next(iter(names)))
        if first is None:
            raise SpecError(f"{next(iter(names))} is in no decoder layer; set recipe.target_modules to some that are")
        example = plainly(base)
        for name, module in list(base.named_modules()):
            lean = lean_instead(module)
            if lean is not None:
                self._replace(name, lean)
        self.linears = [LoraLinear(name, module, frozen(module)) for name, module in names.items()]
        for linear in self.linears:
            self._replace(linear.name, linear)
        self.hook = base.get_submodule(first[1]).register_forward_pre_hook(self._for_members)
        try:
            self.decoder.set_attn_implementation(NAME)
            if not example.equal(self.losses(Pass(1, [], None, False), pack(example.samples, base.device))[0]):
                raise SpecError(f"{type(base).__name__} cannot be trained lean: its losses come out otherwise")
        except BaseException:
            self.close()
            raise

    def losses(self, now: Pass, packed: Packed) -> Tensor:
        """Return the cross-entropy of every counted token: [members, counted], float32."""
        self.now = now
        for linear in self.linears:
            linear.now = now if now.blocks else None
        with reading(packed):
            hidden = self.decoder(
                input_ids=packed.ids, position_ids=packed.positions, use_cache=False
            ).last_hidden_state
        counted = applied(Select, hidden, packed.predicting)
        return applied(TokenLosses, counted, self.head.weight, packed.targets, self.scaling)

    def close(self) -> None:
        """Restore the base model."""
        self.hook.remove()
        for name, module in reversed(self.replaced.items()):
            self._put(name, module)
        self.replaced = {}
        self.decoder.set_attn_implementation(self.attention)

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
