from math import inf, nan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.selection.paired_differences import Difference, difference, separable, student
from gridsweep.sweep.losses import Losses

losses = st.floats(0.1, 5.0)
pairs = st.lists(st.tuples(losses, losses, st.integers(1, 400)), min_size=2, max_size=20)


def of(*values):
    return Losses(values, (1.0,) * len(values))


def both(rows):
    tokens = tuple(float(row[2]) for row in rows)
    return Losses(tuple(row[0] for row in rows), tokens), Losses(tuple(row[1] for row in rows), tokens)


def test_a_loss_is_a_mean_over_tokens():
    assert Losses((1.0, 2.0), (300.0, 100.0)).mean == 1.25
    assert Losses((1.0, nan), (300.0, 0.0)).mean == 1.0
    assert Losses((1.0, nan), (300.0, 0.0)).finite
    assert not Losses((1.0, nan), (300.0, 1.0)).finite


@pytest.mark.parametrize(
    ("values", "tokens", "said"),
    [
        ((1.0,), (1.0, 2.0), "got 1 losses for 2 token counts"),
        ((), (), "not all 0"),
        ((1.0,), (0.0,), "not all 0"),
        ((1.0, 1.0), (2.0, -1.0), "not negative"),
        ((1.0,), (inf,), "finite"),
    ],
)
def test_losses_without_their_tokens_are_refused(values, tokens, said):
    with pytest.raises(ValueError, match=said):
        Losses(values, tokens)


def test_with_equal_tokens_it_is_the_paired_t_test():
    found = difference(of(1.0, 2.0, 3.0, 4.0), of(0.9, 2.1, 2.7, 3.5))
    d = np.array([0.1, -0.1, 0.3, 0.5])
    assert found.mean == pytest.approx(d.mean())
    assert found.standard_error == pytest.approx(d.std(ddof=1) / 2)
    assert found.dof == pytest.approx(3)
    assert found.interval()[0] == pytest.approx(d.mean() - 3.18245 * d.std(ddof=1) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("confidence", "dof", "reach"),
    [
        (0.95, 1, 12.70620),
        (0.95, 2, 4.302653),
        (0.95, 7, 2.364624),
        (0.95, 2.5, 3.574655),
        (0.95, 100, 1.983972),
        (0.95, 499, 1.964729),
        (0.95, 1e6, 1.959964),
        (0.99, 5, 4.032143),
        (0.9975, 3, 9.464900),
        (0.9975, 30, 3.299894),
    ],
)
def test_students_t_is_that_of_the_tables(confidence, dof, reach):
    assert student(confidence, dof) == pytest.approx(reach, rel=2e-4)


def test_what_has_no_interval_is_refused():
    for confidence, dof in ((0.0, 5), (1.0, 5), (nan, 5), (0.95, 0.5), (0.95, nan)):
        with pytest.raises(ValueError, match="no interval"):
            student(confidence, dof)


@given(pairs)
def test_the_difference_is_that_of_the_two_losses_whatever_the_samples_lengths(rows):
    a, b = both(rows)
    assert difference(a, b).mean == pytest.approx(a.mean - b.mean, abs=1e-9)


@given(pairs)
def test_the_other_way_round_it_has_the_other_sign(rows):
    a, b = both(rows)
    one, other = difference(a, b), difference(b, a)
    assert (one.mean, one.standard_error) == pytest.approx((-other.mean, other.standard_error), abs=1e-12)
    assert separable(a, b) == separable(b, a)


@given(pairs, st.randoms())
def test_the_order_of_samples_does_not_matter(rows, random):
    mixed = random.sample(rows, len(rows))
    one, other = difference(*both(rows)), difference(*both(mixed))
    assert (one.mean, one.standard_error, one.dof) == pytest.approx(
        (other.mean, other.standard_error, other.dof), abs=1e-9
    )


@given(pairs, st.lists(st.floats(-2, 2), min_size=20, max_size=20))
def test_what_makes_a_sample_hard_for_both_changes_nothing(rows, hard):
    harder = [(a + h, b + h, tokens) for (a, b, tokens), h in zip(rows, hard, strict=False)]
    one, other = difference(*both(rows)), difference(*both(harder))
    assert (one.mean, one.standard_error) == pytest.approx((other.mean, other.standard_error), abs=1e-9)


def test_an_experiment_is_not_separable_from_itself():
    a = of(1.0, 2.0, 3.0)
    assert difference(a, a) == Difference(0.0, 0.0, pytest.approx(2.0), 3)
    assert not separable(a, a)


