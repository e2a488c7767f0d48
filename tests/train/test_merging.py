"""A merged model is base and adapter in one, loads with transformers alone, and keeps its number type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gridsweep.errors import AdapterError
from gridsweep.sweep.experiments import Model
from gridsweep.train.model import TINY_QWEN2

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def an_adapter(folder: Path, size: float = 0.02, **changes: object) -> Path:
    """Random A and B on two modules of every layer of tiny-qwen2."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(TINY_QWEN2)
    chance, weights = torch.Generator().manual_seed(3), {}
    for name, module in base.named_modules():
        if name.endswith(("q_proj", "down_proj")):
            out, wide = module.weight.shape
            weights[f"base_model.model.{name}.lora_A.weight"] = size * torch.randn(4, wide, generator=chance)
            weights[f"base_model.model.{name}.lora_B.weight"] = size * torch.randn(out, 4, generator=chance)
    config = {
        "base_model_name_or_path": "tiny-qwen2", "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4,
        "lora_alpha": 32, "target_modules": ["q_proj", "down_proj"], "bias": "none", "use_rslora": False,
    }  # fmt: skip
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def base_in(folder: Path, dtype: str, tied: bool = True) -> Path:
    """tiny-qwen2 in another number type, with a head of its own if not tied."""
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=getattr(torch, dtype))
    if not tied:
        base.config.tie_word_embeddings = False
        base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.detach().clone() * 1.01)
    base.save_pretrained(folder, max_shard_size="200KB")
    for file in TINY_QWEN2.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("dtype", "tied"), [("float32", True), ("float32", False), ("bfloat16", True)])
def test_logits_are_those_of_plain_peft(tmp_path: Path, dtype: str, tied: bool, rslora: bool) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gridsweep.train.merging import TOLERANCE, merge

    base, adapter = base_in(tmp_path / "base", dtype, tied), an_adapter(tmp_path / "adapter", use_rslora=rslora)
    told = merge(Model(str(base)), adapter, tmp_path / "merged", shard="300KB")
    assert told.dtype == dtype and told.modules == 8 and told.apart < min(TOLERANCE[dtype], 0.25 * told.effect)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert str(merged.dtype) == f"torch.{dtype}" and merged.config.tie_word_embeddings == tied
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 1  # in several files
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert ("lm_head.weight" in index["weight_map"]) != tied
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "merged")("def main():\n    pass")["input_ids"]])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter).eval()
    with torch.no_grad():
        one, other = merged(input_ids=ids).logits.float(), plain(input_ids=ids).logits.float()
    assert ((one - other).abs().mean() / other.std()).item() < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"r": 8}, "does not fit"), ({"extra": 1}, "no module"), ({"head": 1}, "shares its weight")],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from gridsweep.train.merging import merge

    adapter = an_adapter(tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    if "r" in change:
        weights[name] = torch.zeros(4, 5)
    else:
        other = "base_model.model.lm_head" if "head" in change else "base_model.model.model.layers.9.q_proj"
        weights[f"{other}.lora_A.weight"] = torch.zeros(4, 192)
        weights[f"{other}.lora_B.weight"] = torch.zeros(2048, 4)
    save_file(weights, file)
    with pytest.raises(AdapterError, match=words):
        merge(Model("tiny-qwen2"), adapter, tmp_path / "merged")


def test_a_merged_model_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gridsweep.train import merging

    right = merging._beside
    monkeypatch.setattr(merging, "_beside", lambda deltas: right({m: (2 * d[0], *d[1:]) for m, d in deltas.items()}))
    with pytest.raises(AdapterError, match="does not compute what base and adapter do"):
        merging.merge(Model("tiny-qwen2"), an_adapter(tmp_path / "adapter"), tmp_path / "merged")


def test_an_adapter_of_a_base_in_four_bits_is_refused() -> None:
    from gridsweep.serving.merged import check_base

    check_base("x", "full")
    with pytest.raises(AdapterError, match="x was trained over the base in 4 bits"):
        check_base("x", "4-bit")
