"""Every documented key of `sweep.yaml` with every documented value, generated from the schema and from docs/spec.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from builders import PROJECT
from gridsweep.errors import SpecError
from gridsweep.grid.registry import names
from gridsweep.policy.registry import policy_for
from gridsweep.records import codec
from gridsweep.spec import json_schema, loads
from gridsweep.spec.axes import KINDS
from gridsweep.spec.space import NAMES
from gridsweep.spec.values import Number
from gridsweep.spec.yaml_lines import Document
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import Sweep

SCHEMA = json_schema()
LEAST: dict[str, Any] = {
    "model": "org/model",
    "dataset": {"id": "org/data", "train_samples": 1000},
    "estimates": {"duration": "90m", "power_w": 425},
}
SPACE = {"r": [16, 1], "alpha": [32, 0.5], "lr": [1e-4, 0.5], "dropout": [0.05, 0.5]}
WORDS = (
    "tier1", "a", "org/name", "env:NAME", "file:/a", "90m", "2024-06-10T16:00:00Z", "p40", "1/8", ">= 0.15",
    "http://127.0.0.1:8265", "24Gi", "US-CAL-CISO", "./pairs.jsonl", "1e-4", "solar-valley",
    "2*r", "alpha/2", "points.csv", "99 %",
)  # fmt: skip
"""Text for keys that take text: of every pattern in the schema at least one of these is a match."""

IMMEDIATE = {"policy": "immediate"}


def read_by(provider: str) -> dict[str, Any]:
    zone = {"uk": "GB-13", "eia": "CISO"}.get(provider, "US-CAL-CISO")
    told = {"base_url": "http://127.0.0.1:8265"} if provider == "carbon_aware_sdk" else {}
    return {"carbon": {"provider": provider, "zone": zone, **told}}


def with_columns(*names: str) -> dict[str, Any]:
    return {"dataset": {"columns": {name: f"the {name}" for name in names}}}


COMPANIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("dataset",): {"recipe": {"steps": 8}},
    ("dataset", "columns", "{}"): with_columns("messages"),
    ("dataset", "columns", "prompt"): with_columns("response"),
    ("dataset", "columns", "response"): with_columns("prompt"),
    **{("dataset", "columns", key): with_columns("prompt", "response") for key in ("context", "system", "history")},
    ("executor", "kubernetes", "gate", "compute-gardener"): IMMEDIATE,
    ("executor", "kubernetes", "gate", "kueue"): {**IMMEDIATE, "executor": {"kubernetes": {"queue": "a"}}},
    ("rungs", "at"): {"rungs": {"keep": [4]}},
    ("rungs", "keep"): {"rungs": {"at": [0.5]}},
    ("carbon", "basis"): read_by("electricity_maps"),
    ("carbon", "token"): read_by("electricity_maps"),
    ("carbon", "username"): read_by("watttime"),
    ("carbon", "password"): read_by("watttime"),
    ("carbon", "base_url"): read_by("carbon_aware_sdk"),
    ("carbon", "value"): read_by("static"),
    **{("carbon", "provider", name): read_by(name) for name in names() if name != "trace"},
}
"""What else a spec must say for the value at a place to be allowed, by place, or by place and value."""

LARGE = ("epochs", "lora_plus")
USUAL: dict[str, Any] = {
    **{key: [1, 2] for key, kind in KINDS.items() if isinstance(kind, Number) and (kind.whole or key in LARGE)},
    "layers": "all",
    "learning_rate_schedule": ["cosine", "linear"],
    "rslora": [True, False],
    "target_modules": ["q_proj"],
}
"""Values of axes, where numbers between 0 and 1 are none."""

Path_ = tuple[str | int, ...]


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        part = SCHEMA["$defs"][part["$ref"].removeprefix("#/$defs/")]
    return part


def samples(part: dict[str, Any]) -> list[Any]:
    """Values that a part of the schema documents: all words, both truth values, numbers in and at its bounds."""
    found = options(part)
    if len(found) > 1:
        return [value for option in found for value in samples(option)]
    part = found[0]
    if "enum" in part or "const" in part:
        return list(part.get("enum", ())) or [part["const"]]
    match part["type"]:
        case "boolean":
            return [True, False]
        case "null":
            return [None]
        case "object":
            return [least(part)]
        case "array" if part.get("minItems") == 2:
            return [[0.25, 0.5], [1, 2]]  # the bounds of a range
        case "array":
            return [[value] for value in samples(part["items"])]
        case "string" if "examples" in part:
            return list(part["examples"])
        case "string":
            found = [word for word in WORDS if re.search(part.get("pattern", ""), word, re.ASCII)]
            assert found, f"add a word that matches {part['pattern']} to WORDS"
            return found
        case [("integer" | "number") as kind, "string"] | ("integer" | "number" as kind):
            return list(numbers(part, whole=kind == "integer", text=part["type"] != kind))
    raise AssertionError(f"a kind of value that this test does not know: {part}")


def numbers(part: dict[str, Any], *, whole: bool, text: bool) -> Iterator[Any]:
    low, high = part.get("minimum"), part.get("maximum")
    middle = 1 if whole else 0.5
    allowed = (low is None or low <= middle) and ("exclusiveMinimum" not in part or part["exclusiveMinimum"] < middle)
    usual = middle if allowed else low
    yield usual
    if text:
        yield number(usual)
    yield from (int(bound) if whole else bound for bound in (low, high) if bound is not None)


def least(part: dict[str, Any]) -> dict[str, Any]:
    """The smallest mapping that a section allows: its required keys, or one key of a choice."""
    if "properties" not in part:
        return {"a": "b"}  # names and values of the user's own
    wanted = part.get("required") or list(part["properties"])[: part.get("minProperties", 0)]
    found = {key: [v for v in samples(part["properties"][key]) if v is not None] for key in wanted}
    return {key: next((v for v in values if isinstance(v, list)), values[0]) for key, values in found.items()}


def places(part: dict[str, Any], at: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Every key below a part of the schema, with its own part; an element of a list is at 0."""
    for option in options(part):
        for key, inner in option.get("properties", {}).items():
            yield (*at, key), inner
            yield from places(inner, (*at, key))
        if "items" in option:
            yield from places(option["items"], (*at, 0))


