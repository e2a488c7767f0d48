"""A member's files: its adapter in plain PEFT format, and the state needed to resume training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.records.disk import DISK
from gridsweep.sweep.experiments import PARAMS, Model, Recipe
from gridsweep.train.lean.targets import Layout
from gridsweep.train.lean.variants import Variant

Pairs = Mapping[str, tuple[Tensor, Tensor]]  # module -> A [r, in], B [out, r]


def write_adapter(
    folder: Path, weights: Mapping[str, Tensor], part: Part, variant: Variant, model: Model, layout: Layout
) -> None:
    """Write adapter_config.json and adapter_model.safetensors; `weights` are keyed by PEFT's names, as in `named`."""
    alpha = part.params.alpha
    config = {
        "base_model_name_or_path": model.id,
        "bias": "none",
        "fan_in_fan_out": layout.transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_to_transform": layout.layers,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": part.params.dropout,
        "peft_type": "LORA",
        "r": part.params.r,
        "revision": model.revision,
        "target_modules": layout.targets,
        "task_type": "CAUSAL_LM",
        "use_rslora": variant.rslora,
    }
    if layout.excluded:
        config["exclude_modules"] = list(layout.excluded)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write(weights, folder / "adapter_model.safetensors", {})


def named(weights: Pairs, adapter: str = "") -> dict[str, Tensor]:
    """Return A and B of every module by PEFT's file names; with `adapter`, by PEFT's parameter names in a model."""
    names = {}
    for module, pair in weights.items():
        for letter, tensor in zip("AB", pair, strict=True):
            names[f"base_model.model.{module}.lora_{letter}.{adapter + '.' if adapter else ''}weight"] = tensor
    return names


def identity(
    part: Part, variant: Variant, recipe: Recipe, total_steps: int, layers: list[int] | None
) -> dict[str, str]:
    """Return the facts that a checkpoint must share with the run that resumes from it."""
    facts = {name: getattr(part.params, name) for name in PARAMS}  # further axes are in the recipe
    facts |= {**asdict(variant), "seed": part.seed, "total_steps": total_steps}
    facts["layers_to_transform"] = layers
    facts["averaged_over"] = "a growing window"  # older checkpoints used another window
    facts |= {f"recipe.{name}": value for name, value in asdict(recipe).items() if name != "checkpoint_every"}
    return {name: json.dumps(value) for name, value in facts.items()}


def write_state(folder: Path, mean: Pairs, square: Pairs, average: Pairs, steps: int, facts: Mapping[str, str]) -> None:
    """Write optimizer.safetensors, with the names that torch's AdamW on a PEFT model has, and average.safetensors."""
    states = {
        **{f"exp_avg/{name}": tensor for name, tensor in named(mean, "default").items()},
        **{f"exp_avg_sq/{name}": tensor for name, tensor in named(square, "default").items()},
        **{f"step/{name}": torch.tensor(float(steps)) for name in named(mean, "default")},
    }
    _write(states, folder / "optimizer.safetensors", facts)
    _write(named(average), folder / "average.safetensors", {})


def read_state(folder: Path, facts: Mapping[str, str]) -> tuple[dict[str, dict[str, Tensor]], int]:
    """Return the saved tensors, by module and letter under `weights`, `mean`, `square`, `average`; and the steps made.

    Raise `SpecError` if the checkpoint belongs to another recipe or member; the message names the differences.
    """
    try:
        with safe_open(folder / "optimizer.safetensors", "pt") as file:
            there = file.metadata() or {}
        optimizer = load_file(folder / "optimizer.safetensors")
        adapter = load_file(folder / "adapter_model.safetensors")
        average = load_file(folder / "average.safetensors")
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) in DISK:
            raise  # it says nothing of the checkpoint
        raise SpecError(f"the checkpoint {folder} cannot be read: {error}; go on from an earlier one") from error
    other = [
        f"{name} {there.get(name, 'unknown')} instead of {fact}"
        for name, fact in facts.items()
        if there.get(name) != fact
    ]
    if other:
        raise SpecError(f"the checkpoint {folder} is of another training: {'; '.join(other)}")
    moments: dict[str, dict[str, Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}, "step": {}}
    for label, tensor in optimizer.items():
        kind, _, name = label.partition("/")
        moments[kind][name.replace(".default.", ".")] = tensor
    steps = int(next(iter(moments["step"].values())).item())
    return {
        "weights": adapter, "mean": moments["exp_avg"], "square": moments["exp_avg_sq"], "average": average
    }, steps  # fmt: skip


def _write(tensors: Mapping[str, Tensor], file: Path, facts: Mapping[str, str]) -> None:
    """Write a safetensors file with the umask's permissions (`save_file` makes it unreadable for other users)."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    file.write_bytes(save(plain, metadata={"format": "pt", **facts}))
