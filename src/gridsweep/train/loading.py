"""From an assignment to a training that is ready for its first step."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.attempt import Assignment, Part, verify
from gridsweep.errors import SpecError
from gridsweep.train import data

if TYPE_CHECKING:  # importing these takes seconds, in which the worker could not be told to stop
    from gridsweep.train.samples import Encoded, Sample
    from gridsweep.train.training import Training


@dataclass(frozen=True, slots=True)
class Ready:
    """A training, the samples to validate on, and facts for the result."""

    training: Training
    validation: list[Sample]
    facts: dict[str, str]


def load(assignment: Assignment, part: Part, store: Path, breathe: Callable[[], None]) -> Ready:
    """Load data, model and checkpoint; call `breathe` in between. Raises `SpecError` if one is wrong."""
    checkpoint = whole_checkpoint(part, store)
    pairs = data.load(assignment.dataset, assignment.recipe)
    breathe()

    from gridsweep.train.device import described, device_and_dtype
    from gridsweep.train.model import add_lora, load_base
    from gridsweep.train.samples import encode
    from gridsweep.train.training import Training

    breathe()
    device, dtype = device_and_dtype()
    tokenizer, base = load_base(assignment.model, device, dtype)
    breathe()
    recipe = assignment.recipe
    train = encode(tokenizer, pairs.train, recipe.max_length)
    validation = encode(tokenizer, pairs.validation, recipe.max_length)
    if not train.samples or not validation.samples:
        raise SpecError(
            f"no sample of {assignment.dataset.id} has room for a response in {recipe.max_length} tokens; "
            "raise recipe.max_length"
        )
    lora = add_lora(base, assignment.model, part.params, recipe, part.seed)
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    training = Training(lora, part, recipe, assignment.total_steps, train.samples, pad)
    if checkpoint is not None:
        training.load(checkpoint)
    breathe()
    facts = {
        "device": described(device),
        "dtype": str(dtype).removeprefix("torch."),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft")},
        **pairs.facts,
        "train_samples": str(len(train.samples)),
        "validation_samples": str(len(validation.samples)),
        "prompt_template": "chat template" if tokenizer.chat_template else "### Instruction/Response",
        **_cut(train, validation, recipe.max_length),
    }
    return Ready(training, validation.samples, facts)


def whole_checkpoint(part: Part, store: Path) -> Path | None:
    """The folder to go on from, after a look at whether it is whole; None at step 0."""
    if part.checkpoint is None:
        if part.from_step:
            raise SpecError(f"{part.experiment} is to go on from step {part.from_step}, but no checkpoint is named")
        return None
    folder = store / part.checkpoint.path
    if not verify(folder, part.checkpoint.digest):
        raise SpecError(f"the checkpoint {folder} is missing or damaged: its digests differ; go on from an earlier one")
    if part.checkpoint.step != part.from_step:
        raise SpecError(f"the checkpoint {folder} is of step {part.checkpoint.step}, not of step {part.from_step}")
    return folder


def _cut(train: Encoded, validation: Encoded, max_length: int) -> dict[str, str]:
    """What did not fit, where something did not."""
    truncated, dropped = train.truncated + validation.truncated, train.dropped + validation.dropped
    facts = {}
    if truncated:
        facts["truncated"] = f"{truncated} samples cut at {max_length} tokens"
    if dropped:
        facts["dropped"] = f"{dropped} samples whose prompt alone fills {max_length} tokens"
    return facts
