"""Which modules of a model get adapters: by name, all of them, or those of the upper half of its layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import ALL_LINEAR
from gridsweep.train.lean.linear import Frozen

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM, Config, Decoder

Layers = Literal["all", "upper-half"]
NARROWEST = 8
"""Layers with fewer inputs or outputs, such as gates, are left out of `all-linear`, as is the language head."""
LAYER = re.compile(r"(.*?\.(\d+))\.")
"""A module's name up to its decoder layer's number."""
UNADAPTED = {
    "falcon_h1": ("out_proj",), "falcon_mamba": ("out_proj", "dt_proj"), "mamba": ("out_proj", "dt_proj"),
    "mamba2": ("out_proj",), "jamba": ("dt_proj",),
}  # fmt: skip
"""Modules whose weights a model's kernels read past an adapter, by model type."""
OF_EXPERTS = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Names that PEFT takes for the experts' weights in a model that keeps all experts in one tensor."""


class Transposed:
    """The parameters of a `Conv1D`, GPT-2's linear layer with W [in, out], as those of an `nn.Linear`."""

    def __init__(self, module: nn.Module):
        self.module = module

    @property
    def weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.mT

    @property
    def bias(self) -> Tensor | None:
        bias = self.module.bias
        return bias if isinstance(bias, Tensor) else None


def is_conv1d(module: nn.Module) -> bool:
    """Return whether a module is transformers' `Conv1D`."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def frozen(module: nn.Module) -> Frozen:
    """Return a target module's parameters."""
    if is_conv1d(module):
        return Transposed(module)
    assert isinstance(module, nn.Linear)
    return module


def sizes(module: nn.Module) -> tuple[int, int]:
    """Return the input and the output width of a target module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    out, width = frozen(module).weight.shape
    return width, out


def decoder_of(base: CausalLM) -> Decoder:
    """Return the text decoder: the model without its head, and without the towers of a multimodal model."""
    found = base.get_decoder() if hasattr(base, "get_decoder") else base.base_model
    itself: object = base
    if found is itself and hasattr(base, "model"):  # a model without the usual prefix
        return base.model
    return found


def targeted(
    base: CausalLM, targets: Sequence[str], layers: Layers = "all"
) -> tuple[dict[str, nn.Module], list[int] | None]:
    """Return the modules to adapt, in the model's order, and the numbers of their decoder layers (None: all).

    Raise `SpecError` if the decoder has no module of a target name.
    """
    inner = _linears(base)
    kinds = sorted({name.rpartition(".")[2] for name in inner})
    avoided = _avoided(base)
    if tuple(targets) == (ALL_LINEAR,):
        inner = {name: m for name, m in inner.items() if LAYER.match(name)} or inner
        narrow = {name.rpartition(".")[2] for name, m in inner.items() if min(sizes(m)) < NARROWEST}
        avoided = (*avoided, *narrow)
        chosen = {name: m for name, m in inner.items() if name.rpartition(".")[2] not in avoided}
    else:
        chosen = {name: m for name, m in inner.items() if any(_is(name, target) for target in targets)}
        missing = [target for target in targets if not any(_is(name, target) for name in inner)]
        read = [target for target in targets if target in avoided]
        if missing or read:
            usable = [kind for kind in kinds if kind not in avoided]
            found = f"some of {', '.join(usable)}" if kinds else "other modules"
            what = "the model has no modules named" if missing else "PEFT cannot adapt the modules named"
            near = {name for target in missing for name in get_close_matches(target, usable, n=1)}
            meant = f"did you mean {', '.join(sorted(near))}? Otherwise " if near else ""
            raise SpecError(
                f"{what} {', '.join(missing or read)} in its decoder layers; {meant}"
                f"set recipe.target_modules to {found}, or to {ALL_LINEAR}"
            )
    if not chosen:
        raise SpecError(f"{type(base).__name__} has no linear layers besides its head; choose another model")
    if layers == "all":
        return chosen, None
    count = text_config(base.config).num_hidden_layers
    upper = list(range(count // 2, count))
    return {name: m for name, m in chosen.items() if _number(name) in upper}, upper


@dataclass(frozen=True, slots=True)
class Layout:
    """Where adapters are, in the words of PEFT's configuration.

    `layers` holds the numbers of the decoder layers with adapters (None: all), `excluded` the other modules in them or
    outside the decoder that bear a target's name; `transposed` says that the weights of all targets are [in, out].
    """

    targets: list[str]
    layers: list[int] | None = None
    excluded: tuple[str, ...] = ()
    transposed: bool = False


def layout_of(
    base: CausalLM, targets: Sequence[str], chosen: Mapping[str, nn.Module], layers: list[int] | None
) -> Layout:
    """Return where the adapters on the modules `chosen` by these targets are."""
    names = list(targets)
    if tuple(targets) == (ALL_LINEAR,):
        names = sorted({name.rpartition(".")[2] for name in chosen})
    named = (name for name, _ in base.named_modules() if name not in chosen and any(_is(name, t) for t in names))
    excluded = tuple(name for name in named if layers is None or _number(name) in layers)
    return Layout(names, layers, excluded, all(map(is_conv1d, chosen.values())))


def text_config(config: Config) -> Config:
    """Return the configuration of the text decoder: the model's own, or a part of a multimodal model's."""
    found: Config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return found


def _avoided(base: CausalLM) -> tuple[str, ...]:
    """Return the names of modules on which PEFT would not read an adapter as one of the module."""
    kernels = UNADAPTED.get(str(getattr(text_config(base.config), "model_type", "")), ())
    fused = any(
        parameter.dim() == 3 and "expert" in type(module).__name__.lower()
        for _, module in base.named_modules()
        for parameter in module.parameters(recurse=False)
    )
    return (*kernels, *OF_EXPERTS) if fused else kernels


def _number(name: str) -> int | None:
    """Return the number of the decoder layer that a module is in."""
    match = LAYER.match(name)
    return int(match[2]) if match else None


def _linears(base: CausalLM) -> dict[str, nn.Module]:
    """Return the linear layers of the text decoder, without the head."""
    decoder, head = decoder_of(base), base.get_output_embeddings()
    within = {id(module) for module in decoder.modules()}
    return {
        name: module
        for name, module in base.named_modules()
        if (_is_linear(module) or is_conv1d(module)) and module is not head and id(module) in within
    }


def _is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer and nothing more; routers of some models are one with other results."""
    return isinstance(module, nn.Linear) and "Router" not in type(module).__name__


def _is(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
