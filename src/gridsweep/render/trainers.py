"""A recommended configuration for other trainers: PEFT with transformers, TRL, axolotl.

Every value is the one used in training; a comment states each setting for which a trainer has no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any  # values of a trainer's configuration, as Python and YAML write them

import yaml

from gridsweep.accounting.recommendation import Recommendation
from gridsweep.sweep.experiments import ALL_LINEAR, Dataset

OPTIMIZER = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
"""Settings of the worker's AdamW: torch's defaults."""
TRAINERS = ("peft", "trl", "axolotl")
WIDTH = 100


def snippet(made: Recommendation, trainer: str) -> str:
    """Return the configuration as text to paste: Python for `peft` and `trl`, YAML for `axolotl`."""
    body = {"peft": _peft, "trl": _trl, "axolotl": _axolotl}[trainer](made)
    return "\n".join([*_head(made), *body]) + "\n"


def _head(made: Recommendation) -> list[str]:
    interval = f" ({made.low:.4f} to {made.high:.4f})" if made.low is not None and made.high is not None else ""
    head = _comment(f"Sweep {made.sweep}: {made.id}, validation loss {made.validation_loss:.4f}{interval}.")
    for caveat in made.caveats:
        head += _comment(f"Caveat: {caveat}")
    return head


def _peft(made: Recommendation) -> list[str]:
    lines = ["from peft import LoraConfig", "from transformers import TrainingArguments", ""]
    lines += [f"base_model = {made.model.id!r}", *_about_model(made), ""]
    lines += _call("lora_config", "LoraConfig", _lora(made))
    lines += _call("training_args", "TrainingArguments", _arguments(made))
    lines += _comment(f"Samples: at most {made.recipe.max_length} tokens, truncated at the end; {_loss_on(made)}.")
    lines += _lora_plus_in_python(made)
    return lines + _differences(made)


def _trl(made: Recommendation) -> list[str]:
    own: dict[str, Any] = {
        "max_length": made.recipe.max_length,
        "packing": False,
        "completion_only_loss": True,
    }
    load = {"revision": made.model.revision, "dtype": made.facts.get("dtype")}
    if load := {key: value for key, value in load.items() if value is not None}:
        own["model_init_kwargs"] = load
    lines = ["from peft import LoraConfig", "from trl import SFTConfig", ""]
    lines += [f"base_model = {made.model.id!r}", *_about_model(made), ""]
    lines += _call("peft_config", "LoraConfig", _lora(made))
    lines += _call("training_args", "SFTConfig", {**_arguments(made), **own})
    lines += _comment(
        "Use: SFTTrainer(model=base_model, args=training_args, peft_config=peft_config, train_dataset=...). "
        f"The dataset needs the columns prompt and completion; {_loss_on(made)}."
    )
    lines += _lora_plus_in_python(made)
    return lines + _differences(made)


def _axolotl(made: Recommendation) -> list[str]:
    recipe, params, facts = made.recipe, made.params, made.facts
    modules = _modules(made)
    lora: dict[str, Any] = {
        "base_model": made.model.id,
        "model_revision": made.model.revision,
        "adapter": "qlora" if made.base == "4-bit" else "lora",
        "load_in_4bit": True if made.base == "4-bit" else None,
        "lora_r": params.r,
        "lora_alpha": _whole(params.alpha),
        "lora_dropout": params.dropout,
        "lora_target_modules": None if modules == ALL_LINEAR else modules,
        "lora_target_linear": True if modules == ALL_LINEAR else None,
        "peft_use_rslora": recipe.rslora,
        "peft_layers_to_transform": list(made.layers) if made.layers is not None else None,
        "loraplus_lr_ratio": recipe.lora_plus if recipe.lora_plus != 1 else None,
    }
    data: dict[str, Any] = {
        "datasets": [_source(made.dataset)],
        "train_on_inputs": False,
        "sequence_len": recipe.max_length,
        "sample_packing": False,
    }
    training: dict[str, Any] = {
        "micro_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation,
        "num_epochs": _epochs(made),
        "max_steps": made.total_steps,
        "learning_rate": params.lr,
        "lr_scheduler": _schedule(made),
        "warmup_steps": made.warmup_steps,
        "optimizer": "adamw_torch",
        **OPTIMIZER,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "seed": made.seed,
        "bf16": facts["dtype"] == "bfloat16" if "dtype" in facts else None,
        "output_dir": made.id,
    }
    lines = [*_about_model(made), *_yaml(lora)]
    lines += _exclusions(made)
    lines += ["", *_yaml(data)]
    lines += _comment(
        "Set the dataset's type to match its columns: alpaca for instruction and output, chat_template for "
        f"messages, field names for others; {_loss_on(made)}."
    )
    lines += ["", *_yaml(training)]
    if params.alpha != int(params.alpha):
        lines += _comment("axolotl accepts only whole numbers for lora_alpha: round this value.")
    if recipe.lora_plus != 1 and recipe.weight_decay:
        lines += _comment("axolotl may ignore weight_decay with LoRA+: the sweep used both.")
    return lines + _differences(made)


def _source(data: Dataset) -> dict[str, Any]:
    """Return where axolotl reads the samples."""
    return _given({"path": data.id, "name": data.config, "split": data.split, "revision": data.revision})


def _exclusions(made: Recommendation) -> list[str]:
    """Return a comment on modules that bear a target's name and had no adapter."""
    if not made.excluded:
        return []
    return _comment(
        "axolotl has no key for exclusions. Modules of these names without adapters in the sweep: "
        f"{len(made.excluded)}, the first is {made.excluded[0]}."
    )


