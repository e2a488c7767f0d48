from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.sweep.rungs import EARLIER, Rungs, scaled, steps

shares = st.lists(st.fractions(Fraction(1, 100), Fraction(99, 100)), max_size=5, unique=True).map(sorted)


@st.composite
def rungs(draw):
    at = draw(shares)
    keep = sorted(draw(st.sets(st.integers(1, 40), min_size=len(at), max_size=len(at))), reverse=True)
    return Rungs(tuple(at), tuple(keep), tuple(sorted(draw(st.sets(st.sampled_from("ab"))))))


@dataclass(frozen=True, slots=True)
class Share:
    """What a sweep with rungs costs of the same without, in optimizer steps and in evaluations: 1.0 is all of it."""

    training: float
    evaluating: float

    @property
    def total(self) -> float:
        return self.training + self.evaluating


def share_of_steps(rungs: Rungs, experiments: int, total_steps: int, evaluation: float = 0.0) -> Share:
    """The expected share of all optimizer steps, and of evaluating at the rungs.

    `evaluation` is what one evaluation of one experiment costs as a share of its run; the one at the end is not
    counted, a full sweep has it too. Each name in `keep_always` counts beyond `keep` as often as an average experiment
    is not among the best. Ties are not foreseen: they add a quarter of the places at most.
    """
    if experiments < 1:
        raise ValueError("a sweep has one experiment at least")
    alive, trained, evaluated, before = float(experiments), 0.0, 0.0, 0
    for step, keep in zip(steps(rungs, total_steps), rungs.keep, strict=True):
        trained += alive * (step - before)
        evaluated += alive
        best = min(keep, experiments)
        alive = min(alive, best + len(rungs.keep_always) * (1 - best / experiments))
        before = step
    trained += alive * (total_steps - before)
    return Share(trained / (experiments * total_steps), evaluated * evaluation / experiments)


def test_the_default_looks_at_an_eighth_a_quarter_and_a_half():
    assert steps(EARLIER, 240) == (30, 60, 120)
    assert steps(Rungs((0.125, 0.25, 0.5), (11, 6, 3)), 240) == (30, 60, 120)


@given(rungs(), st.integers(1, 500))
def test_steps_rise_from_one_and_end_before_the_run(given_rungs, total):
    if total <= len(given_rungs.at):
        with pytest.raises(ValueError, match="too few for"):
            steps(given_rungs, total)
        return
    found = steps(given_rungs, total)
    assert len(found) == len(given_rungs.at)
    assert list(found) == sorted(set(found))
    assert all(1 <= step < total for step in found)


def test_in_a_very_short_run_rungs_move_apart():
    assert steps(EARLIER, 4) == (1, 2, 3)
    assert steps(Rungs((0.9, 0.95, 0.99), (11, 6, 3)), 5) == (2, 3, 4)


@pytest.mark.parametrize(
    ("at", "keep", "said"),
    [
        ((0.5, 0.25), (6, 3), "after the one before it, not 0.5, 0.25"),
        ((0.25, 0.25), (6, 3), "after the one before it"),
        ((0.0, 0.25), (6, 3), "between 0 and 1"),
        ((0.5, 1.0), (6, 3), "between 0 and 1"),
        ((float("nan"),), (6,), "between 0 and 1"),
        ((0.25, 0.5), (6, 6), "fewer experiments than the one before it, not 6, 6"),
        ((0.25, 0.5), (6, 0), "at least one experiment"),
        ((0.25, 0.5), (6,), "as many numbers"),
    ],
)
def test_rungs_that_make_no_sense_are_refused(at, keep, said):
    with pytest.raises(ValueError, match=said):
        Rungs(at, keep)


def test_the_default_trains_a_third_of_the_steps():
    assert share_of_steps(EARLIER, 21, 240) == Share(pytest.approx(1 / 3), 0.0)


def test_evaluations_are_counted_apart():
    found = share_of_steps(EARLIER, 21, 240, evaluation=0.01)
    assert found.training == pytest.approx(1 / 3)
    assert found.evaluating == pytest.approx(0.01 * (21 + 11 + 6) / 21)
    assert found.total == found.training + found.evaluating


def test_a_baseline_costs_as_often_as_it_is_not_among_the_best():
    plain = share_of_steps(EARLIER, 21, 240).training
    kept = share_of_steps(replace(EARLIER, keep_always=("a",)), 21, 240).training
    extra = (10 / 21) / 8 + (15 / 21) / 4 + (18 / 21) / 2
    assert kept - plain == pytest.approx(extra / 21)


@given(rungs(), st.integers(1, 60), st.integers(6, 500))
def test_rungs_never_cost_more_than_the_whole_sweep(given_rungs, experiments, total):
    assert 0 < share_of_steps(given_rungs, experiments, total).training <= 1 + 1e-9


def test_without_rungs_everything_is_trained():
    assert share_of_steps(Rungs((), ()), 21, 240) == Share(1.0, 0.0)
    assert steps(Rungs((), ()), 240) == ()


def test_other_numbers_of_experiments_keep_the_same_shares():
    assert scaled(EARLIER, 21) == EARLIER
    assert scaled(EARLIER, 42).keep == (22, 12, 6)
    assert scaled(EARLIER, 8) == Rungs((Fraction(1, 8), Fraction(1, 4)), (4, 3))
    assert scaled(EARLIER, 3) == Rungs((), ())
    assert scaled(EARLIER, 8, at_least=1).keep == (4, 2, 1)
    assert scaled(replace(EARLIER, keep_always=("a",)), 8).keep_always == ("a",)
    with pytest.raises(ValueError, match="below 1"):
        scaled(EARLIER, 0)


@given(rungs(), st.integers(1, 200), st.integers(1, 200), st.integers(1, 5))
def test_scaled_rungs_are_rungs_that_stop_somebody(given_rungs, experiments, of, at_least):
    found = scaled(given_rungs, experiments, of, at_least)
    assert set(found.at) <= set(given_rungs.at)
    assert all(min(at_least, *given_rungs.keep) <= keep < experiments for keep in found.keep)