def spec_with(at: Path_, value: Any) -> dict[str, Any]:
    """The least spec with a value at a place, and with what the value needs beside it."""
    tree = merged(LEAST, {})
    if at[0] == "design" and not re.search("published|points", f"{value} {at}"):
        tree["space"] = SPACE
    if at[0] == "space" and "exclude" not in at:  # of which a range needs a sample
        tree["design"] = {"sample": {"n": 1}}
    if "exclude" in at:
        tree["space"] = SPACE
    if at[-1] in NAMES and at[0] in ("rules", "design", "space") and ("exclude" in at or at[0] != "space"):
        given = value if "baseline" in at else USUAL.get(str(at[-1]), [0.25, 0.5])
        axis = {at[-1]: [given] if at[-1] == "target_modules" or not isinstance(given, list) else given}
        tree["space"] = {**SPACE, **axis} if "points" not in at else None
    if at[0] == "rules" and len(at) > 1:
        return {
            **tree,
            "rules": [nested({"properties": SCHEMA["properties"]}, at, value)["rules"][0], {"tier": "tier1"}],
        }
    words = tuple(str(step) for step in (*at, value))
    for length in range(1, len(words) + 1):
        tree = merged(tree, COMPANIONS.get(words[:length], {}))
    return merged(tree, nested({"properties": SCHEMA["properties"]}, at, value))


def nested(part: dict[str, Any], at: Path_, value: Any) -> Any:
    """A value at a place below a part of the schema, in the least sections that may hold it."""
    if not at:
        return value
    part = next(option for option in options(part) if ("items" if at[0] == 0 else "properties") in option)
    if at[0] == 0:
        return [nested(part["items"], at[1:], value)]
    beside = {} if part.get("maxProperties") == 1 else least(part)
    return {**beside, at[0]: nested(part["properties"][at[0]], at[1:], value)}


def options(part: dict[str, Any]) -> list[dict[str, Any]]:
    """The forms a key may have: one, or those of an `anyOf`, also of one within another."""
    part = resolved(part)
    return [found for option in part["anyOf"] for found in options(option)] if "anyOf" in part else [part]


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def settled(part: dict[str, Any]) -> bool:
    """Whether every value a key may have is written in the schema: words and truth values."""
    return "enum" in part or "const" in part or part.get("type") == "boolean"


