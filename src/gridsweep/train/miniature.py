"""A miniature of a model: the same architecture with few layers and small sizes, float32, with random weights.

Every feature of an architecture decides in it, at no cost: layers of each kind, a window shorter than the samples,
ratios of heads, soft-caps, scalings, experts. The weights are of a realistic scale, so that what is left out shows.
"""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any  # configurations of any architecture have any attributes

import torch
from torch import nn

from gridsweep.errors import SpecError
from gridsweep.train.lean.targets import is_conv1d, text_config

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM

VOCABULARY = 256
WINDOW = 8
EXPERTS = 8
MOST_LAYERS = 16
MOST_WEIGHTS = 400_000_000  # of a miniature whose sizes cannot be made smaller
INNER = 96  # widths of feed-forward layers
HEAD = 32  # width of a head
STATE = 16  # width and chunk of a state space
GAIN = 1.5  # times 1 / sqrt(inputs): scores and logits of a few units, as trained models have them
LAYERS = ("num_hidden_layers", "depth", "num_layers", "n_layers", "encoder_layers", "n_layer")
EVERY = (
    "sliding_window_pattern", "full_attention_interval", "attn_layer_period", "expert_layer_period",
    "no_rope_layer_interval", "decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step",
)  # fmt: skip
"""Attributes that hold the period of a pattern of layers."""
CHOSEN = {"num_experts_per_tok": 2, "moe_topk": 2, "moe_k": 2, "top_k_experts": 2, "n_group": 2, "topk_group": 1}
WITH_WIDTH = ("mamba_n_heads", "mamba_d_ssm", "lru_width", "hidden_size_per_layer_input", "word_embed_proj_dim")
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def miniature(config: Any) -> CausalLM:
    """Return a miniature of the model that a transformers configuration describes, on the CPU.

    Raise `SpecError` if none can be built: the configuration has a shape of its own that smaller sizes do not fit.
    """
    for narrow in (2, 1, 0):
        with suppress(Exception):  # any error of any architecture's code
            return _built(shrunk(config, narrow))
    raise SpecError(f"no small model of {config.model_type} could be built to test the trainers on")


def _built(config: Any) -> CausalLM:
    from gridsweep.train.architecture import empty

    with torch.device("meta"):
        count = sum(p.numel() for p in empty(config).parameters())
    if count > MOST_WEIGHTS:
        raise SpecError(f"{count:,} weights are too many")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = empty(config)
        with torch.no_grad():
            drawn(base)
    base.config.use_cache = False
    base.requires_grad_(False)
    base.eval()
    at = torch.arange(2, 12)[None]
    with torch.no_grad():
        if not bool(base(input_ids=at, use_cache=False).logits.isfinite().all()):
            raise SpecError("its losses are not finite")
    return base


def drawn(base: CausalLM) -> None:
    """Give every layer random weights of a realistic scale; parameters of unknown purpose keep their own."""
    for _, module in base.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) or is_conv1d(module):
            weight, bias = module.weight, getattr(module, "bias", None)
            assert isinstance(weight, nn.Parameter)
            inputs = weight.shape[0] if is_conv1d(module) else weight.shape[1]
            weight.normal_(0, GAIN / math.sqrt(inputs))
            if isinstance(bias, nn.Parameter):
                bias.normal_(0, 0.1)
            continue
        name = type(module).__name__
        for parameter in module.parameters(recurse=False):
            if "Norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "Expert" in name and parameter.dim() == 3:
                parameter.normal_(0, GAIN / math.sqrt(parameter.shape[-1]))


def shrunk(config: Any, narrow: int = 2) -> Any:
    """Return a copy of a configuration with few layers, tokens and experts.

    With `narrow` 1 it has fewer heads and smaller widths too, with 2 also narrower heads.
    """
    small = copy.deepcopy(config)
    text: Any = text_config(small)
    for name in getattr(small, "sub_configs", {}):
        other = getattr(small, name, None)
        if other is not None and other is not text:
            for layers in LAYERS:
                if isinstance(getattr(other, layers, None), int):
                    setattr(other, layers, 1)
    _fewer_layers(text)
    _fewer_tokens(small)
    _fewer_tokens(text)
    _fewer_experts(text)
    for name in ("sliding_window", "attention_chunk_size", "window_size", "local_attention", "attention_window_size"):
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, WINDOW)
    if narrow:
        _narrower(text, heads_too=narrow > 1)
    for one in (small, text):
        if getattr(one, "quantization_config", None) is not None:
            del one.quantization_config
    return small


