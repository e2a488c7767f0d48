"""Values as JSON documents: times, spans, unknown numbers, names and units."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from gridsweep.render import documents

NOON = datetime(2024, 6, 10, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Part:
    experiment: str
    wait_h: float | None
    loss: float


@dataclass(frozen=True)
class Whole:
    rows: tuple[Part, ...]
    emissions_g_mean: float
    finish_by_h: float | None
    at: datetime
    span: timedelta
    chain: tuple[tuple[int, int], ...]
    path: Path
    schema_version: int = 7


def whole(**changes):
    fields = {
        "rows": (Part("e00", 1.5, 0.25),), "emissions_g_mean": 2.5, "finish_by_h": 30, "at": NOON,
        "span": timedelta(minutes=90), "chain": ((4, 2),), "path": Path("runs/x"),
    }  # fmt: skip
    return Whole(**{**fields, **changes})


def test_a_document_has_the_contracts_names_and_units():
    assert documents.document(whole()) == {
        "schema_version": 7,
        "experiments": [{"id": "e00", "wait_s": 5400.0, "validation_loss": 0.25}],
        "emissions_mean_g": 2.5,
        "finish_by_s": 108_000,
        "at": "2024-06-10T12:00:00Z",
        "span": 5400.0,
        "chain": [[4, 2]],
        "path": "runs/x",
    }
    assert next(iter(documents.document(whole()))) == "schema_version"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), np.float64("nan")])
def test_an_unknown_number_is_null(number):
    told = json.loads(documents.text(whole(emissions_g_mean=number, rows=(Part("e00", number, number),))))
    assert told["emissions_mean_g"] is None
    assert told["experiments"] == [{"id": "e00", "wait_s": None, "validation_loss": None}]


def test_times_are_utc_to_the_second():
    east = datetime(2024, 6, 10, 14, 0, 7, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert documents.instant(east) == "2024-06-10T12:00:07Z"
    with pytest.raises(ValueError, match="no time zone"):
        documents.document(whole(at=NOON.replace(tzinfo=None)))


def test_numbers_of_numpy_are_numbers():
    assert documents.text([np.float64(0.5), np.int64(3)]) == documents.text([0.5, 3])


def test_hours_become_seconds_without_a_tail():
    assert documents.document(Part("e00", 0.1 + 0.2, 0.0))["wait_s"] == 1080.0


def test_whatever_has_no_form_is_refused():
    with pytest.raises(TypeError, match="object has no form"):
        documents.text({"x": object()})


def test_text_is_ascii_and_a_line_is_one():
    assert documents.text({"x": "CO₂"}).isascii()
    assert "\n" not in documents.line(whole())


def test_the_schema_says_the_same():
    made = documents.schema(Whole, "whole")
    told = documents.document(whole(finish_by_h=None, rows=()))
    jsonschema.Draft202012Validator(made).validate(told)
    for wrong in ({"more": 1}, {"chain": [[1]]}, {"at": "2024-06-10 12:00"}, {"schema_version": 6}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(made).validate(told | wrong)
    del told["span"]
    with pytest.raises(jsonschema.ValidationError, match="span"):
        jsonschema.Draft202012Validator(made).validate(told)
