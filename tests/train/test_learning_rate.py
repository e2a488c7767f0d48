from __future__ import annotations

import pytest

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Recipe
from gridsweep.train.learning_rate import learning_rate

pytestmark = pytest.mark.train


def rates(name: str, total: int = 100, warmup: float = 0.1) -> list[float]:
    recipe = Recipe(learning_rate_schedule=name, warmup=warmup)
    return [learning_rate(recipe, 1.0, step, total) for step in range(total)]


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_the_warm_up_rises_linearly_to_the_peak(name: str) -> None:
    assert rates(name)[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])


def test_cosine_is_half_way_down_in_the_middle_and_near_zero_at_the_end() -> None:
    assert rates("cosine", warmup=0)[50] == pytest.approx(0.5)
    assert rates("cosine", warmup=0)[-1] == pytest.approx(0.000247, abs=1e-6)


def test_linear_falls_by_equal_amounts() -> None:
    assert rates("linear", total=4, warmup=0) == [1.0, 0.75, 0.5, 0.25]


def test_constant_stays() -> None:
    assert set(rates("constant", warmup=0)) == {1.0}


def test_one_step_in_all_is_made_at_the_peak() -> None:
    assert rates("cosine", total=1) == [1.0]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SpecError, match="'polynomial'"):
        learning_rate(Recipe(learning_rate_schedule="polynomial"), 1.0, 5, 10)


def test_the_first_step_trains_where_transformers_waits() -> None:
    """As docs/training.md tells: one step ahead in the warm-up, the same after it."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    weights = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weights], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 4, 40)
    theirs = []
    for _ in range(40):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    ours = [learning_rate(Recipe(warmup=0.1), 1.0, step, 40) for step in range(40)]
    assert theirs[0] == 0 and ours[0] == 0.25
    assert ours[:4] == pytest.approx(theirs[1:5])
    assert ours[4:] == pytest.approx(theirs[4:])
