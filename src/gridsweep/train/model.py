"""Find and load the frozen base model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Base, Dataset, Model, is_local

if TYPE_CHECKING:  # torch is imported where it is used, because the import takes seconds
    import torch

    from gridsweep.train.pretrained import CausalLM, Tokenizer

TINY_QWEN2 = Path(__file__).parent / "tiny_qwen2"
BUNDLED = ("tiny-qwen2", "smollm2-135m-instruct")


def offline_if_local(model: Model, dataset: Dataset) -> None:
    """Keep the Hugging Face libraries off the network if model and dataset are local; call before importing them."""
    here = model.id in BUNDLED or is_local(model.id) or Path(model.id).is_dir()
    if here and (dataset.id == "stdlib" or is_local(dataset.id) or Path(dataset.id).is_dir()):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def resolve(model: Model) -> str:
    """Return where to load the model from: a folder, or a Hugging Face id.

    Raise `SpecError` if a folder is missing or holds only pickled weights, which could run code.
    """
    if model.id == "tiny-qwen2":
        return str(TINY_QWEN2)
    if model.id == "smollm2-135m-instruct":
        from gridsweep.train.smollm2 import converted

        return str(converted())
    folder = Path(model.id).expanduser()
    if not folder.is_dir():
        if is_local(model.id):
            raise SpecError(f"the model folder {model.id} is not there (looked in {Path.cwd()}); check its path")
        return model.id
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights"
        raise SpecError(f"the model folder {model.id} has no .safetensors weights ({found}); save it as safetensors")
    return str(folder)


def load_base(
    model: Model, device: torch.device, dtype: torch.dtype, kind: Base = "full"
) -> tuple[Tokenizer, CausalLM]:
    """Return (tokenizer, frozen model in evaluation mode). Raise `SpecError` if they cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # progress bars would fill the log
    where = resolve(model)
    revision = {} if Path(where).is_dir() else {"revision": model.revision or "main"}
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **revision)
        base: CausalLM = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, use_safetensors=True, **revision
        )
    except (OSError, ValueError, KeyError) as error:  # missing, no network, no safetensors, unknown architecture
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"the model {model.id} cannot be loaded: {cause}; check its name and the network, or name a local folder"
        ) from error
    base.config.use_cache = False
    base.requires_grad_(False)
    if kind == "4-bit":
        from gridsweep.train.four_bit import in_four_bits

        base = in_four_bits(base, device)
    return tokenizer, base.to(device).eval()
