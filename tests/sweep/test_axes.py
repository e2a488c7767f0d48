"""Axes beyond the four of LoRA: what an experiment's own recipe, length and place in a pack follow from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridsweep.spec import loads
from gridsweep.sweep.axes import AXES, recipe_of, shared_of, total_steps
from gridsweep.sweep.experiments import Dataset, LoraParams, Recipe
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.stints import Member

POINT = LoraParams(16, 32.0, 1e-4, 0.1)
SPEC = """
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
tiers: [{name: only, threshold: p40, max_delay: 24h}]
"""


def test_every_axis_is_a_key_of_the_recipe_and_has_a_name_of_its_own_in_ids():
    assert {key for key in AXES if not hasattr(Recipe(), key)} == set()
    shorts = [axis.short for axis in AXES.values()]
    assert len(set(shorts)) == len(shorts)


def test_a_point_keeps_its_axes_sorted_and_refuses_them_otherwise():
    assert POINT.having(warmup=0.1, clip=2.0).more == (("clip", 2.0), ("warmup", 0.1))
    assert POINT.having(r=8, clip=2.0).values == {
        "r": 8, "alpha": 32.0, "lr": 1e-4, "dropout": 0.1, "clip": 2.0,
    }  # fmt: skip
    for more in ((("b", 1), ("a", 1)), (("a", 1), ("a", 2)), (("r", 1),)):
        with pytest.raises(ValueError, match="sorted by key"):
            LoraParams(16, 32.0, 1e-4, 0.1, more)


def test_an_axis_at_the_recipes_value_adds_nothing_to_an_id_and_another_value_is_another_experiment():
    from gridsweep.sweep.experiments import Model

    recipe, model, data = Recipe(), Model("org/model"), Dataset("org/data")
    plain = experiment_id(POINT, 42, model, data, recipe)
    assert plain == "r16-a32-lr1e-4-d0p1-" + plain[-8:]
    same = POINT.having(weight_decay=recipe.weight_decay, rslora=False, target_modules=recipe.target_modules)
    assert experiment_id(same, 42, model, data, recipe) == plain
    other = POINT.having(weight_decay=0.5)
    assert experiment_id(other, 42, model, data, recipe) != plain
    # the same experiment, whether the value comes from the recipe or from an axis
    assert (
        experiment_id(POINT, 42, model, data, replace(recipe, weight_decay=0.5))[-8:]
        == (experiment_id(other, 42, model, data, recipe)[-8:])
    )


def test_what_a_stint_has_once_is_shared_and_the_rest_is_not():
    params = POINT.having(batch_size=4, warmup=0.1, target_modules=("q_proj",), rslora=True)
    assert shared_of(params) == (("batch_size", 4), ("target_modules", ("q_proj",)))
    own = recipe_of(Recipe(), params)
    assert (own.batch_size, own.warmup, own.target_modules, own.rslora) == (4, 0.1, ("q_proj",), True)


def test_steps_follow_from_an_experiments_own_recipe():
    data = Dataset("org/data", train_samples=100)
    for axes, steps in (({}, 39), ({"batch_size": 4}, 21), ({"epochs": 1.0}, 13), ({"steps": 7}, 7)):
        assert total_steps(data, recipe_of(Recipe(), POINT.having(**axes))) == steps, axes
    with pytest.raises(ValueError, match="train_samples must be given"):
        total_steps(Dataset("org/data"), Recipe())


def test_experiments_of_other_length_meet_at_rungs_at_the_same_share_of_their_own_steps():
    sweep = loads(SPEC + "space: {lr: [1e-5, 1e-4, 1e-3], steps: [80, 160]}\nrecipe: {steps: 80}\npack: 2\n"
                         "rungs: {at: [1/8, 1/2], keep: [4, 2]}\n")  # fmt: skip
    short, long = (next(e for e in sweep.experiments if e.params.value("steps") == n) for n in (80, 160))
    assert (sweep.total_of(short), sweep.total_of(long)) == (80, 160)
    assert (sweep.stages, sweep.stages_of(short), sweep.stages_of(long)) == ((10, 40, 80), (10, 40, 80), (20, 80, 160))
    assert [sweep.level(long, step) for step in (0, 10, 20, 50, 80, 160)] == [0, 5.0, 10, 25.0, 40, 80]
    assert [sweep.own_step(long, stage) for stage in sweep.stages] == [20, 80, 160]
    assert [sweep.next_stage(long, step) for step in (0, 19, 20, 80, 160)] == [20, 20, 80, 160, 160]
    # twice the steps take twice as long
    whole = [sweep.taken([Member(e.id, 0, sweep.total_of(e))]) for e in (short, long)]
    assert whole[1] == 2 * whole[0] == 2 * sweep.estimates.duration


def test_twice_the_samples_in_a_step_take_twice_as_long_and_the_same_data_as_long():
    sweep = loads(SPEC + "space: {batch_size: [2, 4]}\nrungs: none\n")
    few, many = sweep.experiments
    assert (sweep.total_of(few), sweep.total_of(many)) == (375, 189)
    assert sweep.work_of_a_step(many) == 2.0
    taken = [sweep.taken([Member(e.id, 0, sweep.total_of(e))]) for e in (few, many)]
    assert taken[1] / taken[0] == pytest.approx(189 * 2 / 375)


def test_averaged_weights_decide_for_all_where_one_schedule_decays():
    assert loads(SPEC + "recipe: {learning_rate_schedule: constant}\n").decides == "raw"
    mixed = loads(SPEC + "space: {learning_rate_schedule: [constant, cosine]}\n")
    assert (mixed.decides, mixed.varied, mixed.uneven) == ("averaged", True, False)
    assert loads(SPEC + "space: {learning_rate_schedule: constant}\n").decides == "raw"