def test_a_single_sample_leaves_everything_open():
    assert difference(of(1.0), of(2.0)).standard_error == inf
    assert not separable(of(1.0), of(2.0))
    assert not separable(Losses((1.0, 1.0), (9.0, 0.0)), Losses((2.0, 2.0), (9.0, 0.0)))


def test_one_long_sample_decides_little():
    tokens = (1000.0, 1.0, 1.0, 1.0)
    a, b = Losses((1.0, 1.5, 1.2, 1.3), tokens), Losses((1.4, 1.3, 1.4, 1.2), tokens)
    assert difference(a, b).dof == 1.0
    assert not separable(a, b)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(of(1.0, 2.0), of(1.0))
    with pytest.raises(ValueError, match="diverged"):
        difference(of(1.0, 2.0), of(1.0, nan))
    with pytest.raises(ValueError, match=r"seeds \[1\] and \[2\] have none in common"):
        difference({1: of(1.0, 2.0)}, {2: of(1.0, 2.0)})


def test_samples_without_tokens_do_not_count():
    a, b = Losses((1.0, inf, 2.0), (1.0, 0.0, 1.0)), Losses((1.1, inf, 2.2), (1.0, 0.0, 1.0))
    assert difference(a, b).samples == 2
    assert difference(a, b).mean == pytest.approx(-0.15)


def test_repeats_are_paired_by_seed():
    a = {1: of(1.0, 2.0, 3.0), 2: of(5.0, 6.0, 7.0), 3: of(9.0, 9.0, 9.0)}
    b = {2: of(4.9, 5.8, 6.9), 1: of(0.9, 1.8, 2.9)}
    found = difference(a, b)
    assert found.seeds == 2
    assert found.mean == pytest.approx(0.4 / 3)
    assert found == difference(dict(reversed(a.items())), dict(reversed(b.items())))


def test_seeds_that_disagree_widen_the_interval():
    a, b = of(1.0, 2.0, 3.0, 4.0), of(1.1, 2.1, 3.2, 4.1)
    much = of(0.6, 1.5, 2.6, 3.6)
    one = difference(a, b)
    two = difference({1: a, 2: a}, {1: b, 2: much})
    assert two.standard_error > one.standard_error
    assert two.dof == pytest.approx(1.0, abs=0.1)
    assert one.separable() and not two.separable()


def test_seeds_that_agree_leave_the_samples_noise():
    a, b = of(1.0, 2.0, 3.0, 4.0), of(1.1, 2.1, 3.2, 4.1)
    one, two = difference(a, b), difference({1: a, 2: a}, {1: b, 2: b})
    assert (two.mean, two.standard_error, two.dof) == pytest.approx((one.mean, one.standard_error, one.dof))


def covered(make, true, times=2000):
    """How often the interval of 95 % holds the true difference; chance moves it by half a percent."""
    hits = 0
    for i in range(times):
        low, high = difference(*make(np.random.default_rng([7, i]))).interval()
        hits += low <= true <= high
    return hits / times


@pytest.mark.parametrize(("samples", "spread"), [(8, 0.0), (32, 0.0), (32, 0.6), (100, 0.6), (32, 1.2)])
def test_an_interval_of_95_percent_holds_the_true_difference_in_about_95_of_100(samples, spread):
    def make(rng):
        tokens = tuple(np.ceil(rng.lognormal(4, spread, samples)))
        hard = rng.gamma(4, 0.4, samples)
        noise = rng.normal(0, 1, samples) / np.sqrt(np.array(tokens) / 50)
        return Losses(tuple(hard + 0.1 + noise), tokens), Losses(tuple(hard), tokens)

    assert covered(make, 0.1) == pytest.approx(0.955, abs=0.02)


def test_where_seeds_vary_too_the_interval_still_holds_it():
    def make(rng):
        hard, tokens = rng.gamma(4, 0.4, 32), (1.0,) * 32
        own = rng.normal(0, 0.5, 32)
        repeats = ({}, {})
        for seed in range(4):
            shift = rng.normal(0, 0.05)
            repeats[0][seed] = Losses(tuple(hard + own + shift + rng.normal(0, 0.3, 32)), tokens)
            repeats[1][seed] = Losses(tuple(hard), tokens)
        return repeats

    assert 0.94 <= covered(make, 0.0) <= 0.99


def test_pairing_is_what_makes_it_sharp():
    rng = np.random.default_rng(3)
    hard = rng.gamma(4, 0.4, 64)
    a, b = of(*hard), of(*(hard + rng.normal(0.05, 0.05, 64)))
    unpaired = sqrt(2 * hard.var() / 64)
    assert separable(a, b)
    assert difference(a, b).standard_error < unpaired / 10
