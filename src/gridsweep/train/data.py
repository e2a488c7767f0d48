"""The data of a sweep: the pairs for training, the pairs for validation, and facts about them."""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Dataset, Recipe, is_local
from gridsweep.train import stdlib
from gridsweep.train.conversations import Conversation, asked
from gridsweep.train.pairs import hub_rows, json_rows, pair_of

LONGEST = 400  # characters of a stdlib pair: about 110 tokens of tiny-qwen2, so that a demo takes minutes


@dataclass(frozen=True, slots=True)
class Data:
    """Pairs for training and validation, and facts about them for the result."""

    train: list[Conversation]
    validation: list[Conversation]
    facts: dict[str, str]


def load(dataset: Dataset, recipe: Recipe) -> Data:
    """Read a dataset and split it, the same way for every experiment of a sweep.

    Raise `SpecError` if the dataset is missing, has unknown columns, or has fewer pairs than requested.
    """
    train, validation, facts = _stdlib(dataset, recipe) if dataset.id == "stdlib" else _rows(dataset, recipe)
    return Data(train, validation, facts | {"dataset_digest": digest(train + validation)})


def _stdlib(dataset: Dataset, recipe: Recipe) -> tuple[list[Conversation], list[Conversation], dict[str, str]]:
    """Return the short functions of half `b` of the standard library; functions of held-out modules are validation."""
    functions = [f for f in stdlib.functions() if stdlib.half(f.module) == "b" and f.length <= LONGEST]
    sides: list[list[Conversation]] = []
    for held_out, wanted in ((False, dataset.train_samples), (True, dataset.validation_samples)):
        pairs = [asked(f.prompt, f.response) for f in functions if stdlib.held_out(f.module) == held_out]
        if len(pairs) < (wanted or 1):
            what = "validation" if held_out else "train"
            raise SpecError(f"stdlib has {len(pairs)} {what} samples, {wanted} are asked for; ask for fewer")
        random.Random(f"split {recipe.seed}").shuffle(pairs)
        sides.append(pairs[:wanted])
    return sides[0], sides[1], {"dataset_version": f"standard library of Python {platform.python_version()}"}


def _rows(dataset: Dataset, recipe: Recipe) -> tuple[list[Conversation], list[Conversation], dict[str, str]]:
    """Return the first pairs of a file or a Hugging Face dataset, split by the recipe's seed."""
    train, validation = dataset.train_samples, dataset.validation_samples
    wanted = None if train is None else train + (validation or _share(train, recipe))
    pairs, skipped = _first(dataset, wanted)
    if validation is None:
        validation = _share(train, recipe) if train is not None else round(len(pairs) * recipe.validation_share)
    if train is None:
        train = len(pairs) - validation
    if train + validation > len(pairs) or min(train, validation) < 1:
        raise SpecError(
            f"the dataset {dataset.id} has {len(pairs)} usable samples ({skipped} without text were "
            f"skipped), {train} to train and {validation} to validate are asked for; ask for fewer"
        )
    pairs = pairs[: train + validation]
    random.Random(f"split {recipe.seed}").shuffle(pairs)
    return pairs[:train], pairs[train:], {"skipped_rows": str(skipped)} if skipped else {}


def _first(dataset: Dataset, wanted: int | None) -> tuple[list[Conversation], int]:
    """Return the first `wanted` pairs (all if None) and the number of skipped rows without text."""
    source = _source(dataset)
    found = (pair_of(row, f"the dataset {dataset.id}") for row in source)
    pairs, skipped = [], 0
    for pair in found:
        if pair is None:
            skipped += 1
        else:
            pairs.append(pair)
            if len(pairs) == wanted:
                break
    return pairs, skipped


def _source(dataset: Dataset) -> Iterable[Mapping[str, object]]:
    path = Path(dataset.id).expanduser()
    if path.suffix in (".jsonl", ".json"):
        if not path.is_file():
            raise SpecError(f"the dataset {dataset.id} is not there (looked in {Path.cwd()}); check its path")
        return json_rows(path)
    if is_local(dataset.id) and not path.is_dir():
        raise SpecError(f"the dataset folder {dataset.id} is not there (looked in {Path.cwd()}); check its path")
    return hub_rows(str(path) if path.is_dir() else dataset.id, dataset.split, dataset.revision)


def _share(train: int, recipe: Recipe) -> int:
    """Return the number of validation samples for `train` samples when only the share is given: 4,000, 0.2 -> 1,000."""
    return max(1, round(train * recipe.validation_share / (1 - recipe.validation_share)))


def digest(pairs: Iterable[Conversation]) -> str:
    """Return the sha256 over the pairs in their order."""
    sha = hashlib.sha256()
    for pair in pairs:
        sha.update(json.dumps([list(map(dict, pair.prompt)), pair.response]).encode())
    return sha.hexdigest()
