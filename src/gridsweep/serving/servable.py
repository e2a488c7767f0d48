"""Checks whether an adapter can be served, from its folder alone, before a server starts or a model loads.

adapter_config.json         a plain LoRA of the expected base model
adapter_model.safetensors   a lora_A of [r, in] and a lora_B of [out, r] for each module; only the header is read
manifest.json  README.md    optional; other files are refused
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # what JSON holds

from gridsweep.errors import AdapterError
from gridsweep.executors.kubernetes.manifests.serving import RANKS
from gridsweep.sweep.experiments import Model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = frozenset({CONFIG, WEIGHTS, "manifest.json", "README.md"})
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# LoRA options that do not affect a server, or that every server supports. All others must be off.
_FREE = frozenset(
    {
        "base_model_name_or_path", "revision", "r", "lora_alpha", "lora_dropout", "target_modules", "peft_type",
        "task_type", "inference_mode", "init_lora_weights", "peft_version", "megatron_core", "qalora_group_size",
        "use_rslora", "ensure_weight_tying", "layers_to_transform", "exclude_modules", "fan_in_fan_out",
    }
)  # fmt: skip
_OFF: tuple[object, ...] = (None, False, "none", "", [], {})
_EMBEDDINGS = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out"})
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_TENSOR = re.compile(r"base_model\.model\.((?:[A-Za-z0-9_]+\.)*([A-Za-z0-9_]+))\.lora_([AB])\.weight")
_CONFIG_LIMIT, _HEADER_LIMIT = 1 << 20, 1 << 24


@dataclass(frozen=True, slots=True)
class Servable:
    """An adapter that passed the checks: its name for clients, its folder, its base and its rank."""

    name: str
    folder: Path
    base: Model
    rank: int


def servable(name: str, folder: Path, base: Model) -> Servable:
    """Check one adapter for serving on `base`. Raise `AdapterError` with the adapter, the problem and the remedy."""
    if not NAME.fullmatch(name):
        raise AdapterError(f"{shown(name)} is not a valid adapter name; use letters, digits, and . _ - between them")
    try:
        plain_files(folder)
        config = _config(folder / CONFIG)
        rank = _check_config(config, base)
        _check_tensors(_header(folder / WEIGHTS), rank, config["target_modules"])
    except _Fault as fault:
        raise AdapterError(f"cannot serve the adapter {name} in {folder}: {fault}") from None
    except OSError as error:
        raise AdapterError(f"cannot read the adapter {name} in {folder}: {error.strerror}; check the folder") from None
    return Servable(name, folder.resolve(), base, rank)


def together(adapters: Sequence[Servable]) -> int:
    """Return the rank limit for adapters served together: the smallest of `RANKS` that fits all of them.

    Raise `AdapterError` if they do not share a base model, or if two have the same name.
    """
    if not adapters:
        raise AdapterError("no adapter to serve; name at least one experiment")
    first = adapters[0]
    for other in adapters[1:]:
        if other.base != first.base:
            raise AdapterError(
                f"{first.name} belongs to {described(first.base)} and {other.name} to {described(other.base)}; "
                "serve them separately, because a server has one base model"
            )
    names = [adapter.name for adapter in adapters]
    if twice := [name for name in names if names.count(name) > 1]:
        raise AdapterError(f"{twice[0]} is named twice; name each adapter once")
    return next(rank for rank in RANKS if rank >= max(adapter.rank for adapter in adapters))


def plain_files(folder: Path) -> None:
    """Raise `AdapterError` for files that do not belong to an adapter: pickles, links, folders, unknown files."""
    if folder.is_symlink() or not folder.is_dir():
        raise _Fault("it is not a folder; use a path that `gridsweep models` prints")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICKLES:
            raise _Fault(f"{shown(path.name)} is a pickle, which can run code when loaded; save it as safetensors")
        if path.is_symlink() or not path.is_file():
            raise _Fault(f"{shown(path.name)} is a link or a folder; use plain files")
        if path.name not in FILES:
            raise _Fault(f"{shown(path.name)} does not belong there; keep only {', '.join(sorted(FILES))}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise _Fault(f"{name} is missing; was it written by the stand-in worker, or by another method?")


def described(model: Model) -> str:
    """Return a base model as text for a message."""
    return shown(model.id) + (f" at revision {shown(model.revision)}" if model.revision else "")


def shown(value: object) -> str:
    """Return any value as short ASCII text on one line."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Fault(AdapterError):
    """A problem of an adapter, without the adapter's name."""


def _config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _CONFIG_LIMIT:
        raise _Fault(f"{CONFIG} has more than a megabyte, so it is not an adapter configuration")
    return _object(path.read_bytes(), CONFIG)


