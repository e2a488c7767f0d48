"""The class of a model: which one transformers loads for a configuration, and a model without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any  # configurations and classes of any architecture

from gridsweep.errors import SpecError

if TYPE_CHECKING:
    import torch

    from gridsweep.train.pretrained import CausalLM


def auto_class(config: Any) -> Any:
    """Return the class of transformers that loads a model of this configuration: for text, or for images and text.

    Raise `SpecError` for an architecture that generates no text.
    """
    from transformers import AutoModelForCausalLM

    try:
        from transformers import AutoModelForImageTextToText
    except ImportError:  # an older transformers
        return AutoModelForCausalLM
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in auto._model_mapping:
            return auto
    raise SpecError(
        f"models of type {config.model_type} generate no text (transformers knows no causal language model of that "
        "configuration); choose a decoder-only model"
    )


def empty(config: Any, dtype: torch.dtype | None = None) -> CausalLM:
    """Return a model of a configuration with weights as transformers initializes them, float32 by default."""
    import torch

    base: CausalLM = auto_class(config).from_config(config, dtype=dtype or torch.float32, trust_remote_code=False)
    return base


def peculiarities(config: Any, max_length: int) -> dict[str, str]:
    """Return what of a model trains otherwise than its configuration may lead one to expect, by name."""
    text, said = config.get_text_config(decoder=True), {}
    dropout = {
        name: rate
        for name, rate in text.to_dict().items()
        if ("dropout" in name or "pdrop" in name) and "classifier" not in name and isinstance(rate, float) and rate > 0
    }
    if dropout:
        listed = ", ".join(f"{name} {rate:g}" for name, rate in dropout.items())
        said["base_dropout"] = f"off: the base is frozen and runs as in evaluation ({listed})"
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type") or rope.get("type")
    least = rope.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", max_length)
    if kind in ("dynamic", "longrope") and least and max_length > least:
        said["positions"] = (
            f"{kind}: from {least} tokens on, the positions of all samples of a pass depend on the longest of them"
        )
    return said
