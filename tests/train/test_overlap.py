"""Validation samples that are trained on too are counted, and refused if they are all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_files import PLAIN, Row, Writer, each, folder, jsonl, saved, table, turn

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Dataset, Recipe
from gridsweep.train import data

pytestmark = pytest.mark.train

RECIPE = Recipe()


def messages(rows: list[Row]) -> list[Row]:
    return [
        {"messages": [turn("user", row["prompt"]), turn("assistant", row["response"])], "id": n}
        for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    "other",
    [
        jsonl(PLAIN, "v.jsonl"),
        table("v.csv", PLAIN[::-1]),
        jsonl(messages(PLAIN), "v.jsonl"),
    ],
    ids=["a copy", "another order and format", "another form"],
)
def test_validation_by_training_samples_alone_is_refused(tmp_path: Path, other: Writer) -> None:
    train = jsonl(PLAIN)(tmp_path)
    with pytest.raises(
        SpecError, match=r"all \d+ validation samples are trained on too \(first: .*v\.\w+:\d+\); name other samples"
    ):
        data.load(Dataset(str(train), validation=str(other(tmp_path))), RECIPE)


def test_rows_on_both_sides_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    train, other = jsonl(PLAIN[:35])(tmp_path), jsonl(PLAIN[30:], "v.jsonl")(tmp_path)
    read = data.load(Dataset(str(train), validation=str(other)), RECIPE)
    assert read.facts["validation_seen"] == f"5 of 10 validation samples are trained on too (first: {other}:1)"
    part = jsonl(PLAIN[7:9], "part.jsonl")(tmp_path)
    read = data.load(Dataset(str(train), validation=str(part)), RECIPE)
    assert read.facts["validation_seen"].startswith("2 of 2 validation samples are trained on too")
    train = jsonl(PLAIN[:30])(tmp_path)
    assert "validation_seen" not in data.load(Dataset(str(train), validation=str(other)), RECIPE).facts


@pytest.mark.parametrize("write", [folder(jsonl(PLAIN, "train.jsonl")), saved(train=PLAIN)], ids=["files", "saved"])
def test_parts_of_a_split_that_overlap_are_counted(tmp_path: Path, write: Writer) -> None:
    dataset = Dataset(str(write(tmp_path)), split="train[:30]", validation="train[20:]")
    assert data.load(dataset, RECIPE).facts["validation_seen"].startswith("10 of 20 validation samples are trained on")


def test_only_samples_that_are_used_count(tmp_path: Path) -> None:
    train, other = jsonl(PLAIN)(tmp_path), jsonl(PLAIN[20:], "v.jsonl")(tmp_path)
    read = data.load(Dataset(str(train), None, "train", 20, 5, validation=str(other)), RECIPE)
    assert "validation_seen" not in read.facts


def test_duplicates_that_a_split_by_seed_puts_on_both_sides_are_counted(tmp_path: Path) -> None:
    rows = [*PLAIN, *PLAIN[:20]]
    read = data.load(Dataset(str(jsonl(rows)(tmp_path))), RECIPE)
    trained = [(one.turns[0]["content"], one.response) for one in read.train]
    both = sum((one.turns[0]["content"], one.response) in trained for one in read.validation)
    assert 0 < both < 12
    assert read.facts["validation_seen"].startswith(f"{both} of 12 validation samples are trained on too")
    with pytest.raises(SpecError, match=r"all \d+ validation samples are trained on too .*; remove duplicated rows"):
        data.load(Dataset(str(jsonl(PLAIN[:1] * 20)(tmp_path))), RECIPE)


def test_the_same_question_with_another_answer_is_another_sample(tmp_path: Path) -> None:
    train = jsonl(PLAIN)(tmp_path)
    other = jsonl(each(lambda q, a: {"prompt": q, "response": a + "\n"}), "v.jsonl")(tmp_path)
    assert "validation_seen" not in data.load(Dataset(str(train), validation=str(other)), RECIPE).facts


def test_the_place_of_a_row_changes_neither_the_digest_nor_equality(tmp_path: Path) -> None:
    spaced = tmp_path / "spaced.jsonl"
    spaced.write_text("\n\n".join(json.dumps(row) for row in PLAIN))
    one, other = (data.load(Dataset(str(path)), RECIPE) for path in (jsonl(PLAIN)(tmp_path), spaced))
    assert one.train == other.train and one.train[0].where != other.train[0].where
    assert one.facts["dataset_digest"] == other.facts["dataset_digest"]
