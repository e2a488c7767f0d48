"""What a `sweep.yaml` says of rungs, packs, repeats and proposals."""

from __future__ import annotations

from dataclasses import replace

import jsonschema
import pytest
import yaml
from test_spec import LEAST, SPACE, faults

from gridsweep.spec import json_schema, loads
from gridsweep.sweep.rung_prices import PRICES
from gridsweep.sweep.rungs import DEFAULT, EACH, EARLIER, Proposals, Repeats, Rungs, scaled


def test_by_default_there_are_rungs_one_seed_and_no_newcomers():
    sweep = loads(LEAST)
    assert sweep.rungs == DEFAULT and sweep.pack == 21
    assert sweep.repeats is None and sweep.propose is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        ("default", DEFAULT),
        ("{at: [1/3, 0.5], keep: [9, 2]}", Rungs((1 / 3, 0.5), (9, 2))),
        ("{when: each}", replace(EACH, together=False)),
        ("{at: [1/8, 1/4, 1/2]}", EARLIER),
        ("{keep: [11, 6, 3]}", EARLIER),
        ("{keep: [9, 5, 2]}", Rungs(EARLIER.at, (9, 5, 2))),
    ],
)
def test_rungs(text, expected):
    assert loads(f"{LEAST}rungs: {text}\n").rungs == expected


def test_the_baseline_is_carried_where_the_spec_says_so():
    sweep = loads(f"{LEAST}rungs: {{carry: baseline}}\n")
    assert sweep.rungs.keep_always == (sweep.baseline,)


def test_rungs_are_scaled_to_another_number_of_experiments():
    assert loads(f"{LEAST}{SPACE}").rungs == scaled(DEFAULT, 54)
    assert loads(f"{LEAST}{SPACE}rungs: {{keep: [11, 6, 3]}}\n").rungs.keep == (28, 15, 8)
    assert loads(f"{LEAST}space: {{r: 8, alpha: 16, lr: [1e-4, 2e-4, 3e-4], dropout: 0.1}}\n").rungs is None


def test_in_a_short_run_rungs_in_the_warm_up_and_before_four_steps_are_left_out():
    def at(recipe: str) -> tuple[float, ...]:
        found = loads(LEAST + f"recipe: {{{recipe}}}\n").rungs
        return found.at if found else ()

    assert at("steps: 240") == DEFAULT.at
    assert at("steps: 40") == DEFAULT.at[1:]
    assert at("steps: 240, warmup: 0.2") == DEFAULT.at[2:]
    assert at("steps: 4") == ()


@pytest.mark.parametrize("given", ["{p:.4g} %", "{p:.4g}%", "{share:.6g}"])
def test_a_regret_picks_the_cheapest_rule_measured_to_keep_it(given):
    for price in PRICES:
        limit = price.limit + 1e-5
        found = loads(f"{LEAST}rungs: {{regret: {given.format(p=100 * limit + 0.001, share=limit)}}}\n").rungs
        best = min((p for p in PRICES if p.limit <= limit + 1e-5), key=lambda p: (p.share, p.limit))
        assert (found.at, found.keep, found.drift) == (best.rungs.at, best.rungs.keep, best.rungs.drift)


def test_a_regret_goes_with_carry_and_with_each():
    most = max(price.limit for price in PRICES)
    found = loads(f"{LEAST}rungs: {{regret: {most}, carry: baseline, when: each}}\n").rungs
    assert found.keep_always and not found.together and found.drift is None


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


GOOD = [
    "rungs: {regret: 50 %}",
    "rungs: {regret: 0.5}",
    "rungs: {at: [1/8], keep: [5], when: each, carry: baseline}",
    "repeats: 2",
    "repeats: none",
    "propose: edge",
]


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
        ("rungs: {regret: 0.0001 %}", f"the least is {100 * min(price.limit for price in PRICES):.2f} %"),
        ("rungs: {regret: 0}", "must be a share such as 1 % or 0.01"),
        ("rungs: {regret: 100 %}", "must be a share such as 1 % or 0.01"),
        ("rungs: {regret: 1/8}", "must be a share such as 1 % or 0.01"),
        ("rungs: {regret: 50 %, keep: [5]}", "give either regret, or at and keep"),
        ("rungs: {at: [1/8, 1/4]}", "2 rungs need as many numbers to keep, not 5"),
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
