"""The types of single values in a spec: numbers, spans, moments, words, comparisons.

Each class annotates a field: it converts the YAML value, raises `ValueError` that says what the value must be, and
returns its JSON schema.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Literal, NamedTuple  # Any: a JSON schema, an annotation, or a YAML value

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from gridsweep.spec.yaml_lines import NUMBER
from gridsweep.sweep.experiments import number
from gridsweep.sweep.tiers import Percentile

LONGEST = timedelta(days=3650)

NUMBER_PATTERN = f"^{NUMBER.pattern}$".replace("(", "(?:")
SPAN_PATTERN = "^(?=.)" + "".join(rf"(?:(\d{{1,9}}(?:\.\d{{1,9}})?){unit})?" for unit in "dhms") + "$"
COMPARISON_PATTERN = rf"^\s*(==|!=|>=|<=|>|<)\s*({NUMBER_PATTERN[1:-1]})\s*$"

# Names of the same keys in other programs.
_ELSEWHERE = {
    "rank": "r",
    "lora_r": "r",
    "lora_alpha": "alpha",
    "learning_rate": "lr",
    "lora_dropout": "dropout",
}


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return a hint for an unknown word: the nearest allowed word, else all of them."""
    words = list(allowed)
    if _ELSEWHERE.get(word.lower()) in words:
        return f"did you mean {_ELSEWHERE[word.lower()]}?"
    near = difflib.get_close_matches(word[:60].lower(), words, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of: {', '.join(words)}"


def shown(value: object) -> str:
    """Return a value of the file as shown in a message: short, on one line, without control characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        text = number(value) if isfinite(value) else str(value)
        return text if len(text) <= 40 else f"a number of {len(text)} digits"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return "a list" if isinstance(value, list | tuple) else "a mapping"


class Value:
    """A field's annotation: `read` converts the value, `schema` describes its allowed forms."""

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self.schema()


@dataclass(frozen=True)
class Number(Value):
    """A finite number within bounds, quoted or not; `above` and `below` are exclusive."""

    above: float | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None
    whole: bool = False

    def read(self, value: object) -> int | float:
        read: object = float(value) if isinstance(value, str) and NUMBER.fullmatch(value.strip()) else value
        if isinstance(read, bool) or not isinstance(read, int | float) or not self._allows(read):
            raise ValueError(f"must be {self.allowed}, not {shown(value)}")
        return int(read) if self.whole else float(read) + 0.0  # turns -0.0 into 0.0

    def _allows(self, value: float) -> bool:
        return (
            isfinite(value)
            and (not self.whole or value == int(value))
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def allowed(self) -> str:
        bounds = {"above": self.above, "at least": self.least, "at most": self.most, "below": self.below}
        parts = [f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None]
        return f"a {'whole ' if self.whole else ''}number {' and '.join(parts)}".rstrip()

    def schema(self) -> dict[str, Any]:
        keys = {
            "exclusiveMinimum": self.above,
            "minimum": self.least,
            "maximum": self.most,
            "exclusiveMaximum": self.below,
        }
        kind = "integer" if self.whole else "number"
        # strings are allowed because YAML 1.1 reads 1e-4 as a string; the bounds apply to numbers only
        bounds = {key: bound for key, bound in keys.items() if bound is not None}
        return {"type": [kind, "string"], "pattern": NUMBER_PATTERN, **bounds}


@dataclass(frozen=True)
class Span(Value):
    """A length of time: `24h`, `90m`, `1h30m`, `45s`, `2d`, `51.5h`; at least `least`."""

    least: timedelta = timedelta(seconds=1)

    def read(self, value: object) -> timedelta:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"{shown(value)} has no unit; write {shown(value)}m for minutes, or h, d, s")
        match = re.fullmatch(SPAN_PATTERN, value.strip(), re.ASCII) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"must be a length of time such as 24h, 1h30m, 45s or 2d, not {shown(value)}")
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        try:
            span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            span = timedelta.max
        if not self.least <= span <= LONGEST:
            least = f"{self.least.total_seconds():.0f}s"
            raise ValueError(f"must be a length of time from {least} to {LONGEST.days}d, not {shown(value)}")
        return span

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": SPAN_PATTERN, "examples": ["90m", "24h", "1h30m"]}


class Moment(Value):
    """An instant in ISO 8601 with its time zone: `2026-12-01T08:00:00Z`; read as UTC."""

    def read(self, value: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value.strip())
        except (ValueError, AttributeError):
            raise ValueError(f"must be a time such as 2026-12-01T08:00:00Z, not {shown(value)}") from None
        if moment.tzinfo is None:
            raise ValueError(f"{value} has no time zone; write {moment.isoformat()}Z if it is UTC")
        if not 1970 < moment.year < 2200:
            raise ValueError(f"must be a time between 1971 and 2199, not {shown(value)}")
        return moment.astimezone(UTC)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time", "examples": ["2026-12-01T08:00:00Z"]}


