"""An exported adapter is plain PEFT's to load."""

import json

import pytest

from gridsweep.render.export import export

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def test_an_export_loads_in_plain_peft_with_the_same_weights(run_folder, tmp_path):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from gridsweep.train.model import TINY_QWEN2

    target = export(run_folder, "e01", tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, target / "adapter")
    saved = load_file(run_folder / "store/experiments/e01/adapter/adapter_model.safetensors")
    weights = {name.replace(".default.", "."): value for name, value in loaded.named_parameters() if "lora_" in name}
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
    assert json.loads((target / "metrics.json").read_text())["id"] == "e01"


def test_an_export_with_merge_is_a_model_that_transformers_loads_alone(run_folder, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from gridsweep.train.model import TINY_QWEN2

    target = export(run_folder, "e01", tmp_path / "out", merge=True)
    told = json.loads((target / "merged.json").read_text())
    assert told["dtype"] == "bfloat16" and told["modules"] > 0 and told["apart"] < 0.1
    assert "## Merged" in (target / "README.md").read_text()
    merged = AutoModelForCausalLM.from_pretrained(target / "merged", dtype="auto")
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(TINY_QWEN2, dtype="auto"), target / "adapter"
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        one, other = merged(input_ids=ids).logits.float(), plain.eval()(input_ids=ids).logits.float()
    assert ((one - other).abs().mean() / other.std()).item() < 0.1
