"""Adapters for tests: written by hand into a folder, or put in place of the stand-in worker's."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders import real_sweep
from gridsweep.records.files import appearing
from gridsweep.runs import run as runs
from gridsweep.sweep.experiments import Model, Recipe
from gridsweep.testing.stand_in import STAND_IN

CONFIG = {
    "base_model_name_or_path": "tiny-qwen2",
    "revision": None,
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "up_proj"],
    "bias": "none",
    "modules_to_save": None,
    "use_dora": False,
    "init_lora_weights": True,
    "inference_mode": True,
}


def shapes(rank: int = 4, layers: int = 2) -> dict[str, list[int]]:
    """The tensors of a small LoRA."""
    found = {}
    for layer in range(layers):
        for module, wide, out in (("self_attn.q_proj", 6, 8), ("mlp.up_proj", 6, 10)):
            stem = f"base_model.model.model.layers.{layer}.{module}"
            found[f"{stem}.lora_A.weight"] = [rank, wide]
            found[f"{stem}.lora_B.weight"] = [out, rank]
    return found


def header_of(tensors: dict[str, list[int]]) -> tuple[dict[str, Any], int]:
    """The header of a float32 safetensors file, and how many bytes follow it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors.items():
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, at


def write_tensors(path: Path, header: object, size: int) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


def write_adapter(folder: Path, tensors: dict[str, list[int]] | None = None, **changes: object) -> Path:
    """A LoRA's folder; `changes` are of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    header, size = header_of(shapes() if tensors is None else tensors)
    write_tensors(folder / "adapter_model.safetensors", header, size)
    return folder


@contextmanager
def published(folder: Path, experiment: str) -> Iterator[Path]:
    """A draft that becomes an experiment's adapter, with its manifest."""
    final = folder / "store" / "experiments" / experiment / "adapter"
    with appearing(final, 1) as draft:
        yield draft


def stand_in_run(folder: Path, n: int = 3, **changes: Any) -> Path:
    """A finished sweep on tiny-qwen2, whose adapters are the stand-in worker's: no weights in them."""
    sweep = real_sweep(n, steps=2, model=Model("tiny-qwen2"), recipe=Recipe(steps=2), **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")
        runs.run(sweep, folder, command=STAND_IN)
    return folder


def run_with_adapters(folder: Path, n: int = 3, **changes: Any) -> Path:
    """The same with adapters that pass for real ones, written by hand."""
    stand_in_run(folder, n, **changes)
    for home in (folder / "store" / "experiments").iterdir():
        shutil.rmtree(home / "adapter")
        with published(folder, home.name) as draft:
            write_adapter(draft)
    return folder
