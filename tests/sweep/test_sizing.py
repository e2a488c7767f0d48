"""Sweeps sized by a budget: what is given up, what is refused, and that the least budget named is enough."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest

from gridsweep.errors import SpecError
from gridsweep.sweep.sizing import FILL, FILL_GUESSED, Budget, sized
from gridsweep.sweep.surveys import DataFacts, DeviceFacts, MemoryFacts, ModelFacts, Speed, Survey

MODEL = ModelFacts("Qwen2ForCausalLM", 7_000_000_000, 3584, 32768, 2_523_136, ("q_proj",), True, "lean")
DATA = DataFacts(4000, 1000, False, tuple(range(10, 717, 7)), 0.6, "all 5000 usable samples were read")
CARD = DeviceFacts("card", "cuda", 1, 80e9, 300.0, (Speed(1, 9000.0), Speed(4, 12_000.0)), "2026-01-01")
MEMORY = MemoryFacts(15_230_000_000, 20 * MODEL.per_rank, 200_000_000, (4.4e6, 1000.0), 0.1)
SURVEY = Survey(MODEL, DATA, CARD, MEMORY)


def test_without_a_budget_twelve_experiments_are_tried():
    made = sized(SURVEY, Budget())
    assert (made.extent.experiments, made.extent.epochs, made.total_steps) == (12, 3, 1500)
    assert made.rungs is not None and made.rungs.keep == (9, 6, 3, 2)
    assert made.pack == 12 and made.fits > 12 and not made.guess and made.tokens_per_s == 9000.0
    assert made.validation == 256, "more validation samples would cost time at every rung"
    assert made.rates[0] < 4.8e-4 < made.rates[-1]


def test_more_hours_try_no_less():
    budgets = (0.07, 0.12, 0.25, 0.5, 0.9, 1.2, 3.5)
    sizes = [sized(SURVEY, Budget(hours=hours)) for hours in budgets]
    runs = [size.cost.runs * size.total_steps for size in sizes]
    assert runs == sorted(runs) and len(set(runs)) > 4
    assert all(size.cost.hours <= FILL * hours for size, hours in zip(sizes, budgets, strict=True))
    assert sizes[-1].extent.seeds == 3 and sizes[-1].dropouts == (0.0, 0.1)
    assert sizes[0].extent.share < 1 and sizes[0].extent.epochs == 1


def test_grams_size_a_sweep_by_the_grid():
    clean, dirty = (sized(SURVEY, Budget(grams=100, intensity=level)) for level in (50.0, 500.0))
    assert clean.cost.kwh > dirty.cost.kwh
    assert dirty.cost.kwh * 500 <= FILL * 100


def test_of_a_guess_half_a_budget_is_planned_for():
    guessed = replace(SURVEY, device=replace(CARD, speeds=()))
    made = sized(guessed, Budget(hours=40))
    assert made.guess and made.cost.hours <= FILL_GUESSED * 40


@pytest.mark.parametrize("budget", [Budget(hours=0.01), Budget(grams=0.5, intensity=400.0)])
def test_a_budget_below_one_experiment_is_refused_and_the_least_that_is_named_does(budget):
    with pytest.raises(SpecError, match="too small for even one experiment") as raised:
        sized(SURVEY, budget)
    least = float(re.search(r"--(?:hours|grams) (\S+?),", str(raised.value))[1])
    asked = Budget(hours=least) if budget.hours else replace(budget, grams=least)
    made = sized(SURVEY, asked)
    assert made.extent.experiments == 1 and made.rungs is None


def test_a_base_that_does_not_fit_is_refused():
    with pytest.raises(SpecError, match="not even one adapter of rank 32"):
        sized(replace(SURVEY, device=replace(CARD, memory=16e9)), Budget())


def test_packs_are_as_large_as_the_memory_lets_them():
    made = sized(replace(SURVEY, device=replace(CARD, memory=24e9)), Budget())
    assert 1 <= made.pack == made.fits < 12


def test_short_trainings_have_no_rungs():
    small = replace(
        SURVEY,
        data=replace(DATA, train=48, validation=12, lengths=(30,) * 101),
        memory=replace(MEMORY, base=10_000_000),
    )
    assert sized(small, Budget()).rungs is None


def test_much_data_gets_a_rank_that_holds_it():
    assert sized(SURVEY, Budget()).ranks == (8, 32)
    much = replace(SURVEY, model=replace(MODEL, per_rank=20_000))
    assert sized(much, Budget()).ranks == (32, 64)


def test_a_family_without_a_power_of_its_own_gets_that_of_llama():
    other = replace(SURVEY, model=replace(MODEL, architecture="LlamaForCausalLM"))
    assert max(sized(other, Budget()).rates) < max(sized(SURVEY, Budget()).rates)


def test_the_share_of_samples_never_falls_below_a_floor():
    extents = [sized(SURVEY, Budget(hours=hours)).extent.share for hours in (0.06, 0.1, 0.2)]
    assert min(extents) >= Fraction(1, 16)