def _check_config(config: dict[str, Any], base: Model) -> int:
    """Return the rank. Raise `AdapterError` unless the adapter is a plain LoRA of `base`."""
    own = Model(str(config.get("base_model_name_or_path")), config.get("revision") or None)
    if own.id != base.id:
        raise _Fault(
            f"it was trained on {shown(own.id)} and the sweep's model is {shown(base.id)}; serve it with its own sweep"
        )
    if own.revision != base.revision:
        raise _Fault(
            f"it was trained on revision {shown(own.revision)} of {shown(base.id)} and the sweep's is "
            f"{shown(base.revision)}; serve it with its own sweep"
        )
    if config.get("peft_type") != "LORA" or config.get("task_type") != "CAUSAL_LM":
        kind = f"{shown(config.get('peft_type'))} for {shown(config.get('task_type'))}"
        raise _Fault(f"it is {kind}; only LORA for CAUSAL_LM can be served")
    for option, value in config.items():
        if option not in _FREE and value not in _OFF:
            raise _Fault(f"it uses {shown(option)} ({shown(value)}), which servers do not support; train a plain LoRA")
    if config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        # Other initializations also change the base's weights when the adapter is loaded.
        raise _Fault(f"init_lora_weights is {shown(config['init_lora_weights'])}; only a plain start can be served")
    rank = config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= RANKS[-1]:
        raise _Fault(f"its rank is {shown(rank)}; vLLM serves ranks from 1 to {RANKS[-1]}")
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
        raise _Fault(f"target_modules is {shown(targets)}; a list of names is needed")
    if embeddings := _EMBEDDINGS.intersection(targets):
        raise _Fault(f"it trains {', '.join(sorted(embeddings))}; only linear layers inside the model can be served")
    return rank


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file's tensors. Raise `AdapterError` unless they fill the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            raise _Fault(f"{WEIGHTS} is not a safetensors file (header of {length} bytes in {size}); save it again")
        header = _object(file.read(length), f"the header of {WEIGHTS}")
    header.pop("__metadata__", None)
    spans, shapes = [], {}
    for name, entry in header.items():
        shape, dtype, begin, end = _entry(name, entry)
        count = 1
        for extent in shape:
            count *= extent
        if end - begin != count * _BYTES[dtype]:
            raise _Fault(f"the tensor {shown(name)} of {WEIGHTS} has a size unlike its shape; save it again")
        spans.append((begin, end))
        shapes[name] = shape
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise _Fault(f"the tensors of {WEIGHTS} overlap or leave gaps at byte {reached}; save it again")
        reached = end
    if reached != size - 8 - length:
        raise _Fault(f"the tensors of {WEIGHTS} end at byte {reached} of {size - 8 - length}; save it again")
    return shapes


def _entry(name: str, entry: Any) -> tuple[tuple[int, ...], str, int, int]:
    """Return shape, dtype, begin and end of one tensor."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            whole = all(type(extent) is int and extent > 0 for extent in shape)
            if len(entry) == 3 and dtype in _BYTES and whole and 0 <= begin <= end:
                return tuple(shape), dtype, begin, end
    raise _Fault(f"the tensor {shown(name)} of {WEIGHTS} has the invalid entry {shown(entry)}; save it again")


def _check_tensors(shapes: dict[str, tuple[int, ...]], rank: int, targets: Sequence[str]) -> None:
    """Raise `AdapterError` unless each target module, and no other, has a pair of matrices of the stated rank."""
    sides: dict[str, set[str]] = {}
    for name, shape in shapes.items():
        match = _TENSOR.fullmatch(name)
        if not match or match[2] not in targets:
            raise _Fault(
                f"the tensor {shown(name)} does not belong to a LoRA of {shown(sorted(targets))}; save only the adapter"
            )
        side = match[3]
        if len(shape) != 2 or shape[0 if side == "A" else 1] != rank:
            raise _Fault(f"the tensor {shown(name)} has the shape {list(shape)}, which is not of rank {rank}")
        sides.setdefault(match[1], set()).add(side)
    if halves := [module for module, have in sides.items() if have != {"A", "B"}]:
        raise _Fault(f"{shown(halves[0])} has only one of its two matrices; save it again")
    if missing := set(targets) - {module.rpartition(".")[2] for module in sides}:
        raise _Fault(f"{WEIGHTS} holds no tensors for {shown(sorted(missing))}; save it again")


def _object(text: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object without duplicate keys. Raise `AdapterError` for anything else."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _Fault(f"{what} is not a JSON object; save it again") from None
    if not isinstance(value, dict):
        raise _Fault(f"{what} is not a JSON object; save it again")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a duplicate key")
    return found
