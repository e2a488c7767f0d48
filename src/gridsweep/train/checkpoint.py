"""A model's configuration and weights, loaded from its files and checked.

Whatever a library raises here becomes a `SpecError`, and weights that the model has otherwise are refused: a base whose
weights were drawn at random would be another one in every worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any  # configurations of any architecture

from gridsweep.errors import GridsweepError, HubError, SpecError
from gridsweep.sweep.experiments import Model
from gridsweep.train.hub import model_on_hub, unreachable

if TYPE_CHECKING:
    import torch

    from gridsweep.train.pretrained import CausalLM

COMPILED = "_orig_mod."
UNUSED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$")
"""Buffers that older versions of transformers saved as weights."""
TOWERS = re.compile(r"image|audio|video|img|vision", re.IGNORECASE)
"""In the names of tokens that stand for other inputs than text; models for text alone have no rows for them."""
DEQUANTIZED = ("mxfp4",)


def pinned_model(model: Model) -> Model:
    """Return a model of the hub with the commit that its revision names now; others as they are."""
    if not model_on_hub(model):
        return model
    from transformers.utils import cached_file

    with loading("config.json", model):
        path = cached_file(model.id, "config.json", revision=model.revision or "main")
        assert path is not None, "a missing config raises"
        return replace(model, revision=Path(path).parent.name)


def config_of(model: Model, where: str) -> Any:
    """Return the configuration of a model. Raise `SpecError` if it cannot be read or is of a quantized checkpoint."""
    from transformers import AutoConfig

    with loading("configuration (config.json)", model):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **revision_of(model, where))
    given = getattr(config, "quantization_config", None)
    if given is not None:
        method = _method(given)
        if method not in DEQUANTIZED:
            raise SpecError(
                f"the model {model.id} is quantized ({method}), and adapters are trained over a full base; "
                "name the model it was made from, and add proxy: {base: 4-bit} to rank over four bits"
            )
    return config


def base_of(model: Model, where: str, config: Any, dtype: torch.dtype) -> CausalLM:
    """Return the model with its weights. Raise `SpecError` if the files hold other weights than the model has."""
    from transformers.utils.logging import disable_progress_bar

    from gridsweep.train.architecture import auto_class

    disable_progress_bar()  # progress bars would fill the log
    auto = auto_class(config)
    more = {}
    if getattr(config, "quantization_config", None) is not None:
        from transformers import Mxfp4Config

        more["quantization_config"] = Mxfp4Config(dequantize=True)
    check_files(model, where)
    with loading("weights", model):
        base, told = auto.from_pretrained(
            where, dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True,  # told, instead of raised as a report in the log
            **revision_of(model, where), **more,
        )  # fmt: skip
    check_weights(model, told)
    found: CausalLM = base
    return found


def shape_of(model: Model, where: str, config: Any) -> CausalLM:
    """Return the model without weights, on the device "meta".

    Raise `SpecError` if the names and shapes in its files of weights are not those that the model has; files on the
    hub are not fetched for that.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from gridsweep.train.architecture import auto_class

    disable_progress_bar()
    auto = auto_class(config)
    check_files(model, where)
    with loading("configuration (config.json)", model), torch.device("meta"):
        shape: CausalLM = auto.from_config(config, trust_remote_code=False)
    if not Path(where).is_dir() or getattr(config, "quantization_config", None) is not None:
        return shape
    with loading("weights", model):
        shape, told = auto.from_pretrained(
            where, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True, device_map="meta",
        )  # fmt: skip
    check_weights(model, told)
    return shape


def check_files(model: Model, where: str) -> None:
    """Raise `SpecError` with the name of a file of weights in a folder that cannot be read."""
    from safetensors import safe_open

    for file in sorted(Path(where).glob("*.index.json")):
        with loading(f"weights ({file.name})", model):
            json.loads(file.read_text(encoding="utf-8"))
    for file in sorted(Path(where).glob("*.safetensors")):
        with loading(f"weights ({file.name})", model), safe_open(file, framework="np") as opened:
            opened.keys()


