"""The most used bases with what decides in their published configurations, and the trainer each gets."""

from __future__ import annotations

from typing import Any


def sizes(hidden: int, inner: int, layers: int, heads: int, groups: int, **more: Any) -> dict[str, Any]:
    """The sizes of a decoder, and what else is its own."""
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, **more,
    }  # fmt: skip


def every(period: int, layers: int, rare: str = "full_attention", usual: str = "sliding_attention") -> list[str]:
    """Layers of one kind, each `period`th of another."""
    return [rare if (n + 1) % period == 0 else usual for n in range(layers)]


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
VISION = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
QWEN_VISION = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2}
MROPE = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.5] * 48, "short_factor": [1.1] * 48}
GEMMA3 = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 1024}
LINEAR = {
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4, "head_dim": 256, "partial_rotary_factor": 0.25,
}  # fmt: skip
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}

BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Qwen2, Qwen2.5, Qwen2.5-Coder": ("lean", "qwen2", sizes(3584, 18944, 28, 28, 4)),
    "Qwen3": ("lean", "qwen3", sizes(4096, 12288, 36, 32, 8, head_dim=128)),
    "Qwen3-30B-A3B, Qwen3-Coder-30B-A3B": (
        "lean", "qwen3_moe",
        sizes(2048, 6144, 48, 32, 4, head_dim=128, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768),
    ),
    "Qwen1.5-MoE": (
        "lean", "qwen2_moe",
        sizes(2048, 5632, 24, 16, 16, num_experts=60, num_experts_per_tok=4, moe_intermediate_size=1408,
              shared_expert_intermediate_size=5632),
    ),
    "Qwen2.5-VL": (
        "lean", "qwen2_5_vl",
        {"text_config": sizes(3584, 18944, 28, 28, 4, rope_scaling=MROPE), "vision_config": QWEN_VISION},
    ),
    "Qwen3-VL": (
        "lean", "qwen3_vl",
        {"text_config": sizes(4096, 12288, 36, 32, 8, head_dim=128,
                              rope_scaling={**MROPE, "mrope_section": [24, 20, 20], "mrope_interleaved": True}),
         "vision_config": QWEN_VISION},
    ),
    "Qwen3-Next-80B-A3B": (
        "plain", "qwen3_next",
        sizes(2048, 5120, 48, 16, 2, **LINEAR, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
              shared_expert_intermediate_size=512),
    ),
    "Qwen3.5": ("plain", "qwen3_5_text", sizes(2560, 9216, 32, 16, 4, **LINEAR)),
    "Llama 2, TinyLlama, Yi, SmolLM2, Falcon 3": ("lean", "llama", sizes(4096, 11008, 32, 32, 32)),
    "Llama 3, 3.1, 3.2, 3.3; DeepSeek-R1-Distill-Llama": (
        "lean", "llama", sizes(4096, 14336, 32, 32, 8, rope_scaling=LLAMA3)
    ),
    "Llama 4 Scout and Maverick (text)": (
        "plain", "llama4_text",
        sizes(5120, 8192, 48, 40, 8, head_dim=128, intermediate_size_mlp=16384, num_local_experts=16,
              attention_chunk_size=8192),
    ),
    "Mistral 7B v0.1": ("lean", "mistral", sizes(4096, 14336, 32, 32, 8, sliding_window=4096)),
    "Mistral 7B v0.3, Nemo 12B, Small 24B": (
        "lean", "mistral", sizes(5120, 14336, 40, 32, 8, head_dim=128, sliding_window=None)
    ),
    "Ministral 8B": (
        "lean", "ministral", sizes(4096, 12288, 36, 32, 8, head_dim=128, sliding_window=32768, layer_types=every(4, 36))
    ),
    "Mistral Small 3.1 and 3.2 (text)": (
        "lean", "mistral3",
        {"text_config": {"model_type": "mistral", **sizes(5120, 32768, 40, 32, 8, head_dim=128, sliding_window=None)},
         "vision_config": {"model_type": "pixtral", **VISION}},
    ),
    "Mixtral 8x7B and 8x22B": (
        "lean", "mixtral",
        sizes(4096, 14336, 32, 32, 8, num_local_experts=8, num_experts_per_tok=2, sliding_window=None),
    ),
    "Gemma, CodeGemma": ("lean", "gemma", sizes(3072, 24576, 28, 16, 16, head_dim=256)),
    "Gemma 2": (
        "lean", "gemma2",
        sizes(3584, 14336, 42, 16, 8, head_dim=256, sliding_window=4096, query_pre_attn_scalar=256,
              layer_types=every(2, 42)),
    ),
    "Gemma 3 270m and 1b": (
        "lean", "gemma3_text",
        sizes(1152, 6912, 26, 4, 1, **{**GEMMA3, "sliding_window": 512}, layer_types=every(6, 26)),
    ),
    "Gemma 3 4b, 12b, 27b (text); MedGemma": (
        "lean", "gemma3",
        {"text_config": sizes(2560, 10240, 34, 8, 4, **GEMMA3, layer_types=every(6, 34)), "vision_config": VISION},
    ),
    "Gemma 3n E2B and E4B (text)": (
        "plain", "gemma3n_text",
        sizes(2048, 8192, 30, 8, 2, head_dim=256, sliding_window=512, num_kv_shared_layers=10, laurel_rank=64,
              hidden_size_per_layer_input=256, altup_num_inputs=4, layer_types=every(5, 30),
              activation_sparsity_pattern=[0.95] * 10 + [0.0] * 20),
    ),
    "Phi-2": ("lean", "phi", sizes(2560, 10240, 32, 32, 32, partial_rotary_factor=0.4)),
    "Phi-3 and Phi-3.5 mini": (
        "lean", "phi3",
        sizes(3072, 8192, 32, 32, 32, sliding_window=262144, rope_scaling=LONGROPE, max_position_embeddings=131072,
              original_max_position_embeddings=4096),
    ),
    "Phi-4": ("lean", "phi3", sizes(5120, 17920, 40, 40, 10, sliding_window=None)),
    "Phi-3.5-MoE": ("lean", "phimoe", sizes(4096, 6400, 32, 32, 8, num_local_experts=16, num_experts_per_tok=2)),
    "DeepSeek-V2-Lite, DeepSeek-Coder-V2-Lite": (
        "lean", "deepseek_v2",
        sizes(2048, 10944, 27, 16, 16, **MLA, q_lora_rank=None, n_routed_experts=64, num_experts_per_tok=6,
              moe_intermediate_size=1408, n_shared_experts=2, first_k_dense_replace=1, n_group=1, topk_group=1),
    ),
    "gpt-oss 20b and 120b": (
        "lean", "gpt_oss",
        sizes(2880, 2880, 24, 64, 8, head_dim=64, num_local_experts=32, num_experts_per_tok=4, sliding_window=128,
              layer_types=every(2, 24)),
    ),
    "SmolLM3": ("lean", "smollm3", sizes(2048, 11008, 36, 16, 4, no_rope_layers=[1, 1, 1, 0] * 9)),
    "OLMo 2": ("lean", "olmo2", sizes(4096, 11008, 32, 32, 32)),
    "OLMo 3": ("lean", "olmo3", sizes(4096, 11008, 32, 32, 32, sliding_window=4096, layer_types=every(4, 32))),
    "OLMoE": ("lean", "olmoe", sizes(2048, 1024, 16, 16, 16, num_experts=64, num_experts_per_tok=8)),
    "Granite 3": (
        "lean", "granite",
        sizes(4096, 12800, 40, 32, 8, logits_scaling=16.0, embedding_multiplier=12.0, residual_multiplier=0.22,
              attention_multiplier=0.0078125),
    ),
    "Granite 4 hybrids": (
        "plain", "granitemoehybrid",
        sizes(1536, 512, 40, 12, 4, num_local_experts=64, num_experts_per_tok=6, shared_intermediate_size=1024,
              mamba_n_heads=48, mamba_d_head=64, mamba_d_state=128, layer_types=every(6, 40, "attention", "mamba")),
    ),
    "Aya Expanse, Command R": ("lean", "cohere", sizes(4096, 14336, 32, 32, 8, logit_scale=0.125)),
    "Command R7B, Command A": (
        "lean", "cohere2",
        sizes(4096, 14336, 32, 32, 8, head_dim=128, logit_scale=0.25, sliding_window=4096, layer_types=every(4, 32)),
    ),
    "GLM-4 9B (glm)": ("lean", "glm", sizes(4096, 13696, 40, 32, 2, head_dim=128, partial_rotary_factor=0.5)),
    "GLM-4-0414, GLM-Z1 (glm4)": (
        "lean", "glm4", sizes(4096, 13696, 40, 32, 2, head_dim=128, partial_rotary_factor=0.5)
    ),
    "GLM-4.5-Air": (
        "lean", "glm4_moe",
        sizes(4096, 10944, 46, 96, 8, head_dim=128, partial_rotary_factor=0.5, n_routed_experts=128,
              num_experts_per_tok=8, moe_intermediate_size=1408, n_shared_experts=1, first_k_dense_replace=1, n_group=1,
              topk_group=1),
    ),
    "EXAONE 4": (
        "lean", "exaone4", sizes(5120, 27392, 64, 40, 8, head_dim=128, sliding_window=4096, layer_types=every(4, 64))
    ),
    "StarCoder2": ("lean", "starcoder2", sizes(4608, 18432, 32, 36, 4, sliding_window=4096)),
    "Seed-OSS": ("lean", "seed_oss", sizes(5120, 27648, 64, 80, 8, head_dim=128)),
    "ERNIE 4.5": ("lean", "ernie4_5", sizes(1024, 3072, 18, 16, 2, head_dim=128)),
    "Hunyuan dense": ("lean", "hunyuan_v1_dense", sizes(4096, 14336, 32, 32, 8, head_dim=128)),
    "Minitron, Nemotron-4": ("lean", "nemotron", sizes(3072, 9216, 32, 24, 8, head_dim=128)),
    "Pythia, GPT-NeoX": ("lean", "gpt_neox", sizes(2560, 10240, 32, 32, 32, rotary_pct=0.25)),
    "GPT-2": ("lean", "gpt2", {"n_embd": 768, "n_layer": 12, "n_head": 12}),
    "GPT-J": ("lean", "gptj", {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64}),
    "OPT": (
        "lean", "opt",
        {"hidden_size": 2048, "ffn_dim": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
         "word_embed_proj_dim": 2048},
    ),
    "StableLM 2": ("lean", "stablelm", sizes(2048, 5632, 24, 32, 32, partial_rotary_factor=0.25)),
    "BLOOM": ("plain", "bloom", {"hidden_size": 1024, "n_layer": 24, "n_head": 16}),
    "Falcon 7B": (
        "plain", "falcon",
        {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "multi_query": True, "alibi": False,
         "new_decoder_architecture": False},
    ),
    "Falcon-H1": (
        "plain", "falcon_h1",
        sizes(2048, 4096, 24, 8, 2, head_dim=128, mamba_d_ssm=3072, mamba_n_heads=48, mamba_d_head=64,
              mamba_d_state=256, mamba_chunk_size=256, mamba_n_groups=1),
    ),
    "LFM2": ("plain", "lfm2", sizes(2048, 8192, 16, 32, 8, layer_types=every(3, 16, "full_attention", "conv"))),
    "Mamba": ("plain", "mamba", {"hidden_size": 768, "num_hidden_layers": 24, "state_size": 16}),
}  # fmt: skip
"""By the name in docs/models.md: the trainer, transformers' model type, the configuration."""
