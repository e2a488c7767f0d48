import sys
from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import PROJECT
from gridsweep.selection.rank_intervals import Place, best_against_last, places
from gridsweep.sweep.losses import Losses

sys.path.insert(0, str(PROJECT / "benchmarks"))

from rank_agreement import regret_bound, spearman

TOKENS = (30.0, 80.0, 50.0, 120.0)
judged = st.tuples(*[st.floats(0.5, 3.0)] * 4).map(lambda values: Losses(values, TOKENS))
sweeps = st.dictionaries(st.sampled_from("abcdefgh"), st.one_of(st.none(), judged), max_size=8)


def of(*values):
    return Losses(values, (1.0,) * len(values))


HARD = (1.0, 2.0, 0.5, 1.4, 1.1, 0.9)
WIGGLE = (0.00, 0.02, -0.01, 0.01, -0.02, 0.00)


def near(shift, sign=1):
    return of(*(hard + shift + sign * noise for hard, noise in zip(HARD, WIGGLE, strict=True)))


def tied_set(scores, confidence=0.95):
    """The experiments that no other surely beats: with this probability the truly best one is among them."""
    return {place.experiment for place in places(scores, confidence) if place.first == 1}


CLEAR = {"worst": near(0.9), "a": near(0.0), "b": near(0.001, -1), "middle": near(0.4, 0)}


def test_those_that_cannot_be_told_apart_share_their_places():
    assert [(place.experiment, str(place)) for place in places(CLEAR)] == [
        ("a", "1 to 2"),
        ("b", "1 to 2"),
        ("middle", "3"),
        ("worst", "4"),
    ]
    assert tied_set(CLEAR) == {"a", "b"}


def test_a_tie_with_the_middle_does_not_carry_over():
    chain = {"a": near(0.0), "b": near(0.025, -1), "c": near(0.05)}
    assert [str(place) for place in places(chain)] == ["1 to 2", "1 to 3", "2 to 3"]


def test_whoever_diverged_shares_the_last_places():
    found = places({**CLEAR, "nan": of(*[nan] * 6), "none": None, "empty": {}})
    assert [(p.experiment, p.first, p.last) for p in found[-3:]] == [("empty", 5, 7), ("nan", 5, 7), ("none", 5, 7)]
    assert all(isnan(place.loss) for place in found[-3:])


def test_a_single_experiment_is_first():
    assert places({"a": of(1.0, 2.0)}) == [Place("a", 1, 1, 1.5)]
    assert places({}) == []
    assert regret_bound({"a": of(1.0, 2.0)}) == 0.0


@given(sweeps, st.randoms())
def test_the_order_of_experiments_does_not_matter(scores, random):
    mixed = dict(random.sample(list(scores.items()), len(scores)))
    assert repr(places(mixed)) == repr(places(scores))
    assert tied_set(mixed) == tied_set(scores)


@given(sweeps)
def test_every_place_is_held_by_somebody_who_may_have_it(scores):
    found = places(scores)
    assert sorted(place.experiment for place in found) == sorted(scores)
    for i, place in enumerate(sorted(found, key=lambda place: place.first), start=1):
        assert 1 <= place.first <= place.last <= len(scores)
        assert place.first <= i
    assert [p.loss for p in found if not isnan(p.loss)] == sorted(p.loss for p in found if not isnan(p.loss))


@given(sweeps)
def test_the_smallest_loss_is_always_in_the_tied_set(scores):
    found = [place for place in places(scores) if not isnan(place.loss)]
    if found:
        assert found[0].experiment in tied_set(scores)
        assert tied_set(scores, 0.9) <= tied_set(scores, 0.99)
        assert 0 <= regret_bound(scores, 0.9) <= regret_bound(scores, 0.99)


def test_repeats_make_places_honest():
    once = {"a": near(0.0), "b": near(0.1, -1)}
    repeated = {"a": {1: near(0.0), 2: near(0.2)}, "b": {1: near(0.1, -1), 2: near(0.05, -1)}}
    assert tied_set(once) == {"a"}
    assert tied_set(repeated) == {"a", "b"}


def test_the_regret_of_the_winner_is_bounded_by_those_it_is_tied_with():
    assert 0 < regret_bound(CLEAR) < 0.05
    assert regret_bound({"a": near(0.0), "worst": near(0.9)}) == 0.0
    with pytest.raises(ValueError, match="every experiment diverged"):
        regret_bound({"a": None})


def test_ranges_hold_the_true_places_and_the_bound_the_true_regret():
    true = np.array([0.0, 0.01, 0.05, 0.05, 0.2, 0.6])
    places_held = np.zeros(6)
    best_in = regret_held = 0
    for i in range(300):
        rng = np.random.default_rng([11, i])
        hard, tokens = rng.gamma(4, 0.4, 24), tuple(np.ceil(rng.lognormal(4, 0.5, 24)))
        noise = rng.normal(0, 0.15, (6, 24))
        scores = {f"e{j}": Losses(tuple(hard + true[j] + noise[j]), tokens) for j in range(6)}
        found = places(scores)
        for place in found:
            own = true[int(place.experiment[1])]
            # Equal experiments share their true places: it is enough that the range meets them.
            first, last = 1 + (true < own).sum(), (true <= own).sum()
            places_held[int(place.experiment[1])] += place.first <= last and place.last >= first
        best_in += "e0" in tied_set(scores)
        regret_held += true[int(found[0].experiment[1])] <= regret_bound(scores)
    assert min(*places_held, best_in, regret_held) / 300 >= 0.94


def test_a_last_checkpoint_that_is_surely_worse_is_overfitted():
    found = best_against_last({50: near(0.3), 100: near(0.0), 150: near(0.2, -1)})
    assert (found.best, found.last, found.overfitted) == (100, 150, True)
    assert found.difference.mean == pytest.approx(0.2)
    assert found.confidence == pytest.approx(0.975)


def test_a_last_checkpoint_within_the_noise_is_not():
    assert not best_against_last({50: near(0.3), 100: near(0.0), 150: near(0.005, -1)}).overfitted
    assert not best_against_last({100: near(0.0)}).overfitted
    assert best_against_last({50: of(nan, 1.0), 100: of(2.0, 1.0)}).best == 100
    with pytest.raises(ValueError, match="no checkpoint"):
        best_against_last({})


@pytest.mark.parametrize(
    ("a", "b", "known"),
    [
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17], -29 / 165),
        ([1.0, 2.0, inf], [1.0, 3.0, 2.0], 0.5),
    ],
)
def test_spearman_is_that_of_the_textbooks(a, b, known):
    assert spearman(a, b) == pytest.approx(known)


def test_a_side_that_does_not_vary_has_no_correlation():
    assert isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_what_has_no_rank_is_refused():
    with pytest.raises(ValueError, match="NaN has no rank"):
        spearman([1.0, nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="needs pairs"):
        spearman([1.0], [1.0])


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=12), st.randoms())
def test_only_ranks_matter_and_not_the_order_of_pairs(rows, random):
    a, b = zip(*rows, strict=True)
    found = spearman(a, b)
    mixed = spearman(*zip(*random.sample(rows, len(rows)), strict=True))
    grown = spearman([value**3 for value in a], b)
    assert [found, found] == pytest.approx([mixed, grown], nan_ok=True)
    assert isnan(found) or -1 - 1e-9 <= found <= 1 + 1e-9
