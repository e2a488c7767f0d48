"""`python -m gridsweep.train.look < assignment.json`: what a worker would load, looked at without training.

Data on this machine are read and encoded as a whole, the model's shape is built without weights. What an attempt would
refuse is refused here, before anything waits. Prints a `Look` as JSON; a look without an error is kept in the cache
until a file changes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from gridsweep import __version__
from gridsweep.errors import GridsweepError, HubError
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.records.files import replace_file
from gridsweep.records.looks import HERE, TOLD_BY_THE_FIRST, Look, Piece
from gridsweep.sweep.experiments import Recipe, is_local
from gridsweep.train.cache import cache_folder
from gridsweep.train.hub import commit_of_data, data_on_hub, model_on_hub, pinned_data
from gridsweep.train.model import offline_if_local, resolve

if TYPE_CHECKING:
    from gridsweep.train.data import Data
    from gridsweep.train.pretrained import CausalLM, Tokenizer
    from gridsweep.train.samples import Encoded, Sample

WARNED = {
    "validation seen": "the validation loss says less than it seems to; remove them on one side",
    "unasked answers": "check that no question is missing",
    "altered": "what it leaves out is not learned; correct the data, or name another template as model.chat_template",
    "unended": "mend the generation marks of the chat template, or remove them",
    "marked": "the model reads them as the turns of a conversation; remove them from the data",
}
"""Facts of which a user is warned, and why."""

SHOWN_TOKENS = 400
"""At most this many tokens of the first sample are shown."""


def main(text: str) -> Look:
    """Return the look at an assignment, from the cache if nothing has changed."""
    assignment = codec.loads(Assignment, text)
    offline_if_local(assignment.model, assignment.dataset)
    try:
        key = _key(assignment, text)
    except GridsweepError:
        key = ""  # the look itself says what is missing
    kept = cache_folder() / "looks" / key if key else None
    if kept is not None and kept.is_file():
        try:
            return codec.loads(Look, kept.read_text())
        except ValueError:
            pass  # written by another version
    found = look(assignment)
    if kept is not None and not found.error and not found.unreachable:
        kept.parent.mkdir(exist_ok=True)
        replace_file(kept, codec.dumps(found))
    return found


def look(assignment: Assignment) -> Look:
    """Look at data, tokenizer and model of an assignment; an error is returned, not raised."""
    seen = _Seen(assignment)
    try:
        seen.model(seen.data())
    except HubError as error:
        seen.unseen |= {name: str(error) for name in TOLD_BY_THE_FIRST if name not in seen.constants}
        return Look(seen.constants, seen.unseen, seen.facts, (), unreachable=str(error))
    except GridsweepError as error:
        return Look(seen.constants, seen.unseen, seen.facts, seen.first, str(error))
    warnings = tuple(f"{seen.facts[name]}; {remedy}" for name, remedy in WARNED.items() if name in seen.facts)
    return Look(seen.constants, seen.unseen, seen.facts, seen.first, warnings=warnings)


class _Seen:
    """What has been seen so far; each step raises what a worker would."""

    def __init__(self, assignment: Assignment):
        self.assignment = assignment
        self.constants: dict[str, str] = {}
        self.unseen: dict[str, str] = {}
        self.facts: dict[str, str] = {}
        self.first: tuple[Piece, ...] = ()

    def data(self) -> Data:
        """Read the data as a whole; of data on the hub the first rows."""
        from gridsweep.train import data

        if data_on_hub(self.assignment.dataset):
            dataset = pinned_data(self.assignment.dataset)
            self.constants |= commit_of_data(dataset)
            why = f"on the hub; of its rows the first {data.FIRST_ROWS} were read, the first attempt reads all"
            self.unseen |= dict.fromkeys(("training data", "encoded samples"), why)
            pairs = data.first_of(dataset, self.assignment.recipe)
            self.facts["data"] = (
                f"{pairs.rows - sum(pairs.skipped.values())} of the first {pairs.rows} rows are samples"
            )
            self.facts |= _named(pairs.facts)
            return pairs
        pairs = data.load(self.assignment.dataset, self.assignment.recipe, self.assignment.encoding)
        self.constants["training data"] = pairs.facts["dataset_digest"]
        self.facts["data"] = f"{len(pairs.train)} to train, {len(pairs.validation)} to validate"
        self.facts |= _named({name: fact for name, fact in pairs.facts.items() if name != "dataset_digest"})
        return pairs

    def model(self, pairs: Data) -> None:
        """Load the tokenizer, encode the data, build the model's shape and look for its target modules."""
        from gridsweep.train.architecture import peculiarities
        from gridsweep.train.checkpoint import config_of, pinned_model, shape_of
        from gridsweep.train.constants import of_model, of_samples, of_tokenizer
        from gridsweep.train.kinds import kind_of
        from gridsweep.train.lean.targets import targeted
        from gridsweep.train.loading import changed, encoded
        from gridsweep.train.tokenizer_files import tokenizer_of

        model, recipe = pinned_model(self.assignment.model), self.assignment.recipe
        where = resolve(model)
        config = config_of(model, where)
        tokenizer = tokenizer_of(model, where, config)
        self.constants |= of_tokenizer(tokenizer)
        train, validation = encoded(tokenizer, pairs, self.assignment)
        whole = "training data" in self.constants
        if whole:
            self.constants |= of_samples(train.samples, validation.samples, self.assignment)
        self.facts |= told(train, validation, recipe.max_length) | changed(train, validation) | _named(train.facts)
        self.first = tuple(pieces(tokenizer, train.samples[0]))
        kinds = [kind_of(config, own.target_modules, own.layers) for own in self._recipes()]
        shape = shape_of(model, where, config)  # after the kinds: an encoder is no fault of the weights
        self.facts["model"] = f"{type(shape).__name__}, {sum(p.numel() for p in shape.parameters()):,} parameters"
        adapted = [targeted(shape, own.target_modules, own.layers)[0] for own in self._recipes()]
        self.facts["adapters on"] = "; or ".join(dict.fromkeys(map(_counted, adapted)))
        self.facts["trainer"] = "; or ".join(dict.fromkeys(kind.told for kind in kinds))
        self.facts |= _named(peculiarities(config, max(own.max_length for own in self._recipes())))
        if whole and all(kind.trainer == "lean" for kind in kinds):
            lengths = {recipe.max_length: train.samples}
            for length in {own.max_length for own in self._recipes()} - {recipe.max_length}:
                cut = replace(self.assignment, recipe=replace(recipe, max_length=length))
                lengths[length] = encoded(tokenizer, pairs, cut)[0].samples
            self._room(shape, lengths)
        self.constants |= of_model(model)

    def _recipes(self) -> list[Recipe]:
        """Return the recipes of the members; where no experiment is named, the sweep's."""
        return [self.assignment.recipe_of(part) for part in self.assignment.members] or [self.assignment.recipe]

    def _room(self, shape: CausalLM, samples: Mapping[int, list[Sample]]) -> None:
        """Check that each member would fit the device alone, if that is of this machine; samples by where they end."""
        from gridsweep.train.device import device_and_dtype, memory_at_hand, taken_beside
        from gridsweep.train.machine_memory import resident
        from gridsweep.train.room import room_for

        if self.assignment.attempt == HERE and self.assignment.base == "full":
            device, dtype = device_and_dtype()
            memory = memory_at_hand(device, self.assignment.device.memory_gb, self.assignment.beside)
            beside = taken_beside(device, 0, resident())  # this process has all but the weights
            for part in self.assignment.members:
                own = self.assignment.recipe_of(part)
                room_for(shape.to(dtype), (part,), own, samples[own.max_length], memory, beside=beside)
            self.facts["memory"] = f"the largest experiment fits {memory / 1e9:.1f} GB"


