"""Qwen2.5's shapes, to be filled with random weights: how fast a model trains does not depend on what its weights are.

The numbers are those of the published configurations of Qwen2.5 (and Qwen2.5-Coder, which shares them); `smollm2` has
SmolLM2-135M's, `tiny` is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": 128, "inner": 512, "layers": 4, "heads": 4, "groups": 2, "vocabulary": 2048, "tied": True},
    "smollm2": {
        "hidden": 576,
        "inner": 1536,
        "layers": 30,
        "heads": 9,
        "groups": 3,
        "vocabulary": 49152,
        "tied": True,
    },
    "0.5b": {"hidden": 896, "inner": 4864, "layers": 24, "heads": 14, "groups": 2, "vocabulary": 151936, "tied": True},
    "1.5b": {"hidden": 1536, "inner": 8960, "layers": 28, "heads": 12, "groups": 2, "vocabulary": 151936, "tied": True},
    "3b": {"hidden": 2048, "inner": 11008, "layers": 36, "heads": 16, "groups": 2, "vocabulary": 151936, "tied": True},
    "7b": {"hidden": 3584, "inner": 18944, "layers": 28, "heads": 28, "groups": 4, "vocabulary": 152064, "tied": False},
}


def config(shape: str) -> Qwen2Config:
    s = SHAPES[shape]
    return Qwen2Config(
        vocab_size=s["vocabulary"], hidden_size=s["hidden"], intermediate_size=s["inner"],
        num_hidden_layers=s["layers"], num_attention_heads=s["heads"], num_key_value_heads=s["groups"],
        tie_word_embeddings=s["tied"], max_position_embeddings=32768, rope_theta=1e6,
    )  # fmt: skip


def frozen(shape: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A frozen model in evaluation mode; on the device "meta" it takes no memory."""
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config(shape), dtype=dtype)
    model.config.use_cache = False
    return model.requires_grad_(False).eval()
