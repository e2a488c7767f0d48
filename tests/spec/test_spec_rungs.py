"""What a `sweep.yaml` says of rungs, packs, repeats and proposals."""

from __future__ import annotations

import jsonschema
import pytest
import yaml
from test_spec import LEAST, SPACE, faults

from gridsweep.spec import json_schema, loads
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs


def test_by_default_there_are_rungs_one_seed_and_no_newcomers():
    sweep = loads(LEAST)
    assert sweep.rungs == Rungs((0.125, 0.25, 0.5), (11, 6, 3)) and sweep.pack == 21
    assert sweep.repeats is None and sweep.propose is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("default", Rungs()),
        ("{at: [1/3, 0.5], keep: [9, 2]}", Rungs((1 / 3, 0.5), (9, 2))),
        ("{when: each}", Rungs(together=False)),
    ],
)
def test_rungs(text, expected):
    assert loads(f"{LEAST}rungs: {text}\n").rungs == expected


def test_the_baseline_is_carried_where_the_spec_says_so():
    sweep = loads(f"{LEAST}rungs: {{carry: baseline}}\n")
    assert sweep.rungs.keep_always == (sweep.baseline,)


def test_rungs_are_scaled_to_another_number_of_experiments():
    assert loads(f"{LEAST}{SPACE}").rungs.keep == (28, 15, 8)
    assert loads(f"{LEAST}space: {{r: 8, alpha: 16, lr: [1e-4, 2e-4, 3e-4], dropout: 0.1}}\n").rungs is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", Repeats(3)),
        ("1", None),
        ("none", None),
        ("{seeds: 5, finalists: 2}", Repeats(5, 2)),
        ("{finalists: 1}", Repeats(finalists=1)),
    ],
)
def test_repeats(text, expected):
    assert loads(f"{LEAST}repeats: {text}\n").repeats == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edge", Proposals("edge")),
        ("optuna", Proposals("optuna")),
        ("none", None),
        ("{by: optuna, most: 6}", Proposals("optuna", 6)),
    ],
)
def test_proposals(text, expected):
    assert loads(f"{LEAST}propose: {text}\n").propose == expected


GOOD = ["rungs: {at: [1/8], keep: [5], when: each, carry: baseline}", "repeats: 2", "repeats: none", "propose: edge"]


@pytest.mark.parametrize("line", GOOD)
def test_the_schema_knows_what_is_read(line):
    jsonschema.validate(yaml.safe_load(LEAST + line), json_schema())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rungs: {at: [1/8, 1/4], keep: [5]}", "2 rungs need as many numbers to keep, not 1"),
        ("rungs: {at: [1/2, 1/4], keep: [5, 3]}", "each rung must be after the one before it"),
        ("rungs: {at: [1/8, 1/4], keep: [3, 5]}", "each rung must keep fewer experiments than the one before it"),
        ("rungs: {when: eech}", "did you mean each?"),
        ("rungs: {carry: bseline}", "did you mean baseline?"),
        ("rungs: 3", "must be none, default or a mapping with at and keep"),
        ("repeats: 0", "at least 2"),
        ("repeats: many", "whole number"),
        ("repeats: {seed: 3}", "did you mean seeds?"),
        ("propose: optunna", "did you mean optuna?"),
        ("propose: {most: 0}", "at least 1"),
        ("pack: 0", "or auto, not 0"),
    ],
)
def test_what_is_wrong_is_said_at_its_line(line, said):
    (fault,) = faults(LEAST + line)
    assert fault.startswith("sweep.yaml:4: ") and said in fault


def test_proposals_need_rungs():
    (fault,) = faults(LEAST + "propose: edge\nrungs: none")
    assert fault.startswith("sweep.yaml:4: propose: needs rungs")
