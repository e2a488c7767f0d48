"""The space: relations, ranges, exclusions, and what is drawn of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.sweep.designs import drawn, grid, one_factor
from gridsweep.sweep.space import Range, Relation, Space
from gridsweep.sweep.tiers import Condition

LISTS = Space((8, 16), (Relation(1, "r"), Relation(2, "r")), (1e-4, 1e-3), (0.0,))


def test_a_relation_follows_its_axis_and_what_coincides_is_one_point():
    assert [(p.r, p.alpha) for p in grid(LISTS)[::2]] == [(8, 8.0), (8, 16.0), (16, 16.0), (16, 32.0)]
    twice = Space((8, 16), (16.0, Relation(2, "r")), (1e-4,), (0.0,))
    assert [(p.r, p.alpha) for p in grid(twice)] == [(8, 16.0), (16, 16.0), (16, 32.0)]


def test_excluded_points_are_not_tried():
    space = Space(
        (8, 16), (32.0,), (1e-4, 1e-3), (0.0,), exclude=((Condition("r", "==", 16), Condition("lr", ">=", 1e-3)),)
    )
    assert [(p.r, p.lr) for p in grid(space)] == [(8, 1e-4), (8, 1e-3), (16, 1e-4)]


def test_one_factor_goes_on_following_a_relation():
    points = one_factor(LISTS, LISTS.first)
    assert [(p.r, p.alpha, p.lr) for p in points] == [
        (8, 8.0, 1e-4), (16, 16.0, 1e-4), (8, 16.0, 1e-4), (8, 8.0, 1e-3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Space((Relation(0.5, "alpha"),), (5.0,), (1e-4,), (0.0,)), "r is 0.5[*]alpha, which is 2.5 where alpha is 5"),
        (Space((Relation(1, "alpha"),), (Relation(1, "r"),), (1e-4,), (0.0,)), "is no number that is given by itself"),
        (Space((8,), (Relation(2, "steps"),), (1e-4,), (0.0,)), "alpha is 2[*]steps, but steps is no number"),
        (Space((8,), (8.0,), Range("uniform", 0.1, 0.2), (0.0,)), "lr is a range"),
    ],
)
def test_what_cannot_be_resolved_says_why(space, told):
    with pytest.raises(ValueError, match=told):
        grid(space)


RANGES = Space(
    (8, 16, 32), (Relation(2, "r"),), Range("log_uniform", 1e-5, 1e-3), Range("uniform", 0.0, 0.2),
    (("batch_size", Range("int", 1, 8)), ("learning_rate_schedule", ("cosine", "linear"))),
)  # fmt: skip


@given(st.integers(1, 40), st.integers(0, 99), st.sampled_from(["sobol", "random"]))
def test_drawn_points_are_distinct_within_their_ranges_and_always_the_same(n, seed, method):
    points = drawn(RANGES, n, seed, method)
    assert len(set(points)) == n and points == drawn(RANGES, n, seed, method)
    assert points[: n // 2] == drawn(RANGES, n // 2, seed, method)  # more points are the same and others
    for p in points:
        assert p.r in (8, 16, 32) and p.alpha == 2 * p.r
        assert 1e-5 <= p.lr <= 1e-3 and 0 <= p.dropout <= 0.2
        assert 1 <= p.value("batch_size") <= 8 and p.value("learning_rate_schedule") in ("cosine", "linear")


def test_sobol_points_spread_over_each_axis_and_orders_of_magnitude_alike():
    points = drawn(RANGES, 32, 7, "sobol")
    assert [sum(1e-5 * 10 ** (k / 2) <= p.lr < 1e-5 * 10 ** ((k + 1) / 2) for p in points) for k in range(4)] == [8] * 4
    assert [sum(p.value("batch_size") == n for p in points) for n in range(1, 9)] == [4] * 8


def test_a_space_with_too_few_points_says_so():
    with pytest.raises(ValueError, match=r"too few points: of 300 drawn, 2 differ"):
        drawn(Space((8, 16), (8.0,), (1e-4,), (0.0,)), 3, 1, "sobol")


def test_a_drawing_does_not_depend_on_the_version():
    """Ids follow from what is drawn: this never changes."""
    assert [(p.r, p.lr, p.value("batch_size")) for p in drawn(RANGES, 3, 42, "sobol")] == PINNED


PINNED = [(8, 0.000933, 5), (16, 9.33e-05, 1), (32, 0.000295, 3)]
