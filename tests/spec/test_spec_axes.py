"""Axes in `sweep.yaml`: what is refused at its place, and what points, files and conditions mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridsweep.errors import SpecError
from gridsweep.spec import load, loads
from gridsweep.spec.axes import KINDS
from gridsweep.spec.values import Number
from gridsweep.sweep.axes import AXES, whole
from gridsweep.sweep.experiments import PARAMS

SPEC = """\
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
recipe: {steps: 60}
tiers: [{name: only, threshold: p40, max_delay: 24h}]
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("design: {points: [{r: 8, evil: 1}]}", r"design.points: \[0\].evil is unknown"),
        (
            "design: {points: [{r: 8, warmup: 2}]}",
            r"design.points: \[0\].warmup must be a number at least 0 and below 1",
        ),
        ("design: {points: [{r: 8}, {r: 8}]}", r"\[1\] is the same point as \[0\]; delete one"),
        ("design: {points: [{r: 8}, {r: 8, clip: 2}]}", r"\[1\] has the axes r, alpha, lr, dropout, clip"),
        ("design: {points: no.csv}", "cannot read .*no.csv"),
        ("design: {points: 3}", "must be a list of points"),
        ("space: {lr: {log_uniform: [1e-3, 1e-5]}}", "log_uniform must rise, and goes from 0.001 to 1e-5"),
        ("space: {lr: {log_uniform: [0, 1e-5]}}", "log_uniform must begin above 0"),
        ("space: {lr: {lognormal: [1, 2]}}", "or a range such as"),
        ("space: {lr: {uniform: 1}}", "uniform needs two bounds"),
        ("space: {lr: {uniform: [1, 2]}}", "space.lr: a range needs design"),
        ("space: {dropout: {uniform: [0, 2]}}\ndesign: {sample: {n: 2}}", "at least 0 and below 1, not 2"),
        ("space: {layers: {uniform: [0, 2]}}\ndesign: {sample: {n: 2}}", "of which there is no range"),
        ("space: {lr: {uniform: [1, 2]}}\ndesign: {sample: {n: 2, method: tiers}}", "by sobol or random"),
        ("space: {batch_size: {log_uniform: [1, 8]}}\ndesign: {sample: {n: 3}}", "has whole numbers; write {int: "),
        ("space: {r: [2*r]}", "'2[*]r' follows its own axis"),
        ("space: {alpha: [2*rr]}", "rr is no axis to follow; did you mean r?"),
        ("space: {alpha: [2*layers]}", "layers is no axis to follow"),
        ("space: {alpha: [0*r]}", "is not above 0"),
        ("space: {alpha: [2*steps]}", "steps is no number that is given by itself"),
        ("space: {r: [1], alpha: [r], batch_size: [alpha/2]}", "is no number that is given by itself"),
        ("space: {r: [1, 2], batch_size: [r/2]}", "batch_size is 0.5[*]r, which is 0.5 where r is 1"),
        ("space: {r: [8], dropout: [r/4]}", "space.dropout: must be a number at least 0 and below 1, not 2"),
        ("space: {r: [8], exclude: [{r: 8}]}", "space.exclude: excludes every point"),
        ("space: {r: [8], exclude: [{clip: 3}]}", "space.exclude: clip is no axis of the space"),
        ("space: {r: [8], exclude: [{}]}", r"\[0\] must be a mapping of axes"),
        ("space: {epochs: [1, 2]}", "space.epochs: has no effect beside a number of steps"),
        ("space: {target_modules: [q_proj, v_proj]}", r"target_modules\[0\]: must be a list of names, or all-linear"),
        ("space: {rslora: [1, 0]}", "must be true or false"),
        ("space: {r: [8]}\nrules: [{tier: only, when: {clip: 1}}, {tier: only}]", "clip is no axis of this sweep"),
        ("space: {r: [8]}\ndesign: {one_factor: {baseline: {clip: 1}}}", "clip is no axis of the space"),
        ("space: {lr: [1e-4]}\ndesign: {sample: {n: 3, method: random}}", "the space has too few points"),
    ],
)
def test_what_no_sweep_can_have_is_refused_at_its_place(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=told):
        loads(SPEC + text + "\n", tmp_path / "sweep.yaml")


