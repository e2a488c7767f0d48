"""The data of a sweep: conversations for training and for validation, and facts about them."""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil
from pathlib import Path, PurePath

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Dataset, Recipe, is_local
from gridsweep.train import stdlib
from gridsweep.train.conversations import Conversation, asked, by_row
from gridsweep.train.data_files import hub_rows, rows_of, validation_split
from gridsweep.train.first_reading import digest_as_then, pair_as_then, rows_as_then
from gridsweep.train.forms import by_name, named_columns, read_row, refuse_alike
from gridsweep.train.overlap import trained_on_too
from gridsweep.train.rows import Row
from gridsweep.train.turns import TOO_DEEP, Skipped

LONGEST = 400  # characters of a stdlib pair: about 110 tokens of tiny-qwen2, so that a demo takes minutes
FIRST_ROWS = 1000
"""How many rows of a dataset of the hub are looked at before the wait."""
TOLD = {"all_answers": "all answers", "last_answer": "the last answer of each conversation"}


@dataclass(frozen=True, slots=True)
class Data:
    """Conversations for training and validation, facts for the result, and how many of `rows` were skipped and why."""

    train: list[Conversation]
    validation: list[Conversation]
    facts: dict[str, str]
    skipped: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0


@dataclass(slots=True)
class _Reading:
    """What was found in the rows of one source so far."""

    found: list[Conversation] = field(default_factory=list)
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    forms: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)


def load(dataset: Dataset, recipe: Recipe, encoding: int = 2) -> Data:
    """Read a dataset and split it, the same way for every experiment of a sweep.

    Raise `SpecError` if the dataset is missing, is not understood, has too many unusable rows or too few others.
    """
    if dataset.id == "stdlib":
        train, validation, facts = _stdlib(dataset, recipe)
        return Data(train, validation, facts | {"dataset_digest": digest(train + validation, encoding)})
    if encoding == 1:
        return _as_then(dataset, recipe)
    source = _own_validation(dataset)
    wanted = dataset.train_samples if source else _wanted(dataset, recipe)
    reading = _read(dataset, dataset.id, rows_of(dataset.id, dataset.split, dataset.revision, dataset.config), wanted)
    readings = [reading]
    if source is None:
        train, validation = _split(dataset, recipe, reading.found, sum(reading.skipped.values()))
    else:
        rows = rows_of(*source, dataset.revision, dataset.config, "dataset.validation")
        readings.append(_read(dataset, source[0], rows, dataset.validation_samples))
        train, validation = (one.found for one in readings)
        _enough(dataset.id, "train", train, dataset.train_samples)
        _enough("{} ({})".format(*source), "validation", validation, dataset.validation_samples)
    skipped = sum((one.skipped for one in readings), Counter[str]())
    count = sum(one.rows for one in readings)
    facts = _facts(dataset, readings, skipped, count, source) | _unasked(train, validation)
    if seen := trained_on_too(dataset.id, train, validation, own=source is not None):
        facts["validation_seen"] = seen
    return Data(train, validation, facts | {"dataset_digest": digest(train + validation, encoding)}, skipped, count)


def first_of(dataset: Dataset, recipe: Recipe) -> Data:
    """Read the first rows of a dataset of the hub, without fetching the rest; the last of them is for validation.

    Raise `SpecError` if the split or a named column is missing, if none of these rows can be used, or if they are all
    that is needed and too many of them are skipped.
    """
    sources = [(dataset.split, _wanted(dataset, recipe) if dataset.validation is None else dataset.train_samples)]
    if dataset.validation is not None and not is_local(dataset.validation):
        sources.append((dataset.validation, dataset.validation_samples))
    readings = []
    for split, wanted in sources:
        rows = islice(hub_rows(dataset.id, split, dataset.revision, dataset.config, streaming=True), FIRST_ROWS)
        reading = _taken(dataset, dataset.id, rows, wanted)
        if not reading.found:
            raise SpecError(
                f"the dataset {dataset.id} ({split}): none of its first {reading.rows} rows can be used: "
                f"{_causes(reading)}; name its columns with dataset.columns, or another split"
            )
        if len(reading.found) == wanted:
            _few_skipped(dataset, dataset.id, reading)
        readings.append(reading)
    first = readings[0]
    facts = _facts(dataset, [first], first.skipped, first.rows, None) | _unasked(first.found, [])
    return Data(first.found[:-1] or first.found, first.found[-1:], facts, first.skipped, first.rows)


