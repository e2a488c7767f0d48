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
