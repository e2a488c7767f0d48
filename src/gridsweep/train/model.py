"""Find and load the frozen base model."""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import BUNDLED_MODELS, Base, Dataset, Model, is_local

if TYPE_CHECKING:  # torch is imported where it is used, because the import takes seconds
    import torch

    from gridsweep.train.pretrained import CausalLM, Tokenizer

TINY_QWEN2 = Path(__file__).parent / "tiny_qwen2"
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer_config.json", "tekken.json", "tiktoken.model",
)  # fmt: skip
"""Files of which a tokenizer has one or more."""
LFS = b"version https://git-lfs.github.com/spec/"


def offline_if_local(model: Model, dataset: Dataset) -> None:
    """Keep the Hugging Face libraries off the network if model and dataset are local; call before importing them."""
    from gridsweep.train.hub import data_on_hub, model_on_hub

    if not model_on_hub(model) and not data_on_hub(dataset):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def resolve(model: Model) -> str:
    """Return where to load the model from: a folder, or a Hugging Face id.

    Raise `SpecError` if a folder is missing, is not whole, or holds only pickled weights, which could run code.
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
        if "/" not in model.id and (meant := get_close_matches(model.id, BUNDLED_MODELS, 1, 0.7)):
            raise SpecError(f"there is no bundled model {model.id!r}; did you mean {meant[0]}?")
        return model.id
    check_folder(model.id, folder)
    return str(folder)


def check_folder(name: str, folder: Path) -> None:
    """Raise `SpecError` if a model folder lacks files, or holds pointers of Git LFS or special files instead."""
    special = [
        file.name for file in sorted(folder.glob("*")) if file.exists() and not (file.is_file() or file.is_dir())
    ]
    if special:
        raise SpecError(f"the model folder {name}: {special[0]} is no regular file; remove it, or get the file again")
    pointers = [file.name for file in sorted(folder.glob("*")) if file.is_file() and _is_pointer(file)]
    if pointers:
        raise SpecError(
            f"the model folder {name}: {pointers[0]} is a Git LFS pointer, not the file; run git lfs pull in the folder"
        )
    if (folder / "adapter_config.json").is_file():
        what = "is a PEFT adapter" if not (folder / "config.json").is_file() else "holds a PEFT adapter too"
        raise SpecError(
            f"the model folder {name} {what} (adapter_config.json); name its base, or merge the adapter "
            "(merge_and_unload, then save_pretrained) into a folder of its own"
        )
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights"
        raise SpecError(f"the model folder {name} has no .safetensors weights ({found}); save it as safetensors")
    if not (folder / "config.json").is_file():
        raise SpecError(f"the model folder {name} has no config.json; save the whole model with save_pretrained")
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise SpecError(
            f"the model folder {name} has no tokenizer ({', '.join(TOKENIZERS[:3])} or other files); copy the files of "
            "the tokenizer that it was trained with"
        )
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{index} cannot be read ({error}); get the file again") from error
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise SpecError(
            f"the model folder {name} lacks {len(missing)} of {len(shards)} files of weights, the first is "
            f"{missing[0]}; get them too"
        )


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(LFS)) == LFS


def load_base(
    model: Model, device: torch.device, dtype: torch.dtype, kind: Base = "full"
) -> tuple[Tokenizer, CausalLM]:
    """Return (tokenizer, frozen model in evaluation mode).

    Raise `SpecError` if they cannot be loaded, or if the weights are not exactly those that the model has.
    """
    from gridsweep.train.checkpoint import base_of, config_of
    from gridsweep.train.tokenizer_files import tokenizer_of

    where = resolve(model)
    config = config_of(model, where)
    tokenizer = tokenizer_of(model, where, config)
    base = base_of(model, where, config, dtype)
    base.config.use_cache = False
    base.requires_grad_(False)
    if kind == "4-bit":
        from gridsweep.train.four_bit import in_four_bits

        base = in_four_bits(base, device)
    return tokenizer, base.to(device).eval()
