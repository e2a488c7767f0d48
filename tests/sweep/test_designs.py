"""Which points a design trains, and the tier of each."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsweep.sweep.designs import (
    PUBLISHED_RULES,
    PUBLISHED_TIERS,
    Space,
    assign,
    grid,
    one_factor,
    published,
    sample,
)
from gridsweep.sweep.experiments import PARAMS, LoraParams
from gridsweep.sweep.tiers import Condition, Rule

PUBLISHED_TABLE = """
 1  16   32  1e-4  0.10  tier1
 2  16   64  1e-4  0.10  tier1
 3  16  128  1e-4  0.10  tier1
 4  16   32  5e-5  0.10  tier1
 5  16   32  1e-5  0.10  tier1
 6  16   32  1e-4  0.05  tier1
 7  16   32  1e-4  0.15  tier1
 8  16   64  5e-5  0.10  tier1
 9  32   32  1e-4  0.10  tier2
10  32   64  1e-4  0.05  tier2
11  32   64  1e-4  0.10  tier2
12  32   64  5e-5  0.10  tier2
13  32  128  1e-4  0.10  tier3
14  32   64  1e-5  0.10  tier3
15  32   64  1e-4  0.15  tier3
16  32  128  5e-5  0.10  tier3
17  32  128  1e-4  0.05  tier3
18  32  128  1e-4  0.15  tier3
19  32   32  1e-4  0.15  tier3
20  32  128  1e-5  0.10  tier3
21  32   32  5e-5  0.15  tier3
"""

FULL = Space((16, 32), (32.0, 64.0, 128.0), (1e-4, 5e-5, 1e-5), (0.05, 0.1, 0.15))


def tier_of(params: LoraParams) -> str:
    rule = assign(params, PUBLISHED_RULES)
    assert rule is not None
    return rule.tier


def test_the_published_design_is_the_published_table() -> None:
    rows = [line.split() for line in PUBLISHED_TABLE.strip().splitlines()]
    expected = [(LoraParams(int(r), float(a), float(lr), float(d)), tier) for _, r, a, lr, d, tier in rows]
    assert [(params, tier_of(params)) for params in published()] == expected
    assert len(set(published())) == 21


def test_the_published_tiers() -> None:
    facts = [(t.name, t.threshold, t.max_delay, t.rank) for t in PUBLISHED_TIERS]
    assert facts == [
        ("tier1", 225.0, timedelta(hours=24), 1),
        ("tier2", 175.0, timedelta(hours=48), 2),
        ("tier3", 125.0, timedelta(hours=96), 3),
    ]


@pytest.mark.parametrize(
    ("alphas", "split"),
    [((32.0, 64.0, 128.0), (27, 8, 19)), ((16.0, 32.0, 64.0), (27, 12, 15))],
)
def test_the_published_rules_split_the_full_grid_as_published(alphas: tuple[float, ...], split: object) -> None:
    points = grid(Space(FULL.r, alphas, FULL.lr, FULL.dropout))
    counts = Counter(map(tier_of, points))
    assert (counts["tier1"], counts["tier2"], counts["tier3"]) == split


@given(st.builds(LoraParams, st.integers(1, 64), st.floats(1, 256), st.floats(1e-6, 1e-3), st.floats(0, 0.5)))
def test_the_published_rules_are_the_published_rule_in_code(params: LoraParams) -> None:
    if params.r == 16:
        tier = "tier1"
    elif params.r == 32 and (params.alpha == 128 or params.dropout >= 0.15 or params.lr <= 1e-5):
        tier = "tier3"
    else:
        tier = "tier2"
    assert tier_of(params) == tier


def test_the_first_rule_that_holds_decides_and_says_why() -> None:
    rule = assign(LoraParams(32, 128.0, 1e-5, 0.2), PUBLISHED_RULES)
    assert rule is not None and rule.reason == "r == 32 and alpha == 128"
    rule = assign(LoraParams(8, 8.0, 1e-4, 0.0), PUBLISHED_RULES)
    assert rule is not None and rule.reason == "no other rule matched"


def test_no_rule_may_hold() -> None:
    assert assign(LoraParams(8, 8.0, 1e-4, 0.0), [Rule("a", (Condition("r", ">", 8),))]) is None


def test_a_grid_has_every_combination_once_the_last_axis_fastest() -> None:
    points = grid(FULL)
    assert len(points) == len(set(points)) == FULL.size == 54
    assert [p.dropout for p in points[:4]] == [0.05, 0.1, 0.15, 0.05]


def test_one_factor_varies_each_axis_alone_after_the_baseline() -> None:
    baseline = LoraParams(16, 32.0, 1e-4, 0.1)
    points = one_factor(FULL, baseline)
    assert points[0] == baseline and len(points) == len(set(points)) == 8
    for point in points[1:]:
        assert sum(getattr(point, p) != getattr(baseline, p) for p in PARAMS) == 1


axes = st.builds(
    Space,
    st.lists(st.sampled_from([8, 16, 32, 64]), min_size=1, unique=True).map(tuple),
    st.lists(st.sampled_from([16.0, 32.0, 64.0, 128.0]), min_size=1, unique=True).map(tuple),
    st.lists(st.sampled_from([1e-4, 5e-5, 1e-5]), min_size=1, unique=True).map(tuple),
    st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.15]), min_size=1, unique=True).map(tuple),
)


@settings(deadline=None)
@given(axes, st.data(), st.integers(0, 99))
def test_a_sample_gives_each_tier_its_share_to_within_one(space: Space, data: st.DataObject, seed: int) -> None:
    n = data.draw(st.integers(0, space.size))
    drawn = sample(space, n, seed, tier_of)
    assert len(drawn) == len(set(drawn)) == n and set(drawn) <= set(grid(space))
    shares, counts = Counter(map(tier_of, grid(space))), Counter(map(tier_of, drawn))
    for tier, points in shares.items():
        assert abs(counts[tier] - Fraction(n * points, space.size)) < 1


@settings(deadline=None)
@given(axes, st.data(), st.integers(0, 99))
def test_a_sample_does_not_depend_on_the_order_of_the_axes(space: Space, data: st.DataObject, seed: int) -> None:
    n = data.draw(st.integers(0, space.size))
    shuffled = Space(*(tuple(data.draw(st.permutations(space.axis(param)))) for param in PARAMS))  # type: ignore[arg-type]
    assert sample(shuffled, n, seed, tier_of) == sample(space, n, seed, tier_of)


def test_a_sample_of_twenty_of_the_published_grid_is_proportional() -> None:
    drawn = sample(FULL, 20, 42, tier_of)
    assert Counter(map(tier_of, drawn)) == {"tier1": 10, "tier2": 3, "tier3": 7}
    assert drawn != sample(FULL, 20, 43, tier_of)


def test_a_sample_of_one_tier_is_as_large_as_asked() -> None:
    only_16 = Space((16,), FULL.alpha, FULL.lr, FULL.dropout)
    assert len(sample(only_16, 12, 42, tier_of)) == 12


def test_more_than_the_grid_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="cannot draw 55 points from a grid of 54"):
        sample(FULL, 55, 42, tier_of)
