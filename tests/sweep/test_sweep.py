"""The sweep as a value: numbers as text, conditions, and ids that never collide."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.spec import loads
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe, is_local, number
from gridsweep.sweep.identity import experiment_id, slug
from gridsweep.sweep.tiers import Condition

BASE = (42, Model("org/model"), Dataset("org/data"), Recipe())

ranks = st.integers(1, 65_536)
alphas = st.floats(1e-3, 1e6)
rates = st.floats(1e-12, 100)
dropouts = st.floats(0, 1, exclude_max=True)
points = st.builds(LoraParams, ranks, alphas, rates, dropouts)


def id_of(params: LoraParams) -> str:
    return experiment_id(params, *BASE)


@given(points)
def test_an_id_is_a_dns_1035_label_of_at_most_47_characters(params: LoraParams) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", id_of(params))
    assert len(id_of(params)) <= 47


@given(points, points)
def test_distinct_points_have_distinct_ids(a: LoraParams, b: LoraParams) -> None:
    assert (id_of(a) == id_of(b)) == (a == b)


@given(points, st.data())
def test_points_that_differ_in_one_value_have_distinct_ids(a: LoraParams, data: st.DataObject) -> None:
    axes = {"r": ranks, "alpha": alphas, "lr": rates, "dropout": dropouts}
    param = data.draw(st.sampled_from(sorted(axes)))
    b = replace(a, **{param: data.draw(axes[param])})
    assert (id_of(a) == id_of(b)) == (a == b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (LoraParams(16, 32.0, 1.5e-4, 0.1), LoraParams(16, 32.0, 1e-4, 0.1)),
        (LoraParams(16, 32.0, 1e-4, 0.055), LoraParams(16, 32.0, 1e-4, 0.05)),
        (LoraParams(16, 32.0, 1e-4, 0.28), LoraParams(16, 32.0, 1e-4, 0.29)),
    ],
)
def test_the_collisions_of_the_published_names_are_gone(a: LoraParams, b: LoraParams) -> None:
    assert id_of(a) != id_of(b) and slug(a) != slug(b)


@pytest.mark.parametrize(
    "other",
    [
        (43, *BASE[1:]),
        (42, Model("org/model", "v2"), *BASE[2:]),
        (42, Model("org/model", chat_template="{{ messages }}"), *BASE[2:]),
        (42, Model("org/model"), Dataset("org/data", split="test"), Recipe()),
        (42, Model("org/model"), Dataset("org/data"), Recipe(epochs=4)),
        (42, Model("org/model"), Dataset("org/data"), Recipe(learning_rate_schedule="linear")),
    ],
)
def test_what_decides_the_result_is_in_the_id(other: tuple[int, Model, Dataset, Recipe]) -> None:
    params = LoraParams(16, 32.0, 1e-4, 0.1)
    assert experiment_id(params, *other) != experiment_id(params, *BASE)


def test_what_does_not_decide_the_result_is_not_in_the_id() -> None:
    params = LoraParams(16, 32.0, 1e-4, 0.1)
    assert id_of(LoraParams(16, 32, 1e-4, 0.1)) == id_of(params)
    assert experiment_id(params, *BASE[:3], Recipe(epochs=3, checkpoint_every=7)) == id_of(params)
    here, there = Model("./models/mine"), Model("/elsewhere/mine")
    assert experiment_id(params, 42, here, *BASE[2:]) == experiment_id(params, 42, there, *BASE[2:])


def test_an_id_reads_as_its_point() -> None:
    assert slug(LoraParams(16, 32.0, 1e-4, 0.05)) == "r16-a32-lr1e-4-d0p05"
    assert re.fullmatch(r"r16-a32-lr1e-4-d0p05-[0-9a-f]{8}", id_of(LoraParams(16, 32.0, 1e-4, 0.05)))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself(value: float) -> None:
    assert float(number(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(32.0, "32"), (1e-4, "1e-4"), (0.05, "0.05"), (1.5e-4, "1.5e-4"), (0.0, "0"), (100_000, "100000")],
)
def test_a_number_is_written_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("op", "holds"),
    [("==", False), ("!=", True), (">=", True), ("<=", False), (">", True), ("<", False)],
)
def test_a_condition_compares(op: str, holds: bool) -> None:
    condition = Condition("dropout", op, 0.1)
    assert condition.holds(LoraParams(16, 32.0, 1e-4, 0.15)) is holds
    assert str(condition) == f"dropout {op} 0.1"


@pytest.mark.parametrize(
    "id", ["./x", "../x", "/x", "~/x", "pairs.jsonl", "data/pairs.json", "p.CSV", "p.tsv.gz", "P.PQ.GZ", "p.ndjson"]
)
def test_a_path_is_local(id: str) -> None:
    assert is_local(id)


@pytest.mark.parametrize("id", ["org/name", "stdlib", "tiny-qwen2", "org/data.txt", "org/csv"])
def test_an_id_is_not_local(id: str) -> None:
    assert not is_local(id)


def test_a_sweep_finds_its_parts_and_counts() -> None:
    sweep = loads("model: a/b\ndataset: c/d\nrecipe: {steps: 30}\nestimates: {duration: 1h, power_w: 100}\n")
    submitted = datetime(2024, 6, 10, tzinfo=UTC)
    assert sweep.tier("tier2").threshold == 175
    assert sweep.experiment(str(sweep.baseline)).params == LoraParams(16, 32.0, 1e-4, 0.1)
    assert sweep.span(1, 0, 1) == timedelta(minutes=2)
    assert sweep.deadline(submitted) is None
    assert replace(sweep, finish_by=timedelta(hours=3)).deadline(submitted) == submitted + timedelta(hours=3)
    assert replace(sweep, finish_by=submitted).deadline(submitted) == submitted


def test_the_values_of_a_sweep_import_nothing_heavy() -> None:
    heavy = "{'numpy', 'pydantic', 'yaml', 'torch'} & set(sys.modules)"
    code = f"import sys, gridsweep.sweep.sweep, gridsweep.sweep.designs; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
