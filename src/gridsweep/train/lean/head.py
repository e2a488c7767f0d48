"""The language head: its weights, and what the model does to the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gridsweep.train.lean.loss import PLAIN, Scaling
from gridsweep.train.lean.targets import text_config

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM

FACTORS: dict[str, Callable[[float], float]] = {
    "logits_scaling": lambda given: 1 / given,  # Granite
    "logit_scale": lambda given: given,  # Cohere
}
CAPS = ("final_logit_softcapping",)  # Gemma
MULTIPLIED = ("hyperclovax",)  # model types that multiply by `logits_scaling`


def scaling_of(base: CausalLM) -> Scaling:
    """Return what the model does to its logits, by its configuration and the bias of its head."""
    config = text_config(base.config)
    factor = 1.0
    for name, read in FACTORS.items():
        given = getattr(config, name, None)
        if given is not None:
            factor *= float(given) if getattr(config, "model_type", "") in MULTIPLIED else read(float(given))
    cap = next((float(given) for name in CAPS if (given := getattr(config, name, None))), None)
    bias = base.get_output_embeddings().bias
    if bias is None and factor == 1 and cap is None:
        return PLAIN
    return Scaling(bias, factor, cap)