def digest(conversations: Iterable[Conversation], encoding: int = 2) -> str:
    """Return the sha256 over conversations and which answers are learned, in their order."""
    if encoding == 1:
        return digest_as_then(conversations)
    sha = hashlib.sha256()
    for one in conversations:
        whole = [list(map(dict, one.turns)), one.answers, one.text]
        sha.update(json.dumps(whole, sort_keys=True, default=str).encode() + b"\n")
    return sha.hexdigest()


def _stdlib(dataset: Dataset, recipe: Recipe) -> tuple[list[Conversation], list[Conversation], dict[str, str]]:
    """Return the short functions of half `b` of the standard library; functions of held-out modules are validation."""
    if dataset.columns is not None or dataset.validation is not None:
        raise SpecError("stdlib has its own columns and validation; remove dataset.columns and dataset.validation")
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


def _as_then(dataset: Dataset, recipe: Recipe) -> Data:
    """Return what version 0.1.0 read."""
    wanted, pairs, rows = _wanted(dataset, recipe), [], 0
    for row in rows_as_then(dataset.id, dataset.split, dataset.revision):
        rows += 1
        pair = pair_as_then(row.values, f"the dataset {dataset.id}")
        if pair is not None:
            pairs.append(pair)
            if len(pairs) == wanted:
                break
    skipped = rows - len(pairs)
    train, validation = _split(dataset, recipe, pairs, skipped)
    facts = {"skipped_rows": str(skipped)} if skipped else {}
    facts["dataset_digest"] = digest(train + validation, 1)
    return Data(train, validation, facts, {"without text": skipped} if skipped else {}, rows)


def _wanted(dataset: Dataset, recipe: Recipe) -> int | None:
    """Return how many conversations a split by seed needs; None for all."""
    train = dataset.train_samples
    return None if train is None else train + (dataset.validation_samples or _share(train, recipe))


