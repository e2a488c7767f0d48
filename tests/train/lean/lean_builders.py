"""Small real models, samples and members; plain PEFT as the oracle."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import LoraParams, Model, Recipe
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.samples import Sample

MODEL = Model("./random")
RECIPE = Recipe(batch_size=2, accumulation=2, warmup=0.1)
SAMPLES = [Sample(tuple((7 * n * n + 3 * i) % 120 + 2 for i in range(6 + 5 * n % 17)), 2 + n % 3) for n in range(16)]
TOTAL = 40
SHAPE = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
KINDS = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}


torch.set_num_threads(1)


def nothing() -> None:
    pass


def small_base(kind: str = "qwen2", dtype: torch.dtype = torch.float32) -> Any:
    """A frozen random model of the given kind, always the same. Its weights are large enough to matter."""
    config, model = KINDS[kind]
    torch.manual_seed(0)
    base = model(config(**SHAPE, initializer_range=0.2, tie_word_embeddings=kind == "qwen2"))
    base.config.use_cache = False
    base.requires_grad_(False)
    return base.to(dtype).eval()


def part(name: str, r: int, alpha: float, lr: float, dropout: float, seed: int = 0) -> Part:
    return Part(name, LoraParams(r, alpha, lr, dropout), seed, 0, TOTAL)


MEMBERS = [
    part("a", 4, 8, 2e-3, 0.1, 1),
    part("b", 8, 16, 1e-3, 0.2, 2),
    part("c", 16, 4, 5e-3, 0.0, 3),
    part("d", 8, 32, 1e-3, 0.1, 4),
]


def group(
    members: list[Part] = MEMBERS, recipe: Recipe = RECIPE, total: int = TOTAL, base: Any = None, **more: Any
) -> Group:
    """A group over a fresh base."""
    more.setdefault("plan", Plan(members=4))
    return Group(base or small_base(), members, recipe, total, SAMPLES, MODEL, **more)
