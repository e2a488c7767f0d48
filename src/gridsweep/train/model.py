"""Find and load the frozen base model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.errors import HubError, SpecError
from gridsweep.sweep.experiments import Base, Dataset, Model, is_local

if TYPE_CHECKING:  # torch is imported where it is used, because the import takes seconds
    import torch

    from gridsweep.train.pretrained import CausalLM, Tokenizer

TINY_QWEN2 = Path(__file__).parent / "tiny_qwen2"
UNREACHABLE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout"}
"""Names of the errors of Hugging Face's libraries and of HTTP clients, which are imported late or not at all."""
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


def load_tokenizer(model: Model) -> Tokenizer:
    """Return the tokenizer of a base. Raise `SpecError` if it cannot be loaded."""
    from transformers import AutoTokenizer

    where = resolve(model)
    with _told(model):
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **_revision(model, where))
    return tokenizer


def load_shape(model: Model) -> CausalLM:
    """Return the base without weights, on the device "meta". Raise `SpecError` if its config cannot be loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = resolve(model)
    with _told(model):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **_revision(model, where))
        with torch.device("meta"):
            shape: CausalLM = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return shape


def load_base(
    model: Model, device: torch.device, dtype: torch.dtype, kind: Base = "full"
) -> tuple[Tokenizer, CausalLM]:
    """Return (tokenizer, frozen model in evaluation mode). Raise `SpecError` if they cannot be loaded."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # progress bars would fill the log
    tokenizer = load_tokenizer(model)
    where = resolve(model)
    with _told(model):
        base: CausalLM = AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, use_safetensors=True, **_revision(model, where)
        )
    base.config.use_cache = False
    base.requires_grad_(False)
    if kind == "4-bit":
        from gridsweep.train.four_bit import in_four_bits

        base = in_four_bits(base, device)
    return tokenizer, base.to(device).eval()


@contextmanager
def _told(model: Model) -> Iterator[None]:
    """Turn what a library says of a model that cannot be loaded into a `SpecError`."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:  # not there, no network, no safetensors, unknown kind
        if unreachable(error):
            raise HubError(
                f"the model {model.id} is not on this machine and the hub cannot be reached",
                remedy="check the network, or name a local folder",
            ) from error
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise SpecError(
            f"the model {model.id} cannot be loaded: {cause}; check its name and the network, or name a local folder"
        ) from error


def unreachable(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a hub could not be reached, rather than that it refused."""
    while error is not None:
        if type(error).__name__ in UNREACHABLE or isinstance(error, ConnectionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _revision(model: Model, where: str) -> dict[str, str]:
    return {} if Path(where).is_dir() else {"revision": model.revision or "main"}