def test_an_axis_that_is_not_named_is_the_published_baselines_or_the_recipes() -> None:
    (only,) = loads(SPEC + "space: {weight_decay: 0.1}\n").experiments
    assert only.params.values == {"r": 16, "alpha": 32.0, "lr": 1e-4, "dropout": 0.1, "weight_decay": 0.1}


def test_rules_and_exclusions_hold_for_words_lists_and_truth_values() -> None:
    sweep = loads(
        SPEC.replace("tiers: [", "tiers: [{name: odd, threshold: p40, max_delay: 1h}, ")
        + "space:\n  target_modules: [[q_proj, v_proj], all-linear]\n  rslora: [true, false]\n"
        + "  learning_rate_schedule: [cosine, linear]\n"
        + "  exclude: [{rslora: true, learning_rate_schedule: '!= cosine'}]\n"
        + "rules:\n  - {tier: odd, when: {target_modules: q_proj+v_proj, rslora: false}}\n  - {tier: only}\n"
    )
    assert len(sweep.experiments) == 6
    odd = [e.params for e in sweep.experiments if e.tier == "odd"]
    assert {(p.value("target_modules"), p.value("rslora")) for p in odd} == {(("q_proj", "v_proj"), False)}
    reasons = {e.reason for e in sweep.experiments if e.tier == "odd"}
    assert reasons == {"rslora == false and target_modules == q_proj+v_proj"}


def test_points_of_a_file_are_those_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(
        "\ufeffr, lr,target_modules,rslora\n8,1e-3,q_proj+v_proj,true\n16,2e-3,all-linear,False\n"
    )
    (tmp_path / "sweep.yaml").write_text(SPEC + "design: {points: points.csv}\n")
    listed = (
        "design: {points: [{r: 8, lr: 1e-3, target_modules: [q_proj, v_proj], rslora: true},"
        " {r: 16, lr: 2e-3, target_modules: all-linear, rslora: false}]}\n"
    )
    assert load(tmp_path / "sweep.yaml").experiments == loads(SPEC + listed).experiments


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("r,evil\n1,2\n", "the column 'evil' is no axis"),
        ("r,r\n1,2\n", "a column is there twice"),
        ("r,lr\n1\n", ":2: has more or fewer cells than the header's 2"),
        ("r,lr\n1,2,3\n", ":2: has more or fewer cells"),
        ("r,lr\n8,fast\n", ":2: lr must be a number above 0"),
        ("r,rslora\n8,yes\n", ":2: rslora must be true or false, not 'yes'"),
        ("r,lr\n", "has no points"),
        ("", "has no points"),
        ("r,lr\n" + "".join(f"8,{n}e-6\n" for n in range(1, 10_002)), "has 10,001 points, at most 10,000 are allowed"),
    ],
)
def test_what_is_no_file_of_points_says_where(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(SpecError, match=told):
        loads(SPEC + "design: {points: points.csv}\n", tmp_path / "sweep.yaml")


def test_ids_of_points_drawn_from_ranges_never_change() -> None:
    text = SPEC + "space: {r: [8, 16], alpha: 2*r, lr: {log_uniform: [1e-5, 1e-3]}, warmup: [0, 0.1]}\n"
    ids = [e.id for e in loads(text + "design: {sample: {n: 3}}\n").experiments]
    assert ids == PINNED


PINNED = [
    "r8-a16-lr9p33e-4-d0p1-w0p1-82831615",
    "r16-a32-lr9p33e-5-d0p1-w0-9212f778",
    "r16-a32-lr2p95e-4-d0p1-w0-19509ecd",
]


def test_spec_and_sweep_agree_on_the_axes_of_whole_numbers() -> None:
    assert {key for key, kind in KINDS.items() if isinstance(kind, Number) and kind.whole} == {*filter(whole, KINDS)}
    assert {*AXES, *PARAMS} == {*KINDS}
