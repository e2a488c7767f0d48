"""Errors of data and model are placed at the key that they name, or in the chat template."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridsweep.errors import SpecError
from gridsweep.spec.places import placed

SPEC = """\
model: {id: org/base, chat_template: chat.jinja}
dataset:
  id: pairs.jsonl
  validation: test
recipe:
  max_length: 3
  target_modules: [q_projection]
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(SPEC)
    return file


@pytest.mark.parametrize(
    ("message", "line", "key"),
    [
        (
            "the model has no modules named q_projection; set recipe.target_modules to q_proj",
            7,
            "recipe.target_modules",
        ),
        ("no sample has room for a response in 3 tokens; raise recipe.max_length", 6, "recipe.max_length"),
        ("the dataset pairs.jsonl is empty: it holds no rows; name another file", 3, "dataset.id"),
        ("the dataset pairs.jsonl: 1 of 9 rows; allow them with dataset.skip_at_most: 0.2", 2, "dataset.skip_at_most"),
        ("the model ./m cannot be loaded: its weights (model.safetensors): too small; check its files", 1, "model.id"),
        ("the weights of ./m do not fit: model.layers.0 is missing; get them again", 1, "model.id"),
        ("dataset.validation: 'test' selects none of the 4 rows; name other rows", 4, "dataset.validation"),
    ],
)
def test_the_key_that_is_named_gives_the_line(spec: Path, message: str, line: int, key: str) -> None:
    error = placed(SpecError(message), spec)
    assert error.where == f"{spec}:{line}: {key}"
    assert str(error) == f"{spec}:{line}: {key}: {message.removeprefix(f'{key}: ')}"
    assert error.remedy == message.rpartition("; ")[2]
    assert [(fault.line, fault.key) for fault in error.faults] == [(line, key)]


def test_a_key_of_a_section_that_the_file_lacks_has_no_line(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("model: org/base\n")
    error = placed(SpecError("too short; raise recipe.max_length"), file)
    assert error.where == f"{file}: recipe.max_length"


@pytest.mark.parametrize(("told", "line"), [("no (line 12 of the template)", ":12"), ("no", "")])
def test_a_fault_of_the_template_is_placed_in_its_file(spec: Path, told: str, line: str) -> None:
    message = f"the chat template cannot write a question and its answer: {told}; correct it"
    assert placed(SpecError(message), spec).where == f"{spec.parent / 'chat.jinja'}{line}"


@pytest.mark.parametrize(
    "error",
    [
        SpecError("pairs.jsonl:7: the columns are a, b; name yours with dataset.columns"),
        SpecError("the tokenizer names no token that ends a text; set one"),
        SpecError("two lines;\nset recipe.max_length"),
    ],
)
def test_an_error_with_a_place_or_without_a_key_stays(spec: Path, error: SpecError) -> None:
    assert placed(error, spec) is error
    assert placed(error, spec.parent) is error


def test_without_a_file_to_read_an_error_stays(tmp_path: Path) -> None:
    error = SpecError("too short; raise recipe.max_length")
    assert placed(error, tmp_path) is error and placed(error, tmp_path / "none.yaml") is error