def _fewer_layers(text: Any) -> None:
    """Keep the first layers, until each kind has been there."""
    count = text.num_hidden_layers
    lists = {
        name: each for name, each in vars(text).items() if isinstance(each, list | tuple) and len(each) == count > 1
    }
    kinds = list(zip(*lists.values(), strict=True)) if lists else [()] * count
    kinds = [tuple(str(part) for part in kind) for kind in kinds]
    wanted = max(2, 1 + max(kinds.index(kind) for kind in set(kinds)))
    for name in EVERY:
        if isinstance(period := getattr(text, name, None), int):
            wanted = max(wanted, period + int(getattr(text, name.replace("period", "offset"), 0) or 0))
    for name in ("first_k_dense_replace", "num_dense_layers"):
        if isinstance(dense := getattr(text, name, None), int):
            setattr(text, name, min(dense, 1))
            wanted = max(wanted, 3)
    shared = getattr(text, "num_kv_shared_layers", None)
    if isinstance(shared, int) and shared > 0:  # as many layers share as do not, of the same types
        types = lists.get("layer_types", ["the same"] * count)
        own = max(2, 1 + max(types.index(kind) for kind in set(types)))
        text.num_kv_shared_layers = own if 2 * own <= count else shared
        wanted = min(2 * own, count)
    wanted = min(wanted, count, max(MOST_LAYERS, 2 * (shared or 0)))
    for name, each in lists.items():
        setattr(text, name, each[:wanted])
    text.num_hidden_layers = wanted


def _fewer_tokens(config: Any) -> None:
    """Lower the number of tokens, and the special tokens with it."""
    for name, given in list(vars(config).items()):
        if name.startswith("vocab_size") and isinstance(given, int):
            setattr(config, name, VOCABULARY)
        elif name.endswith(("_token_id", "_token_index")) and isinstance(given, int) and given >= VOCABULARY:
            setattr(config, name, VOCABULARY - 1)


def _fewer_experts(text: Any) -> None:
    for name in EXPERT_COUNTS:
        if isinstance(count := getattr(text, name, None), int) and count > EXPERTS:
            setattr(text, name, EXPERTS)
    for name, most in CHOSEN.items():
        if isinstance(count := getattr(text, name, None), int) and count > most:
            setattr(text, name, most)


def _narrower(text: Any, *, heads_too: bool) -> None:
    """Divide the number of heads, the width of a head where that is safe, and the other widths with them."""
    linear = {name: getattr(text, name, None) for name in ("linear_num_key_heads", "linear_num_value_heads")}
    least = min((count for count in linear.values() if isinstance(count, int)), default=2)
    for name, count in linear.items():
        if isinstance(count, int) and least > 2 and count % (least // 2) == 0:
            setattr(text, name, count // (least // 2))
    heads = getattr(text, "num_attention_heads", None)
    groups = getattr(text, "num_key_value_heads", None) or heads
    if not isinstance(heads, int) or not isinstance(groups, int):
        return
    hidden = text.hidden_size
    divisors = [n for n in range(1, heads + 1) if heads % n == 0 and hidden % (8 * n) == 0]
    if groups > 1:
        divisors = [n for n in divisors if groups % n == 0 and groups // n >= 2]
    else:
        divisors = [n for n in divisors if heads // n >= 2]
    by = max((n for n in divisors if hidden // n >= 64), default=1)
    text.num_attention_heads = heads // by
    if getattr(text, "num_key_value_heads", None):
        text.num_key_value_heads = max(1, groups // by)
    by *= _narrower_heads(text, hidden // heads) if heads_too else 1
    text.hidden_size = hidden // by
    for name in ("mamba_d_state", "mamba_chunk_size"):
        if isinstance(given := getattr(text, name, None), int):
            setattr(text, name, min(given, STATE))
    derived = any("mamba" in name or "state_size" in name for name in vars(text))
    for name, given in list(vars(text).items()):
        if "intermediate_size" in name or name in ("ffn_dim", "n_inner", "ffn_hidden_size", "mlp_hidden_size"):
            if isinstance(given, list):
                setattr(text, name, [INNER] * len(given))
            elif isinstance(given, int) and given:
                setattr(text, name, given // by if derived and given % by == 0 else min(given, INNER))
        elif name in WITH_WIDTH and isinstance(given, int) and given % by == 0:
            setattr(text, name, given // by)


def _narrower_heads(text: Any, width: int) -> int:
    """Divide the width of a head, if nothing else depends on it; return by what."""
    given = getattr(text, "head_dim", None)
    width = given or width
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    ropes = [each for each in rope.values() if isinstance(each, dict)] or [rope]  # one for each type of layers
    lists = any(isinstance(each, list | dict) for one in ropes for each in one.values())
    others = [n for n in vars(text) if "head_dim" in n and n != "head_dim"] + [n for n in vars(text) if "mamba" in n]
    if lists or others or width % HEAD or width <= HEAD or text.hidden_size % (width // HEAD * 8):
        return 1
    if given:
        text.head_dim = HEAD
    return int(width // HEAD)