def _lora(made: Recommendation) -> dict[str, Any]:
    """Return the arguments of PEFT's `LoraConfig`."""
    layers = {"layers_to_transform": list(made.layers)} if made.layers is not None else {}
    excluded = {"exclude_modules": list(made.excluded)} if made.excluded else {}
    return {
        "r": made.params.r,
        "lora_alpha": _whole(made.params.alpha),
        "lora_dropout": made.params.dropout,
        "target_modules": _modules(made),
        **layers,
        **excluded,
        "use_rslora": made.recipe.rslora,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def _modules(made: Recommendation) -> list[str] | str:
    """Return the names of the modules with adapters; `all-linear` only if the adapter that lists them is missing."""
    if made.modules is not None:
        return list(made.modules)
    targets = made.recipe.target_modules
    return ALL_LINEAR if targets == (ALL_LINEAR,) else list(targets)


def _arguments(made: Recommendation) -> dict[str, Any]:
    """Return the arguments of `TrainingArguments`, which TRL's `SFTConfig` accepts too."""
    dtype = made.facts.get("dtype")
    return {
        "output_dir": made.id,
        "max_steps": made.total_steps,
        "per_device_train_batch_size": made.recipe.batch_size,
        "gradient_accumulation_steps": made.recipe.accumulation,
        "learning_rate": made.params.lr,
        "lr_scheduler_type": _schedule(made),
        "warmup_steps": made.warmup_steps,
        "optim": "adamw_torch",
        **OPTIMIZER,
        "weight_decay": made.recipe.weight_decay,
        "max_grad_norm": made.recipe.clip,
        "seed": made.seed,
        **({} if dtype is None else {"bf16": dtype == "bfloat16"}),
    }


def _schedule(made: Recommendation) -> str:
    """Return the learning-rate schedule as transformers names it; its `constant` has no warm-up."""
    name = made.recipe.learning_rate_schedule
    return "constant_with_warmup" if name == "constant" and made.warmup_steps else name


def _epochs(made: Recommendation) -> float | int | None:
    """Return the epochs needed for all steps; None if the number of training samples is unknown."""
    if made.recipe.steps is None:
        return _whole(made.recipe.epochs)
    known = made.facts.get("train_samples", str(made.dataset.train_samples or ""))
    if not known.isdecimal() or not int(known):
        return None
    return ceil(made.total_steps * made.recipe.batch_size * made.recipe.accumulation / int(known))


def _about_model(made: Recommendation) -> list[str]:
    said = []
    if made.dataset.id == "stdlib":
        said += _comment("The dataset stdlib is bundled with gridsweep: replace it with your own.")
    if made.model.id in ("tiny-qwen2", "smollm2-135m-instruct"):
        said += _comment("This model is bundled with gridsweep: gridsweep.train.model.resolve returns its folder.")
    elif made.model.revision is not None:
        said += _comment(f"Revision of the model: {made.model.revision}.")
    if made.base == "4-bit":
        said += _comment(
            "Trained over the 4-bit base: NF4 in blocks of 64, scales in float32 (no double quantization)."
        )
    if _modules(made) == ALL_LINEAR:
        said += _comment("all-linear may match other modules here; the adapter that lists those trained is missing.")
    if made.recipe.layers != "all" and made.layers is None:
        said += _comment("Only the upper half of the decoder layers had adapters; the adapter listing them is missing.")
    return said


def _loss_on(made: Recommendation) -> str:
    template = made.facts.get("prompt_template")
    ways = {
        None: "",
        "chat template": ", prompts in its chat template",
        "model.chat_template": ", prompts in the template that model.chat_template names",
    }
    asked = ways.get(template, f", prompts as {template}")
    return f"the loss counts only the response tokens, including the end token{asked}"


def _lora_plus_in_python(made: Recommendation) -> list[str]:
    """Return the code for LoRA+: these trainers have no argument for it, but PEFT creates the optimizer."""
    if made.recipe.lora_plus == 1:
        return []
    return [
        *_comment("LoRA+ has no argument here: pass optimizers=(optimizer, None) to the trainer, with"),
        "# from peft.optimizers import create_loraplus_optimizer",
        f"# optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr={made.params.lr!r},",
        f"#     loraplus_lr_ratio={made.recipe.lora_plus!r}, loraplus_weight_decay={made.recipe.weight_decay!r})",
    ]


def _differences(made: Recommendation) -> list[str]:
    """Return comments on the differences between the sweep's training and these trainers."""
    said = []
    if made.warmup_steps:
        said.append(
            "Warm-up: the first step has a learning rate of 0 here, and 1 / warmup_steps of the peak in the sweep."
        )
    if made.rungs:
        said.append(
            "Averaged weights were used at rungs only; the loss above is the loss of the weights after the last step."
        )
    if made.seeds > 1:
        said.append(f"The loss above is a mean over {made.seeds} seeds; seed {made.seed} is the first of them.")
    samples = made.facts.get("train_samples")
    split = f" and the split (by seed {made.recipe.seed}; {samples} samples to train on)" if samples else ""
    said.append(
        f"Sample order, dropout masks{split} are drawn differently: expect the same variation as from another seed."
    )
    return [line for text in said for line in _comment(text)]


def _call(name: str, function: str, arguments: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {function}(", *(f"    {key}={value!r}," for key, value in arguments.items()), ")"]


def _yaml(values: Mapping[str, Any]) -> list[str]:
    return yaml.safe_dump(_given(values), sort_keys=False, allow_unicode=True, width=10_000).splitlines()


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _whole(value: float) -> int | float:
    """Return a whole number as an int, which PEFT and axolotl expect."""
    return int(value) if value == int(value) else value


def _comment(text: str) -> list[str]:
    """Return comment lines valid in Python and YAML; no quoted text can end the comment."""
    import textwrap

    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.wrap(plain, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
