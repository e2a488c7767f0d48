"""Loading: turn an assignment into a group that is ready for its first step."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.errors import CheckpointError, SpecError
from gridsweep.records.attempts import Assignment, Part
from gridsweep.records.files import verify
from gridsweep.sweep.constants import check_constant
from gridsweep.train import data
from gridsweep.train.hub import commit_of_data, pinned_data

if TYPE_CHECKING:  # importing these takes seconds, during which the worker could not react to a stop request
    import torch

    from gridsweep.train.lean.engine import Engine
    from gridsweep.train.lean.group import Group
    from gridsweep.train.pretrained import CausalLM, Tokenizer
    from gridsweep.train.room import Room
    from gridsweep.train.samples import Encoded, Sample


@dataclass(frozen=True, slots=True)
class Ready:
    """All members as one group, its room (None without a memory model), the validation samples, and facts."""

    group: Group
    room: Room | None
    validation: list[Sample]
    facts: dict[str, str]
    constants: dict[str, str]


def load(assignment: Assignment, store: Path, breathe: Callable[[], None]) -> Ready:
    """Load data, model and checkpoints; call `breathe` in between. Raise `SpecError` if any of them is invalid."""
    known = assignment.constants
    checkpoints = {part.experiment: whole_checkpoint(part, store) for part in assignment.members}
    dataset = pinned_data(assignment.dataset)
    pairs = data.load(dataset, assignment.recipe, assignment.encoding)
    found = commit_of_data(dataset) | {"training data": pairs.facts["dataset_digest"]}
    check_constant(known, found)
    breathe()

    from gridsweep.train.architecture import peculiarities
    from gridsweep.train.checkpoint import pinned_model
    from gridsweep.train.constants import of_model, of_samples, of_tokenizer
    from gridsweep.train.device import device_and_dtype, memory_at_hand, taken_beside
    from gridsweep.train.footprint import weights_of
    from gridsweep.train.kinds import engine_for, kind_of
    from gridsweep.train.machine_memory import resident
    from gridsweep.train.model import load_base
    from gridsweep.train.room import room_for  # imports torch, which takes seconds

    device, dtype = device_and_dtype()
    found["dtype"] = str(dtype).removeprefix("torch.")
    model = pinned_model(assignment.model)
    before = resident()
    tokenizer, base = load_base(model, device, dtype, assignment.base)
    breathe()
    recipe = assignment.recipe
    train, validation = encoded(tokenizer, pairs, assignment)
    found |= of_model(model) | of_tokenizer(tokenizer) | of_samples(train.samples, validation.samples, assignment)
    check_constant(known, found)
    breathe()
    assignment = replace(assignment, model=model, dataset=dataset)  # adapters name the commit
    memory = memory_at_hand(device, assignment.device.memory_gb, assignment.beside)
    kind = kind_of(base.config, recipe.target_modules, recipe.layers)
    breathe()
    room = None
    if kind.trainer == "lean":
        beside = taken_beside(device, weights_of(base), before)
        room = room_for(base, assignment.members, recipe, train.samples, memory, beside=beside)
    kind, engine = engine_for(kind, base, recipe.target_modules, recipe.layers)
    group = _group(assignment, base, train.samples, room if kind.trainer == "lean" else None, engine)
    for experiment, folder in ((name, saved) for name, saved in checkpoints.items() if saved is not None):
        group.load(experiment, folder)
        breathe()
    facts = {
        **_machine(device, dtype),
        **pairs.facts,
        "train_samples": str(len(train.samples)),
        "validation_samples": str(len(validation.samples)),
        **train.facts,
        **_cut(train, validation, recipe.max_length),
        **peculiarities(base.config, recipe.max_length),
    }
    if assignment.base == "4-bit":
        from gridsweep.train.four_bit import described as packed

        facts["base"] = packed()
    if kind.trainer != "lean":
        facts["trainer"] = kind.told
    return Ready(group, room, validation.samples, facts, found)


def whole_checkpoint(part: Part, store: Path) -> Path | None:
    """Return the checkpoint folder to resume from, after checking that it is complete; None at step 0."""
    if part.checkpoint is None:
        if part.from_step:
            raise CheckpointError(
                f"{part.experiment} is to go on from step {part.from_step}, but no checkpoint is named"
            )
        return None
    folder = store / part.checkpoint.path
    if not verify(folder, part.checkpoint.digest):
        raise CheckpointError(
            f"the checkpoint {folder} is missing or damaged: its digests differ; go on from an earlier one"
        )
    if part.checkpoint.step != part.from_step:
        raise CheckpointError(
            f"the checkpoint {folder} is of step {part.checkpoint.step}, not of step {part.from_step}"
        )
    return folder


def encoded(tokenizer: Tokenizer, pairs: data.Data, assignment: Assignment) -> tuple[Encoded, Encoded]:
    """Return the training and validation samples. Raise `SpecError` if no sample has room for a response."""
    from gridsweep.train.encoding import encode

    length, template = assignment.recipe.max_length, assignment.model.chat_template
    judged = assignment.judging.max_length if assignment.judging else length
    train, validation = (
        encode(tokenizer, side, at_most, encoding=assignment.encoding, date=assignment.submitted, template=template)
        for side, at_most in ((pairs.train, length), (pairs.validation, judged))
    )
    if not train.samples or not validation.samples:
        raise SpecError(
            f"no sample of {assignment.dataset.id} has room for a response in {length} tokens; raise recipe.max_length"
        )
    return train, validation


def _group(assignment: Assignment, base: CausalLM, samples: list[Sample], room: Room | None, engine: Engine) -> Group:
    """Return the members as one group, with the room's plan; without a room, with the device's default plan."""
    import torch

    from gridsweep.train.lean.fitting import CPU_TOKENS
    from gridsweep.train.lean.group import Group, Plan
    from gridsweep.train.lean.variants import Variant

    recipe = assignment.recipe
    recipes = {part.experiment: assignment.recipe_of(part) for part in assignment.members}
    tokens = CPU_TOKENS if base.device.type == "cpu" else None
    if engine.most == 1:  # a batch of the recipe's size, because all its logits are alive at once
        tokens = min(tokens or sys.maxsize, recipe.batch_size * max(len(sample.ids) for sample in samples))
    return Group(
        base,
        assignment.members,
        recipe,
        assignment.total_steps,
        samples,
        assignment.model,
        variants={name: Variant(own.rslora, own.lora_plus) for name, own in recipes.items()},
        layers=recipe.layers,
        order=assignment.members[0].seed,
        plan=room.fit.plan if room else Plan(tokens=tokens),
        home=torch.device("cpu") if room is not None and room.fit.away else None,
        engine=engine,
    )


def _machine(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Return facts about the device, the number type and the library versions."""
    from gridsweep.train.device import described

    return {
        "device": described(device),
        "dtype": str(dtype).removeprefix("torch."),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers")},
    }


