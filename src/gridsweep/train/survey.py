"""`python -m gridsweep.train.survey < assignment.json`: what a sweep over a model and data can be sized by.

The data are read and encoded as a whole, without a cut; the model's shape is built without weights; nothing is trained.
Prints a `Survey` as JSON. An error of model or data is returned, not raised.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any  # configurations of any architecture

from gridsweep.errors import GridsweepError, HubError, SpecError
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.sweep.experiments import ALL_LINEAR, BUNDLED_DATA, Dataset, Model, Recipe
from gridsweep.sweep.surveys import (
    PERCENTILES,
    DataFacts,
    DeviceFacts,
    MemoryFacts,
    ModelFacts,
    Speed,
    Survey,
)
from gridsweep.train.cache import cache_folder
from gridsweep.train.hub import data_on_hub, pinned_data
from gridsweep.train.model import offline_if_local, resolve

if TYPE_CHECKING:
    from gridsweep.train.data import Data
    from gridsweep.train.pretrained import CausalLM, Tokenizer


def main(text: str) -> Survey:
    """Return the survey that an assignment asks for; its experiments do not matter."""
    assignment = codec.loads(Assignment, text)
    offline_if_local(assignment.model, assignment.dataset)
    try:
        return survey(assignment)
    except HubError as error:
        return Survey(unreachable=str(error))
    except GridsweepError as error:
        return Survey(error=str(error))


def survey(assignment: Assignment) -> Survey:
    """Survey data, model and device. Raise `SpecError` for what a worker would refuse, `HubError` without a hub."""
    from gridsweep.train.checkpoint import config_of, pinned_model, shape_of
    from gridsweep.train.device import device_and_dtype
    from gridsweep.train.look import WARNED
    from gridsweep.train.tokenizer_files import tokenizer_of

    resolve(assignment.model)  # a name that is none is told before the hub is asked for it
    pairs, rows, unseen = _pairs(assignment)
    model = pinned_model(assignment.model)
    where = resolve(model)
    config = config_of(model, where)
    data, changed = _data(tokenizer_of(model, where, config), pairs, rows, assignment)
    device, dtype = device_and_dtype()
    shape = shape_of(model, where, config).to(dtype)
    facts, chosen = _model(shape, config, assignment.recipe)
    found = _device(assignment.model)
    memory = _memory(shape, chosen, data.learned, device.type) if facts.lean else None
    if memory is None:
        unseen.append("memory: there is no memory model for this architecture, so one experiment is trained at a time")
    found_facts = {name.replace("_", " "): fact for name, fact in pairs.facts.items()} | changed
    warnings = tuple(f"{found_facts[name]}; {remedy}" for name, remedy in WARNED.items() if name in found_facts)
    return Survey(facts, data, found, memory, tuple(unseen), warnings)


def _pairs(assignment: Assignment) -> tuple[Data, int | None, list[str]]:
    """Return the conversations, how many rows the hub tells (None: all were read), and what is not known of them."""
    from gridsweep.train import data

    dataset, recipe = assignment.dataset, assignment.recipe
    if not data_on_hub(dataset):
        return data.load(dataset, recipe, assignment.encoding), None, []
    pinned = pinned_data(dataset)
    pairs = data.first_of(pinned, recipe)
    if pairs.rows < data.FIRST_ROWS:
        return pairs, pairs.rows, []
    told = _rows_on_hub(pinned)
    unseen = [f"data: of the hub's rows the first {data.FIRST_ROWS} were read; lengths and unusable rows are theirs"]
    if told is None:
        unseen.append(f"samples: the hub tells no number of rows; the sweep takes the first {data.FIRST_ROWS} only")
    return pairs, told or pairs.rows, unseen


def _rows_on_hub(dataset: Dataset) -> int | None:
    """Return the number of rows of a split, as the dataset's own metadata tell it."""
    from datasets import load_dataset_builder

    splits = load_dataset_builder(dataset.id, dataset.config, revision=dataset.revision).info.splits
    found = splits.get(dataset.split) if splits else None
    return int(found.num_examples) if found is not None and found.num_examples else None


