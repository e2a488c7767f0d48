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