def check_weights(model: Model, told: Mapping[str, Any]) -> None:
    """Raise `SpecError` if weights are missing, unexpected or of another shape; transformers leaves out tied ones."""
    missing = sorted(told.get("missing_keys", ()))
    unexpected = sorted(name for name in told.get("unexpected_keys", ()) if not UNUSED.search(name))
    mismatched = sorted(told.get("mismatched_keys", ()))
    if not missing and not unexpected and not mismatched:
        return
    faults = [
        f"{len(names)} {kind} (the first is {names[0]})"
        for kind, names in (("are missing", missing), ("are unexpected", unexpected))
        if names
    ]
    if mismatched:
        name, saved, wanted = mismatched[0]
        faults.append(f"{len(mismatched)} have another shape ({name} is {_shape(saved)} instead of {_shape(wanted)})")
    remedy = "get the model's files again, or save the model with save_pretrained"
    if any(name.startswith(COMPILED) for name in unexpected):
        remedy = f"the model was saved compiled: save model._orig_mod, or take {COMPILED} out of the names"
    raise SpecError(f"the weights of {model.id} do not fit the model: {', '.join(faults)}; {remedy}")


@contextmanager
def loading(what: str, model: Model) -> Iterator[None]:
    """Turn every error of a library into a `SpecError` that names the part and the model."""
    try:
        yield
    except (GridsweepError, MemoryError):
        raise
    except Exception as error:  # any error of transformers, tokenizers, safetensors, the hub client
        if type(error).__name__ == "OutOfMemoryError":
            raise
        if unreachable(error):
            raise HubError(
                f"the model {model.id} is not on this machine and the hub cannot be reached",
                remedy="check the network, or name a local folder",
            ) from error
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        cause = " ".join(said[:2]) if said[0].endswith((":", ",")) else said[0]
        if isinstance(error, KeyError):
            named = cause in _local_config(model)
            cause = f"transformers knows no {cause}, which config.json names" if named else f"{cause} is missing"
        elif isinstance(error, ArithmeticError | AttributeError):
            cause = f"one of its values is impossible ({cause})"
        local = Path(model.id).expanduser().is_dir()
        remedy = "check its files" if local else "check its name and the network, or name a local folder"
        unknown = re.search(r"model type `?([\w.-]+)`? but Transformers does not recognize", str(error))
        if unknown:
            from transformers import __version__

            cause = f"transformers {__version__} knows no model type {unknown[1]}"
            remedy = "upgrade transformers, or choose a model of docs/models.md"
        elif "sentencepiece" in cause or "tiktoken" in cause:
            remedy = "install the package that the message names"
        raise SpecError(f"the model {model.id} cannot be loaded: its {what}: {cause}; {remedy}") from error


def revision_of(model: Model, where: str) -> dict[str, str]:
    """Return the option that names a model's revision on the hub."""
    return {} if Path(where).is_dir() else {"revision": model.revision or "main"}


def _local_config(model: Model) -> set[str]:
    """Return the texts among the values of a local model's configuration, as an error quotes them."""
    found: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, str):
            found.add(repr(value))
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(part)

    with suppress(OSError, ValueError, RecursionError):
        walk(json.loads((Path(model.id).expanduser() / "config.json").read_text(encoding="utf-8")))
    return found


def _method(given: object) -> str:
    """Return the name of a quantization, and its bits where they are told."""
    facts = given if isinstance(given, dict) else getattr(given, "to_dict", dict)()
    method = str(getattr(facts.get("quant_method"), "value", facts.get("quant_method") or "by an unknown method"))
    if method.endswith("mxfp4"):
        return "mxfp4"
    bits = next((f", {bits} bits" for bits in (4, 8) if facts.get(f"load_in_{bits}bit")), "")
    bits = bits or (f", {facts['bits']} bits" if facts.get("bits") else "")
    return f"{method}{bits}"


def _shape(sizes: object) -> str:
    return "x".join(map(str, sizes)) if isinstance(sizes, list | tuple) else str(sizes)
