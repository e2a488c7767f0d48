"""A recommended configuration on the terminal."""

from __future__ import annotations

from pathlib import Path

from gridsweep.accounting.recommendation import Recommendation
from gridsweep.errors import word
from gridsweep.render.figures import percent
from gridsweep.render.screen import console
from gridsweep.sweep.experiments import number

SHOWN = 8
"""Number of tied experiments shown by name."""


def text(made: Recommendation, folder: Path, adapter: Path | None) -> None:
    """Print the best experiment, its ties, its configuration and all caveats."""
    recipe, params = made.recipe, made.params
    rows = [
        ("so far" if made.left else "best", made.id + (f", {made.left} of {made.of} remain" if made.left else "")),
        ("loss", _loss(made)),
        ("tied", _tied(made)),
        ("LoRA", f"r {params.r}, alpha {number(params.alpha)}, dropout {number(params.dropout)}{_variant(made)}"),
        ("", f"on {', '.join(recipe.target_modules)}"),
        ("training", f"learning rate {number(params.lr)}, {_schedule(made)}"),
        (
            "",
            f"{made.total_steps} steps of {recipe.batch_size} x {recipe.accumulation} samples of at most "
            f"{recipe.max_length} tokens",
        ),
        ("", f"AdamW, weight decay {number(recipe.weight_decay)}, gradient norm at most {number(recipe.clip)}"),
        ("of", f"{made.model.id} on {made.dataset.id}"),
        ("adapter", str(adapter) if adapter else f"not in {folder}: restore it, or train it again"),
        *(("" if i else "caveats", caveat) for i, caveat in enumerate(made.caveats)),
        ("paste", f"gridsweep best {word(folder)} --as peft (or trl, axolotl)"),
    ]
    if adapter:
        rows.append(("take", f"gridsweep export {made.id} {word(folder)} --to DIR"))
    out = console()
    for what, said in rows:
        out.print(f"{what:<10}{said}", markup=False, soft_wrap=True)


def _loss(made: Recommendation) -> str:
    said = f"{made.validation_loss:.4f}"
    if made.low is not None and made.high is not None:
        said += f" (95 %: {made.low:.4f} to {made.high:.4f})"
    if made.seeds > 1:
        said += f", mean of {made.seeds} seeds"
    return said if made.initial_loss is None else f"{said}; {made.initial_loss:.4f} before training"


def _tied(made: Recommendation) -> str:
    """Return the experiments that are statistically tied with the best."""
    if not made.others:
        return "unknown: no other experiment finished training"
    if made.tied is None:
        return "unknown: no per-sample losses were kept and the spec states no loss noise"
    if not made.tied:
        return f"none of the {made.others} other finished experiments"
    names = [f"{row.experiment} ({row.loss:.4f})" for row in made.tied[:SHOWN]]
    more = [f"and {len(made.tied) - SHOWN} more"] if len(made.tied) > SHOWN else []
    return ", ".join([*names, *more])


def _variant(made: Recommendation) -> str:
    recipe = made.recipe
    said = ", scaled by alpha / sqrt(r) (rsLoRA)" if recipe.rslora else ""
    if recipe.lora_plus != 1:
        said += f", B at {number(recipe.lora_plus)} times the rate (LoRA+)"
    return said + (", upper half of the layers only" if recipe.layers != "all" else "")


def _schedule(made: Recommendation) -> str:
    warmup = f" after a warm-up of {percent(made.recipe.warmup)}" if made.warmup_steps else ""
    return f"{made.recipe.learning_rate_schedule}{warmup}"