def _data(
    tokenizer: Tokenizer, pairs: Data, rows: int | None, assignment: Assignment
) -> tuple[DataFacts, dict[str, str]]:
    """Return the facts about the samples, and what encoding them would change."""
    from gridsweep.train.data_files import validation_split
    from gridsweep.train.loading import changed, encoded

    train, validation = encoded(tokenizer, pairs, assignment)
    samples = [*train.samples, *validation.samples]
    lengths = sorted(len(sample.ids) for sample in samples)
    learned = sum(sample.counted for sample in samples) / max(1, sum(lengths))
    id = assignment.dataset.id
    own = id in BUNDLED_DATA or (not data_on_hub(assignment.dataset) and validation_split(id) is not None)
    many, held = len(train.samples), len(validation.samples)
    counted = f"all {len(samples)} usable samples were read"
    if rows is not None:  # of a dataset of the hub
        usable = round(rows * (1 - sum(pairs.skipped.values()) / max(1, pairs.rows)))
        held = max(1, round(usable * assignment.recipe.validation_share))
        many, counted = usable - held, f"{rows:,} rows by the hub, less the share of unusable ones"
    return DataFacts(many, held, own, _percentiles(lengths), learned, counted), changed(train, validation)


def _percentiles(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return 101 of the sorted lengths, from the shortest to the longest."""
    last = len(lengths) - 1
    return tuple(lengths[round(last * at / (PERCENTILES - 1))] for at in range(PERCENTILES))


def _model(shape: CausalLM, config: Any, recipe: Recipe) -> tuple[ModelFacts, dict[str, tuple[int, int]]]:
    """Return the facts about a model, and the widths of its target modules: the usual ones, else all linear layers."""
    from gridsweep.train.kinds import kind_of
    from gridsweep.train.lean.targets import sizes, targeted, text_config

    targets = recipe.target_modules
    try:
        modules, _ = targeted(shape, targets)
    except SpecError:
        targets = (ALL_LINEAR,)
        modules, _ = targeted(shape, targets)
    kind = kind_of(config, targets)
    widths = {name: sizes(module) for name, module in modules.items()}
    text = text_config(config)
    context = getattr(text, "max_position_embeddings", None)
    hidden = getattr(text, "hidden_size", None) or round(mean(width for width, _ in widths.values()))
    return ModelFacts(
        type(shape).__name__, sum(p.numel() for p in shape.parameters()), int(hidden),
        int(context) if isinstance(context, int) and context > 0 else None,
        sum(width + out for width, out in widths.values()), targets, kind.trainer == "lean", kind.told,
    ), widths  # fmt: skip


def _memory(shape: CausalLM, widths: dict[str, tuple[int, int]], learned: float, device: str) -> MemoryFacts | None:
    """Return the memory model of a shape as a value; None where there is none."""
    from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint, weights_of
    from gridsweep.train.lean.targets import text_config

    made = Footprint(weights_of(shape), shape.dtype.itemsize, widths, text_config(shape.config), learned, device=device)
    try:
        one, two = made.token(1), made.token(2)
    except (AttributeError, IndexError):
        return None
    token = (SHORT_LIVED * (2 * one - two), SHORT_LIVED * (two - one))
    return MemoryFacts(made.base, made.adapter(1), made.logits(1), token, HEADROOM)


def _device(model: Model) -> DeviceFacts:
    """Return the facts about the device at hand, with what `doctor --train` kept of this model on it."""
    import torch

    from gridsweep.train.device import accelerator_index, device_and_dtype, device_name, memory_at_hand

    index = accelerator_index()
    device, _ = device_and_dtype()
    name = device_name(device)
    speeds, measured_at = kept_speeds(name, model)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    power = _limit_w(index) if device.type == "cuda" else None
    return DeviceFacts(name, device.type, count, memory_at_hand(device, None), power, speeds, measured_at)


def _limit_w(index: int | str | None) -> float | None:
    """Return the power limit of a GPU in W; None if the driver does not tell it."""
    from gridsweep.energy.power_limits import seen

    try:
        return seen(0 if index is None else index)[0].now
    except Exception:  # any error of the driver: the limit is then stated as unknown
        return None


def kept_speeds(device: str, model: Model) -> tuple[tuple[Speed, ...], str]:
    """Return what `gridsweep doctor --train` measured for a model on a device, and when; nothing if it did not."""
    from gridsweep.train.probing import SCHEMA_VERSION, file_name

    file = cache_folder() / "devices" / f"{file_name(device)}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["schema_version"] != SCHEMA_VERSION:
            return (), ""
        made = kept["models"][model.id]
        speeds = tuple(Speed(int(one["members"]), float(one["tokens_per_s"])) for one in made["choices"])
        return tuple(one for one in speeds if one.tokens_per_s > 0), str(made["measured_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return (), ""  # not measured, or by another version


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    print(codec.dumps(main(sys.stdin.read())))