class SpanOrMoment(Value):
    """A deadline: a span after the first submission, an instant, or `auto` for the tiers' delays alone."""

    def read(self, value: object) -> timedelta | datetime | None:
        if value == "auto":
            return None
        if isinstance(value, str) and re.match(r"\s*\d{4}-", value):
            return Moment().read(value)
        try:
            return Span().read(value)
        except ValueError as error:
            raise ValueError(f"{error}; an instant such as 2026-12-01T08:00:00Z or auto is allowed too") from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [Span().schema(), Moment().schema(), {"const": "auto"}]}


@dataclass(frozen=True)
class Word(Value):
    """Text that matches a pattern, described by `allowed`; with `numbers` a number is read as its text."""

    pattern: str
    allowed: str
    numbers: bool = False

    def read(self, value: object) -> str:
        if self.numbers and isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            value = number(value)
        if isinstance(value, int | float):
            raise ValueError(f"must be text, not {shown(value)}; quote the value if it is intended")
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValueError(f"must be {self.allowed}, not {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        kind = ["number", "string"] if self.numbers else "string"
        return {"type": kind, "pattern": f"^(?:{self.pattern})$"}


class Flag(Value):
    """True or false, and no word or number that stands for one of them."""

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class OneOf(Value):
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be one of {', '.join(self.words)}, not {shown(value)}")
        if value not in self.words:
            raise ValueError(f"{shown(value)} is unknown; {nearest(value, self.words)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


class Limit(Value):
    """A limit on the carbon intensity: `225` in gCO2eq/kWh, or `p40`, the limit that 40 % of the hours meet."""

    _absolute = Number(least=0, most=5000)
    _pattern = r"^p(100|\d{1,2}(?:\.\d{1,3})?)$"

    def read(self, value: object) -> float | Percentile:
        if isinstance(value, str) and (match := re.fullmatch(self._pattern, value.strip(), re.ASCII)):
            return Percentile(float(match[1]))
        try:
            return self._absolute.read(value)
        except ValueError:
            what = f"must be {self._absolute.allowed}, or a percentile such as p40, not {shown(value)}"
            raise ValueError(what) from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._absolute.schema(), {"type": "string", "pattern": self._pattern}]}


class Speed(Value):
    """The speed of a replayed clock: grid seconds per second of training, or `auto` to follow the work done."""

    _number = Number(above=0, most=1_000_000)

    def read(self, value: Any) -> float | Literal["auto"]:
        if value == "auto":
            return "auto"
        try:
            return self._number.read(value)
        except ValueError:
            raise ValueError(f"must be {self._number.allowed}, or auto, not {shown(value)}") from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._number.schema(), {"const": "auto"}]}


class SecretReference(Value):
    """A reference to a secret, never the secret itself: `env:NAME` or `file:PATH`."""

    _pattern = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]{1,1000})$"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(self._pattern, value, re.ASCII):
            # the value may be the secret itself, so the message does not repeat it
            raise ValueError("must be env:NAME or file:PATH, never the secret itself; remove it from the file")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": self._pattern}


class Comparison(NamedTuple):
    op: str
    value: float | str


class Compared(Value):
    """A condition on a number: `16` for equal, or `">= 0.15"`."""

    def read(self, value: object) -> Comparison:
        if isinstance(value, str) and (match := re.fullmatch(COMPARISON_PATTERN, value, re.ASCII)):
            return Comparison(match[1], Number().read(match[2]))
        try:
            return Comparison("==", Number().read(value))
        except ValueError:
            what = f'must be a number or a comparison such as ">= 0.15", not {shown(value)}'
            raise ValueError(what) from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [Number().schema(), {"type": "string", "pattern": COMPARISON_PATTERN}]}


@dataclass(frozen=True, eq=False)
class Shorthand:
    """A short form of a field: `lengthen` returns the long form, `schema` describes the short one."""

    lengthen: Callable[[object], object]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.lengthen, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self.schema, handler(schema["schema"])]}


def choice_of(words: tuple[str, ...], *, never_alone: tuple[str, ...] = ()) -> Shorthand:
    """Return a short form: a word, or a mapping of one word to its options; words `never_alone` require options."""

    def lengthen(value: object) -> object:
        if isinstance(value, str):
            return {OneOf(words).read(value): {}}
        if not isinstance(value, dict):
            raise ValueError(f"must be one of {', '.join(words)}, not {shown(value)}")
        if len(value) != 1:
            given = ", ".join(map(str, value)) or "none"
            raise ValueError(
                f"must have exactly one key, not {len(value)} ({given}); choose one of: {', '.join(words)}"
            )
        return {word: {} if options is None else options for word, options in value.items()}

    return Shorthand(lengthen, {"enum": [word for word in words if word not in never_alone]})
