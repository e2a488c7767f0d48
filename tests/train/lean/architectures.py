"""Tiny configurations of many architectures, each with what makes it different, and the trainer it gets."""

from __future__ import annotations

from typing import Any

SIZES = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": 1,
}  # fmt: skip
HEADS = {**SIZES, "head_dim": 16}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERY = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
ALL = ("all-linear",)
MIXED = ["sliding_attention", "full_attention"]

LEAN: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "Qwen2": ("qwen2", SIZES, EVERY),
    "Qwen3": ("qwen3", HEADS, EVERY),
    "Llama": ("llama", SIZES, EVERY),
    "Mistral with a window": ("mistral", {**HEADS, "sliding_window": 6}, EVERY),
    "Gemma": ("gemma", HEADS, EVERY),
    "Gemma 2": ("gemma2", {**HEADS, "sliding_window": 6, "query_pre_attn_scalar": 16, "layer_types": MIXED}, EVERY),
    "Gemma 3 text": ("gemma3_text", {**HEADS, "sliding_window": 6, "layer_types": MIXED}, EVERY),
    "Gemma 3 with a vision tower": (
        "gemma3",
        {"text_config": {**HEADS, "sliding_window": 6, "layer_types": MIXED}, "vision_config": VISION},
        EVERY,
    ),
    "Qwen2.5-VL": (
        "qwen2_5_vl",
        {
            "text_config": {**SIZES, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
            "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                              "out_hidden_size": 32},
            "image_token_id": 120, "video_token_id": 121, "vision_start_token_id": 122, "vision_end_token_id": 123,
        },
        EVERY,
    ),
    "Phi-3": ("phi3", {**SIZES, "sliding_window": 6}, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "Phi-2": ("phi", SIZES, ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")),
    "Granite": (
        "granite",
        {**SIZES, "logits_scaling": 4.0, "embedding_multiplier": 6.0, "residual_multiplier": 0.3,
         "attention_multiplier": 0.2},
        EVERY,
    ),
    "Cohere 2": ("cohere2", {**HEADS, "sliding_window": 6, "layer_types": MIXED, "logit_scale": 0.25}, EVERY),
    "OLMo 2": ("olmo2", SIZES, EVERY),
    "OLMo 3": ("olmo3", {**SIZES, "sliding_window": 6, "layer_types": MIXED}, EVERY),
    "SmolLM3": ("smollm3", {**SIZES, "no_rope_layers": [1, 0]}, EVERY),
    "GLM-4": ("glm4", {**HEADS, "partial_rotary_factor": 0.5}, (*ATTENTION, "gate_up_proj", "down_proj")),
    "StarCoder2": ("starcoder2", {**SIZES, "sliding_window": 6}, (*ATTENTION, "c_fc", "c_proj")),
    "GPT-NeoX": ("gpt_neox", SIZES, ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")),
    "GPT-2": ("gpt2", {"vocab_size": 128, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2,
                       "bos_token_id": 1, "eos_token_id": 1}, ("c_attn", "c_proj", "c_fc")),
    "gpt-oss": (
        "gpt_oss",
        {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6, "layer_types": MIXED},
        ATTENTION,
    ),
    "Qwen3 MoE": ("qwen3_moe", {**HEADS, **EXPERTS, "num_experts": 4}, ATTENTION),
    "Mixtral": ("mixtral", {**SIZES, "num_local_experts": 4, "sliding_window": None}, ATTENTION),
    "StableLM": ("stablelm", SIZES, EVERY),
    "OPT": ("opt", {"vocab_size": 128, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
            ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")),
    "GPT-J": ("gptj", {"vocab_size": 128, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8},
              ALL),
    "DeepSeek V3": (
        "deepseek_v3",
        {**SIZES, **EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
         "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
         "qk_nope_head_dim": 8, "v_head_dim": 8},
        ALL,
    ),
}  # fmt: skip

PLAIN: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "Qwen3-Next, a hybrid": (
        "qwen3_next",
        {**HEADS, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 24, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
         "layer_types": ["linear_attention", "full_attention"]},
        ALL,
    ),
    "LFM2 with convolutions": ("lfm2", {**SIZES, "layer_types": ["conv", "full_attention"]}, ALL),
    "Granite hybrid": (
        "granitemoehybrid",
        {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 24, "mamba_n_heads": 4,
         "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8, "layer_types": ["mamba", "attention"]},
        ALL,
    ),
    "Llama 4 text": (
        "llama4_text",
        {**HEADS, "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 8,
         "interleave_moe_layer_step": 2, "no_rope_layers": [1, 0]},
        ATTENTION,
    ),
    "Bloom": ("bloom", {"vocab_size": 128, "hidden_size": 32, "n_layer": 2, "n_head": 4}, ALL),
    "Falcon": ("falcon", {**SIZES, "alibi": False, "new_decoder_architecture": False}, ALL),
    "Mamba": ("mamba", {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
              ("in_proj", "x_proj")),
}  # fmt: skip
