"""Which trainer a model gets: decided on a miniature of it, exactly and within seconds.

The lean trainer is for models whose packed losses and gradients are the plain ones and whose samples do not see each
other. Other models are trained as they are, one member at a time. What cannot be trained either way is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal  # configurations of any architecture have any attributes

from gridsweep.errors import SpecError

if TYPE_CHECKING:
    from gridsweep.train.lean.engine import Engine
    from gridsweep.train.lean.targets import Layers
    from gridsweep.train.pretrained import CausalLM

Trainer = Literal["lean", "plain", "one by one"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a model is trained, and why not lean (empty if lean).

    `lean`: packed samples, all members at once. `plain`: padded samples, one member at a time; `one by one`: each
    sample alone.
    """

    trainer: Trainer
    reason: str = ""

    @property
    def told(self) -> str:
        """The trainer in words, for the facts of a result."""
        if self.trainer == "lean":
            return "lean"
        return f"plain PEFT, one experiment at a time ({self.reason})"


_decided: dict[str, Kind | SpecError] = {}


def kind_of(config: Any, targets: tuple[str, ...], layers: Layers = "all") -> Kind:
    """Return how a model with this transformers configuration is trained; decided once for each process.

    Raise `SpecError` if neither trainer computes what the model does, or if it has no such target modules.
    """
    key = json.dumps([config.to_dict(), targets, layers], default=str, sort_keys=True)
    if key not in _decided:
        try:
            _decided[key] = _kind(config, targets, layers)
        except SpecError as error:
            _decided[key] = error
    found = _decided[key]
    if isinstance(found, SpecError):
        raise found
    return found


def engine_for(kind: Kind, base: CausalLM, targets: tuple[str, ...], layers: Layers = "all") -> tuple[Kind, Engine]:
    """Return the engine that trains over `base` in this way, and the way.

    If packed losses over these weights come out otherwise than the plain ones, it is the plain way, with the reason.
    """
    engines = _engines(targets, layers)
    try:
        return kind, engines[kind.trainer](base)
    except SpecError as error:
        if kind.trainer != "lean":
            raise
        return Kind("plain", str(error)), engines["plain"](base)


def _engines(targets: tuple[str, ...], layers: Layers) -> dict[Trainer, Callable[[CausalLM], Engine]]:
    from gridsweep.train.lean.base import LeanBase
    from gridsweep.train.plain import PlainBase

    return {
        "lean": lambda base: LeanBase(base, targets, layers),
        "plain": lambda base: PlainBase(base, targets, layers),
        "one by one": lambda base: PlainBase(base, targets, layers, together=False),
    }


def _kind(config: Any, targets: tuple[str, ...], layers: Layers) -> Kind:
    from gridsweep.train.architecture import auto_class
    from gridsweep.train.exactness import difference, is_causal
    from gridsweep.train.lean.targets import targeted
    from gridsweep.train.miniature import miniature

    auto_class(config)
    try:
        small = miniature(config)
    except SpecError as error:
        return Kind("plain", str(error))
    if not is_causal(small):
        raise SpecError(
            f"models of type {config.model_type} read the tokens they are to predict; choose a decoder-only model"
        )
    targeted(small, targets, layers)  # names that are missing in a miniature are missing in the model
    reasons: list[str] = []
    for trainer, made in _engines(targets, layers).items():
        found = difference(small, made)
        if found is None:
            return Kind(trainer, reasons[0] if reasons else "")
        reasons.append(found)
    raise SpecError(
        f"models of type {config.model_type} cannot be trained with these adapters: {reasons[-1]}; choose other "
        "recipe.target_modules, or a model of docs/models.md"
    )