def _counted(adapted: Iterable[str]) -> str:
    """Return how many modules of each name have adapters."""
    kinds = Counter(name.rpartition(".")[2] for name in adapted)
    return ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))


def _named(facts: Mapping[str, str]) -> dict[str, str]:
    """Return facts of a result under names to print."""
    return {name.replace("_", " "): fact for name, fact in facts.items()}


def told(train: Encoded, validation: Encoded, max_length: int) -> dict[str, str]:
    """Return how long the samples are, and how many are cut or dropped."""
    samples = [*train.samples, *validation.samples]
    lengths = [len(sample.ids) for sample in samples]
    learned = sum(sample.counted for sample in samples)
    truncated, dropped = train.truncated + validation.truncated, train.dropped + validation.dropped
    return {
        "tokens": f"{sum(lengths):,} ({learned:,} learned), {median(lengths):.0f} in the middle sample, "
        f"{max(lengths)} in the longest",
        "cut": f"{truncated} of {len(samples) + dropped} samples cut at {max_length} tokens, {dropped} dropped because "
        "nothing to learn is left",
    }


def pieces(tokenizer: Tokenizer, sample: Sample) -> Iterator[Piece]:
    """Yield a sample's text in parts: learned, or not."""
    learned = {at for part in sample.learned for at in part}
    begin, shown = 0, min(len(sample.ids), SHOWN_TOKENS)
    for at in range(1, shown + 1):
        if at == shown or (at in learned) != (begin in learned):
            yield Piece(tokenizer.decode(sample.ids[begin:at]), begin in learned)
            begin = at


def _key(assignment: Assignment, text: str) -> str:
    """Return the name of the kept look; '' if it depends on the hub."""
    places = []
    if data_on_hub(assignment.dataset) or model_on_hub(assignment.model):
        return ""
    if assignment.dataset.id != "stdlib":
        places.append(Path(assignment.dataset.id).expanduser())
    if assignment.dataset.validation is not None and is_local(assignment.dataset.validation):
        places.append(Path(assignment.dataset.validation).expanduser())
    if assignment.model.id != "smollm2-135m-instruct":
        places.append(Path(resolve(assignment.model)))
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    stats = ((file, file.stat()) for file in files if file.is_file())
    seen = [f"{file} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for file, s in stats]
    parts = [__version__, sys.version, str(Path.cwd()), text, *seen]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    print(codec.dumps(main(sys.stdin.read())))