def _cut(train: Encoded, validation: Encoded, max_length: int) -> dict[str, str]:
    """Return facts about samples that lost something; empty if all samples are as the data has them."""
    truncated, dropped = train.truncated + validation.truncated, train.dropped + validation.dropped
    facts = {}
    if truncated:
        facts["truncated"] = f"{truncated} samples cut at {max_length} tokens"
    if dropped:
        facts["dropped"] = f"{dropped} samples whose prompt alone fills {max_length} tokens"
    return facts | changed(train, validation)


def changed(train: Encoded, validation: Encoded) -> dict[str, str]:
    """Return facts about samples that are not written as the data has them, each with its first row."""
    folded, altered = train.folded + validation.folded, train.altered + validation.altered
    marked, facts = train.marked + validation.marked, {}

    def first(what: str) -> str:
        row = train.first.get(what) or validation.first.get(what)
        return f" (first: {row})" if row else ""

    if folded:
        facts["folded"] = (
            f"{folded} system turns joined to the first question: the chat template takes none{first('folded')}"
        )
    if altered:
        facts["altered"] = f"{altered} answers that the chat template does not write word for word{first('altered')}"
    if marked:
        of = sum(len(side.samples) + side.dropped for side in (train, validation))
        facts["marked"] = f"special tokens or turn marks in the texts of {marked} of {of} samples{first('marked')}"
    return facts
