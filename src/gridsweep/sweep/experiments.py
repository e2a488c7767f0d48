"""Experiments: a point of the sweep with its model, data, recipe and seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, TypeAlias  # values of any field

PARAMS = ("r", "alpha", "lr", "dropout")
"""The axes that every point has; further ones are keys of the recipe (`gridsweep.sweep.axes`)."""
ALL_LINEAR = "all-linear"
"""The target module that stands for every linear layer of the decoder."""

DATA_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet", ".pq")
"""The suffixes of data files, in lower case; each may be followed by `.gz`."""


Setting: TypeAlias = bool | int | float | str | tuple[str, ...]
"""A value of an axis."""


@dataclass(frozen=True, slots=True, order=True)
class LoraParams:
    """One point of the space: rank, alpha, peak learning rate, dropout of the LoRA layers, and what else is varied.

    `more` holds the values of further axes, keys of the recipe, sorted by key. Raise `ValueError` if it is not sorted.
    """

    r: int
    alpha: float
    lr: float
    dropout: float
    more: tuple[tuple[str, Setting], ...] = ()

    def __post_init__(self) -> None:
        keys = [key for key, _ in self.more]
        if keys != sorted(set(keys)) or not set(keys).isdisjoint(PARAMS):
            raise ValueError(f"further axes must be sorted by key, each given once, not {', '.join(keys)}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The axes of this point, the four of LoRA first."""
        return (*PARAMS, *(key for key, _ in self.more))

    @property
    def values(self) -> dict[str, Setting]:
        """The value on each axis."""
        return {key: self.value(key) for key in self.keys}

    def value(self, key: str) -> Setting:
        """Return the value on an axis. Raise `KeyError` for one that this point does not have."""
        value: Setting = getattr(self, key) if key in PARAMS else dict(self.more)[key]
        return value

    def having(self, **values: Setting) -> LoraParams:
        """Return the point with other values, on axes that it has or has not yet."""
        own: dict[str, Any] = {key: values[key] for key in values if key in PARAMS}
        more = {**dict(self.more), **{key: value for key, value in values.items() if key not in PARAMS}}
        return replace(self, **own, more=tuple(sorted(more.items())))


@dataclass(frozen=True, slots=True)
class Model:
    """The base model: a Hugging Face id, a local folder, or the name of a bundled model.

    `chat_template` is the text of a template that takes the place of the tokenizer's.
    """

    id: str
    revision: str | None = None
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a dataset hold what, where their names are not understood by themselves.

    Either `messages`, or `text`, or `prompt` and `response` with what belongs to them.
    """

    prompt: str | None = None
    response: str | None = None
    context: str | None = None
    system: str | None = None
    history: str | None = None
    messages: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The source of conversations, and how many are used for training and validation.

    `validation` is a split or a path with samples of its own; None splits those for training. At most the share
    `skip_at_most` of the rows may be unusable. `config` is one of the configurations that a dataset's card names.
    """

    id: str
    revision: str | None = None
    split: str = "train"
    train_samples: int | None = None
    validation_samples: int | None = None
    columns: Columns | None = None
    validation: str | None = None
    train_on: Literal["all_answers", "last_answer"] = "all_answers"
    skip_at_most: float = 0.01
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How every experiment is trained; `steps`, if given, overrides `epochs`.

    `target_modules` are names of modules, or `all-linear` alone.

    `layers` selects the decoder layers with adapters; `rslora` scales adapters by alpha / sqrt(r); `lora_plus` is the
    factor on the learning rate of B.
    """

    epochs: float = 3.0
    steps: int | None = None
    batch_size: int = 2
    accumulation: int = 4
    max_length: int = 384
    learning_rate_schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    seed: int = 42
    validation_share: float = 0.2
    checkpoint_every: int = 50
    layers: Literal["all", "upper-half"] = "all"
    rslora: bool = False
    lora_plus: float = 1.0


Base = Literal["full", "4-bit"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One point of the sweep with its seed, its tier and the reason for that tier.

    `device` names the only device it may run on; None lets the policy choose. `repeats` names the experiment that this
    one trains again, with another seed or on the full base. `base` is the precision of the frozen base: in 4 bits it is
    a proxy, and its losses are not comparable with those of the full base.
    """

    id: str
    params: LoraParams
    seed: int
    tier: str
    reason: str
    device: str | None = None
    repeats: str | None = None
    base: Base = "full"


def text(value: Setting) -> str:
    """Return the value of an axis as a user writes it, a list with `+` between its words."""
    if isinstance(value, str):
        return value
    return "+".join(value) if isinstance(value, tuple) else number(value)


def number(value: float) -> str:
    """Return the shortest text that parses back to the number: `32`, `1e-4`, `0.05`; for a bool `true` or `false`."""
    if isinstance(value, bool):
        return str(value).lower()
    exact = Decimal(repr(value)).normalize()
    if -3 <= exact.adjusted() < 6:
        return f"{exact:f}"
    _, digits, _ = exact.as_tuple()
    first, rest = str(digits[0]), "".join(map(str, digits[1:]))
    sign = "-" if exact < 0 else ""
    return f"{sign}{first}{'.' + rest if rest else ''}e{exact.adjusted()}"


def data_suffix(name: str) -> str | None:
    """Return the suffix of a data file's name in lower case, without `.gz`; None if it is not one of a data file."""
    plain = name.lower().removesuffix(".gz")
    return next((suffix for suffix in DATA_SUFFIXES if plain.endswith(suffix)), None)


BUNDLED_MODELS = ("tiny-qwen2", "smollm2-135m-instruct")
BUNDLED_DATA = ("stdlib",)


def is_local(id: str) -> bool:
    """Whether a model or dataset id is written as a path: `./x`, `../x`, `/x`, `~/x`, or a data file name."""
    return id.startswith(("./", "../", "/", "~")) or data_suffix(id) is not None
