"""The frozen base model and its LoRA adapter: found, loaded, fitted, saved in PEFT's format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsweep.errors import SpecError
from gridsweep.sweep import Dataset, LoraParams, Model, Recipe, is_local

if TYPE_CHECKING:  # torch and PEFT are imported where used, for it takes seconds
    import torch

TINY_QWEN2 = Path(__file__).parent / "tiny_qwen2"
BUNDLED = ("tiny-qwen2", "smollm2-135m-instruct")


def offline_if_local(model: Model, dataset: Dataset) -> None:
    """Keep Hugging Face's libraries, once imported, off the network when nothing is needed from it."""
    here = model.id in BUNDLED or is_local(model.id) or Path(model.id).is_dir()
    if here and (dataset.id == "stdlib" or is_local(dataset.id) or Path(dataset.id).is_dir()):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def resolve(model: Model) -> str:
    """Where to load the model from: a folder, or a Hugging Face id.

    Raises `SpecError` when a folder is missing or holds weights in pickle only, which could run code.
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


def load_base(model: Model, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """(tokenizer, frozen model in evaluation mode). Raises `SpecError` when they cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the log
    where = resolve(model)
    revision = {} if Path(where).is_dir() else {"revision": model.revision or "main"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **revision)
        base = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, use_safetensors=True, **revision
        )
    except (OSError, ValueError, KeyError) as error:  # not there, no network, no safetensors, unknown kind
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"the model {model.id} cannot be loaded: {cause}; check its name and the network, or name a local folder"
        ) from error
    base.config.use_cache = False
    base.requires_grad_(False)
    return tokenizer, base.to(device).eval()


def add_lora(base: Any, model: Model, params: LoraParams, recipe: Recipe, seed: int) -> Any:
    """The base with a fresh adapter, a function of `seed`. Raises `SpecError` if they do not fit."""
    import torch
    from peft import LoraConfig, get_peft_model

    linear = {name.rpartition(".")[2] for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [name for name in recipe.target_modules if name not in linear]
    if missing:
        raise SpecError(
            f"the model {model.id} has no modules named {', '.join(missing)}; "
            f"set recipe.target_modules to some of {', '.join(sorted(linear))}"
        )
    config = LoraConfig(
        r=params.r,
        lora_alpha=int(params.alpha) if params.alpha == int(params.alpha) else params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(recipe.target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.id,
        revision=model.revision,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # PEFT renames the base in the config (undone below), and asks transformers in an old way.
        warnings.filterwarnings("ignore", message=".*base_model_name_or_path.* was renamed", category=UserWarning)
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        lora = get_peft_model(base, config)
    # PEFT puts the folder it was loaded from here, which would mean nothing on another machine.
    config.base_model_name_or_path = model.id
    return lora


def save_adapter(lora: Any, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, as plain PEFT reads them."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(lora, save_embedding_layers=False)
    save_tensors(weights, folder / "adapter_model.safetensors")
    config = lora.peft_config["default"]
    before = config.inference_mode
    config.inference_mode = True  # what PEFT's own save writes: the reader decides whether to train on
    config.save_pretrained(str(folder))
    config.inference_mode = before


def save_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """A safetensors file that others may read as far as the umask lets them (`save_file` lets nobody)."""
    from safetensors.torch import save

    file.write_bytes(save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, metadata={"format": "pt"}))


def load_adapter(lora: Any, folder: Path) -> None:
    """Put saved adapter weights in place. Raises `SpecError` when they belong to another model or rank."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / "adapter_model.safetensors")
    wanted = get_peft_model_state_dict(lora, save_embedding_layers=False)
    if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in wanted.items()}:
        raise SpecError(f"the adapter in {folder} does not fit this model and rank; remove it to start again")
    set_peft_model_state_dict(lora, saved)