def _split(
    dataset: Dataset, recipe: Recipe, found: list[Conversation], skipped: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Return the first conversations of a dataset, split by the recipe's seed."""
    train, validation = dataset.train_samples, dataset.validation_samples
    if validation is None:
        validation = _share(train, recipe) if train is not None else round(len(found) * recipe.validation_share)
    if train is None:
        train = len(found) - validation
    told = f"the dataset {dataset.id} has {len(found)} usable sample{'s' * (len(found) != 1)}"
    if min(train, validation) < 1 and len(found) < 5:
        raise SpecError(f"{told}, too few to train on and to validate by; add rows")
    if train + validation > len(found) or min(train, validation) < 1:
        raise SpecError(
            f"{told} ({skipped} rows were skipped), "
            f"{max(train, 1)} to train and {max(validation, 1)} to validate are asked for; ask for fewer"
        )
    chosen = found[: train + validation]
    random.Random(f"split {recipe.seed}").shuffle(chosen)
    return chosen[:train], chosen[train:]


def _share(train: int, recipe: Recipe) -> int:
    """Return the number of validation samples for `train` samples when only the share is given: 4,000, 0.2 -> 1,000."""
    return max(1, round(train * recipe.validation_share / (1 - recipe.validation_share)))


def _own_validation(dataset: Dataset) -> tuple[str, str] | None:
    """Return id and split of the validation samples; None if training samples are split.

    A local folder with validation files validates by them, unless a number of validation samples is asked for.
    """
    if dataset.validation is None:
        if dataset.validation_samples is not None or not dataset.split.startswith("train"):
            return None
        own = validation_split(dataset.id)
        return None if own is None else (dataset.id, own)
    if not is_local(dataset.validation):
        source = (dataset.id, dataset.validation)
    else:
        source = (dataset.validation, "train")
    if source == (dataset.id, dataset.split) or (_same_file(source[0], dataset.id) and source[1] == dataset.split):
        raise SpecError(f"dataset.validation: {dataset.validation} is what is trained on; name other samples")
    return source


def _same_file(one: str, other: str) -> bool:
    paths = [Path(id).expanduser() for id in (one, other)]
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def _read(dataset: Dataset, id: str, rows: Iterable[Row], wanted: int | None) -> _Reading:
    """Return the first `wanted` conversations of a source (all if None). Raise `SpecError` if too many are unusable."""
    reading = _taken(dataset, id, rows, wanted)
    _few_skipped(dataset, id, reading)
    return reading


def _few_skipped(dataset: Dataset, id: str, reading: _Reading) -> None:
    """Raise `SpecError` if a larger share of rows was skipped than is allowed."""
    skipped = sum(reading.skipped.values())
    if skipped and skipped == reading.rows:
        raise SpecError(
            f"the dataset {id}: none of its {skipped} rows can be used: {_causes(reading)}; mend them, or name the "
            "columns that hold prompts and responses with dataset.columns"
        )
    if skipped > dataset.skip_at_most * reading.rows:
        scale = next(s for s in (1000, 10**6, 10**9, 10**12) if ceil(skipped / reading.rows * s) < s)
        share = ceil(skipped / reading.rows * scale) / scale
        raise SpecError(
            f"the dataset {id}: {skipped} of {reading.rows} rows cannot be used: {_causes(reading)}; mend them, or "
            f"allow them with dataset.skip_at_most: {share:.12g} (now {dataset.skip_at_most:g})"
        )


def _taken(dataset: Dataset, id: str, rows: Iterable[Row], wanted: int | None) -> _Reading:
    """Return the first `wanted` conversations of a source, and what was skipped. Raise `SpecError` for a column."""
    reading = _Reading()
    for row in rows:
        _take(reading, row, dataset)
        if len(reading.found) == wanted:
            break
    if not reading.rows:
        raise SpecError(f"the dataset {id} is empty: it holds no rows; name another file or split")
    if dataset.columns is not None:
        missing = [name for name in named_columns(dataset.columns) if name not in reading.columns]
        if missing:
            there = ", ".join(reading.columns)
            raise SpecError(f"dataset.columns: {id} has no column {missing[0]!r}; its columns are {there}")
    return reading


def _causes(reading: _Reading) -> str:
    return ", ".join(f"{count} {cause} (first: {reading.first[cause]})" for cause, count in _most(reading.skipped))


def _take(reading: _Reading, row: Row, dataset: Dataset) -> None:
    """Read one row."""
    reading.rows += 1
    values = row.values if dataset.columns is not None else by_name(row.values)
    reading.columns |= dict.fromkeys(values)
    try:
        conversation, form, used = read_row(row.where, values, dataset.columns, dataset.train_on)
        if dataset.columns is None:
            refuse_alike(row.where, row.values, used)
    except RecursionError:
        raise SpecError(f"{row.where}: {TOO_DEEP}") from None
    except Skipped as skipped:
        cause = str(skipped)
        reading.skipped[cause] += 1
        reading.first.setdefault(cause, row.where)
        return
    reading.found.append(replace(conversation, where=row.where))
    reading.forms[form] += 1
    reading.used |= set(used)


def _most(skipped: Counter[str]) -> list[tuple[str, int]]:
    return sorted(skipped.items(), key=lambda item: (-item[1], item[0]))


def _enough(source: str, what: str, found: Sequence[Conversation], wanted: int | None) -> None:
    if len(found) < (wanted or 1):
        raise SpecError(f"{source} has {len(found)} usable {what} samples, {wanted or 1} are asked for; ask for fewer")


def _unasked(train: Sequence[Conversation], validation: Sequence[Conversation]) -> dict[str, str]:
    """Return the fact that answers follow no question, if any do, with the first row (of training, if it has one)."""
    found = [[one.where for one in part if one.unasked] for part in (train, validation)]
    if not any(found):
        return {}
    first = min(found[0] or found[1], key=by_row)
    of = f"{sum(map(len, found))} of {len(train) + len(validation)}"
    what = f"{of} conversations learn an answer without a question before it"
    return {"unasked_answers": f"{what} (first: {first})"}


def _facts(
    dataset: Dataset, readings: Sequence[_Reading], skipped: Counter[str], rows: int, source: tuple[str, str] | None
) -> dict[str, str]:
    """Return what was read, for `check` and the report."""
    forms = sum((one.forms for one in readings), Counter[str]())
    unused = [name for name in readings[0].columns if not any(name in one.used for one in readings)]
    texts = set(forms) == {dataset.columns.text if dataset.columns else "text"}
    facts = {
        "dataset_rows": str(rows),
        "dataset_form": "; ".join(form for form, _ in forms.most_common()),
        "trained_on": "all tokens of each text" if texts else TOLD[dataset.train_on],
    }
    if unused:
        facts["unused_columns"] = ", ".join(unused)
    if skipped:
        facts["skipped_rows"] = f"{skipped.total()} of {rows}: " + ", ".join(
            f"{n} {cause}" for cause, n in _most(skipped)
        )
    if source is not None:
        id, split = source
        facts["validation_from"] = f"the split {split}" if id == dataset.id else PurePath(id).name
    elif dataset.validation_samples is not None and (own := validation_split(dataset.id)):
        facts["validation_from"] = f"the training rows, as validation_samples is given; the split {own} is not used"
    return facts
