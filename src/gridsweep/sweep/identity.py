"""Experiment ids: a readable slug, and a digest of everything that decides the result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import PurePath

from gridsweep.sweep.axes import AXES, recipe_of
from gridsweep.sweep.experiments import PARAMS, Base, Dataset, LoraParams, Model, Recipe, is_local, number, text

NEW_KEYS: dict[str, dict[str, object]] = {
    "model": {"chat_template": None},
    "dataset": {"columns": None, "validation": None, "train_on": "all_answers", "config": None},
    "recipe": {"layers": "all", "rslora": False, "lora_plus": 1.0},
}
"""Keys added later, by section; they count in an id only if they differ from these defaults."""

UNDECIDING = {"recipe": ("seed", "checkpoint_every"), "dataset": ("skip_at_most",)}
"""Keys that never count in an id: the seed counts by itself, the others do not decide a result."""

MOST_NAMED = 12
"""The largest number of experiments that a message names."""


def slug(params: LoraParams, recipe: Recipe | None = None) -> str:
    """Return a readable name, safe as a folder and as a DNS label: `r16-a32-lr1e-4-d0p05`. Not unique by itself.

    Further axes follow where they differ from the recipe: `r16-a32-lr1e-4-d0-wd0p1`.
    """
    parts = [f"r{params.r}", f"a{number(params.alpha)}", f"lr{number(params.lr)}", f"d{number(params.dropout)}"]
    for key, value in params.more:
        if recipe is None or key == "seed" or value != getattr(recipe, key):
            parts.append(AXES[key].short + text(value))
    return re.sub(r"[^a-z0-9-]", "p", "-".join(parts).lower())[:36].rstrip("-")


def experiment_id(
    params: LoraParams, seed: int, model: Model, dataset: Dataset, recipe: Recipe, base: Base = "full"
) -> str:
    """Return a slug and a digest of everything that decides the result; local paths count by their last part only.

    `recipe` is the sweep's. At most 45 characters, a DNS-1035 label. Ids are equal if and only if the experiments are
    equal: an axis at the recipe's value adds nothing.
    """
    named = {name: getattr(params, name) for name in PARAMS}
    own = recipe_of(recipe, params)
    values: dict[str, object] = {"params": _canonical(named), "seed": seed, **_shared(model, dataset, own)}
    if base != "full":
        values["base"] = base
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return f"{slug(params, recipe)}-{digest}"


@lru_cache(maxsize=16)  # the same for all experiments of a sweep, of which there may be thousands
def _shared(model: Model, dataset: Dataset, recipe: Recipe) -> dict[str, object]:
    """Return what counts in an experiment's id besides its point and its seed."""
    of_data = _deciding("dataset", dataset) | {"id": _name(dataset.id)}
    if dataset.validation is not None:
        of_data["validation"] = _name(dataset.validation)
    if dataset.columns is not None:
        of_data["columns"] = {key: column for key, column in asdict(dataset.columns).items() if column is not None}
    return {
        "model": _deciding("model", model) | {"id": _name(model.id)},
        "dataset": of_data,
        "recipe": _canonical(_deciding("recipe", recipe)),
    }


def ambiguous(beginning: str, ids: Sequence[str], among: Sequence[str]) -> str:
    """Return the message for an id prefix that matches several `ids`, with the shortest unique prefix of each.

    Prefixes end at a hyphen, and no other id in `among` begins with them.
    """
    typed = [_shortest(id, among) for id in ids[:MOST_NAMED]]
    return f"{beginning!r} matches {len(ids)} experiments; type one of {some(typed, len(ids))}"


def some(names: Sequence[str], of: int | None = None) -> str:
    """Return the first names as a list, and how many there are more."""
    more = max(0, (of or len(names)) - MOST_NAMED)
    return ", ".join(names[:MOST_NAMED]) + (f", and {more} more" if more else "")


def _shortest(id: str, among: Sequence[str]) -> str:
    ends = [found.start() for found in re.finditer(r"(?<!\de)-", id)]  # not within 1e-4
    others = [other for other in among if other != id]
    return next((id[:end] for end in ends if not any(other.startswith(id[:end]) for other in others)), id)


def _deciding(section: str, values: Model | Dataset | Recipe) -> dict[str, object]:
    """Return the values of a section that count in an experiment's id."""
    spared, never = NEW_KEYS[section], UNDECIDING.get(section, ())
    return {k: v for k, v in asdict(values).items() if k not in never and not (k in spared and spared[k] == v)}


def _canonical(values: dict[str, object]) -> dict[str, object]:
    """Return the values with numbers as text, so that an alpha of 32 equals one of 32.0."""
    return {key: number(v) if isinstance(v, int | float) else v for key, v in values.items()}


def _name(id: str) -> str:
    return PurePath(id).name if is_local(id) else id