CASES = [(at, value) for at, part in places(SCHEMA) for value in samples(part)]
MUST = [
    (at, value)
    for at, part in places(SCHEMA)
    for option in options(part)
    if settled(option)
    for value in samples(option)
]


KEYS = sorted({at for at, _ in CASES}, key=str)


@pytest.fixture(autouse=True)
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that values of WORDS name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").touch()
    (tmp_path / "points.csv").write_text("r,lr,weight_decay\n8,1e-4,0.1\n16,1e-4,0.1\n")
    (tmp_path / "a").write_text('{"packed": [[2, 0.8]], "evaluation": 0.01, "measured_on": "a laptop"}')


def loaded(tree: dict[str, Any]) -> Sweep:
    """The sweep, after what every verb does with it: through the journal's text, and to its policy."""
    sweep = loads(json.dumps(tree))
    assert codec.loads(Sweep, codec.dumps(sweep)) == sweep
    policy_for(sweep.policy)
    return sweep


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def named(case: tuple[Path_, Any]) -> str:
    return f"{place(case[0])}={str(case[1])[:30]}"


def place(at: Path_) -> str:
    return ".".join(map(str, at))


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_documented_key_with_a_documented_value_loads_or_is_a_spec_error(case: tuple[Path_, Any]) -> None:
    try:
        loaded(spec_with(*case))
    except SpecError as error:
        assert str(error)


@pytest.mark.parametrize("case", MUST, ids=named)
def test_a_word_or_truth_value_of_the_schema_loads(case: tuple[Path_, Any]) -> None:
    loaded(spec_with(*case))


@pytest.mark.parametrize("at", KEYS, ids=place)
def test_a_key_loads_with_one_of_its_values_at_least(at: Path_) -> None:
    said = []
    for _, value in (case for case in CASES if case[0] == at):
        try:
            loaded(spec_with(at, value))
            return
        except SpecError as error:
            said.append(str(error))
    pytest.fail("\n".join(said))


# The reference: docs/spec.md


def documented() -> Iterator[tuple[Path_, str]]:
    """The values that tables of the reference give: last columns, and options as "`seed`: which (`42`)"."""
    text = (PROJECT / "docs" / "spec.md").read_text()
    known = {place(tuple(step for step in at if step != 0)): at for at in KEYS}
    sections, options_last = [""], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if line.startswith("## "):
            sections = re.findall(r"`(\w+)`", line)
        if len(cells) != 3:
            continue
        keys = re.findall(r"`(\w+)`", cells[0])
        if cells[1] in ("what", "trains", "starts an experiment"):
            options_last = cells[2] == "options"
            above = sections[0] if cells[0].startswith("option of") else "executor"
            sections = [f"{above}.{keys[0]}"] if keys else sections
        elif options_last:
            for option, value in re.findall(r"`(\w+)`[^`(]*\(`([^`]+)`[:)]", cells[2]):
                yield known[f"{sections[0]}.{keys[0]}.{option}"], value
        else:
            values = [re.findall(r"`([^`]+)`", part) for part in cells[2].split(", ")]
            of_each = values if len(keys) == len(values) > 1 else [[v for part in values for v in part]] * len(keys)
            for (key, written), section in product(zip(keys, of_each, strict=True), sections):
                if at := known.get(f"{section}.{key}".strip(".")) or known.get(f"{section}.replay.{key}"):
                    beside = {v for v in written if f"{section}.{v}" in known or v.endswith(":")}
                    yield from ((at, value) for value in written if value not in beside | known.keys())


DOCUMENTED = list(documented())


@pytest.mark.parametrize("case", DOCUMENTED, ids=named)
def test_a_value_in_the_reference_loads(case: tuple[Path_, str]) -> None:
    at, text = case
    loaded(spec_with(at, Document(f"key:\n  {text}", "a").plain["key"]))


def test_the_reference_gives_values_of_every_section() -> None:
    assert len(DOCUMENTED) >= 60
    assert {at[0] for at, _ in DOCUMENTED} >= {"recipe", "tiers", "carbon", "policy", "rungs", "executor", "devices"}


def test_the_reference_names_every_word_a_key_takes() -> None:
    reference = (PROJECT / "docs" / "spec.md").read_text()
    assert [(place(at), value) for at, value in MUST if f"`{written(value)}`" not in reference] == []


def test_a_block_of_the_reference_loads() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs" / "spec.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        loaded(merged(LEAST, Document(block, "a").plain))
