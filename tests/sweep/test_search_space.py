import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.sweep.designs import published
from gridsweep.sweep.experiments import LoraParams
from gridsweep.sweep.search_space import Alike, edges, effective_step, near_duplicates

WINNER = LoraParams(32, 128.0, 1e-4, 0.05)

points = st.builds(
    LoraParams,
    st.sampled_from([1, 4, 8, 15, 16, 32]),
    st.one_of(st.sampled_from([16.0, 32.0, 64.0]), st.floats(1, 256)),
    st.one_of(st.sampled_from([1e-5, 5e-5, 1e-4]), st.floats(1e-6, 1e-2)),
    st.sampled_from([0.0, 0.05, 0.1, 0.5]),
)
spaces = st.lists(points, min_size=1, max_size=12)


def test_the_published_winner_sits_in_a_corner():
    assert [str(edge) for edge in edges(WINNER, published())] == [
        "r 32 is the largest r tried: 64 may be better",
        "alpha 128 is the largest alpha tried: 256 may be better",
        "lr 1e-4 is the largest lr tried: 2e-4 may be better",
        "dropout 0.05 is the smallest dropout tried: 0 may be better",
    ]


def test_a_winner_inside_has_no_edge():
    tried = [LoraParams(r, 64.0, lr, d) for r in (8, 16, 32) for lr in (1e-5, 5e-5, 1e-4) for d in (0.0, 0.1, 0.2)]
    assert edges(LoraParams(16, 64.0, 5e-5, 0.1), tried) == []


def test_the_smallest_goes_on_by_its_own_factor():
    found = edges(LoraParams(16, 32.0, 1e-5, 0.15), published())
    assert [(edge.param, edge.side, edge.beyond) for edge in found] == [
        ("r", "smallest", 8.0),
        ("alpha", "smallest", 16.0),
        ("lr", "smallest", 2e-6),
        ("dropout", "largest", 0.2),
    ]


def test_where_a_parameter_ends_there_is_no_edge():
    tried = [LoraParams(1, 8.0, 1e-4, 0.0), LoraParams(2, 8.0, 1e-4, 0.6), LoraParams(2, 8.0, 1e-4, 0.1)]
    assert [edge.param for edge in edges(tried[0], tried)] == []
    assert [edge.param for edge in edges(tried[1], tried)] == ["r"]


def test_between_values_that_hardly_differ_nothing_is_rounded_away():
    tried = [LoraParams(8, 8.0, 1e-4, 0.0), LoraParams(8, 8.0, 1.0001e-4, 0.0)]
    assert edges(tried[1], tried)[0].beyond > 1.0001e-4
    closer = [LoraParams(8, 1.0, 1e-4, 0.0), LoraParams(8, 1.0 + 2**-52, 1e-4, 0.0)]
    assert all(edge.beyond > closer[1].alpha for edge in edges(closer[1], closer))


def test_a_dropout_goes_down_to_nothing():
    tried = [LoraParams(8, 8.0, 1e-4, 0.03), LoraParams(8, 8.0, 1e-4, 0.1)]
    assert [edge.beyond for edge in edges(tried[0], tried)] == [0.0]


@given(spaces, st.data())
def test_what_lies_beyond_was_not_tried_and_changes_one_parameter(tried, data):
    winner = data.draw(st.sampled_from(tried))
    for edge in edges(winner, tried):
        axis = [getattr(params, edge.param) for params in tried]
        further = edge.applied(winner)
        value = getattr(further, edge.param)
        assert value > max(axis) if edge.side == "largest" else value < min(axis)
        changed = [name for name in LoraParams.__slots__ if getattr(further, name) != getattr(winner, name)]
        assert changed == [edge.param]
        assert further.r >= 1 and further.lr > 0 and further.alpha > 0 and 0 <= further.dropout < 1


@given(spaces, st.data())
def test_the_order_of_what_was_tried_does_not_matter(tried, data):
    winner = data.draw(st.sampled_from(tried))
    mixed = data.draw(st.permutations(tried))
    assert edges(winner, mixed) == edges(winner, tried)
    assert near_duplicates(mixed) == near_duplicates(tried)


def test_the_published_sweep_tries_one_effective_step_several_times():
    found = near_duplicates(published())
    assert [len(group.points) for group in found] == [2, 3, 2, 4, 2, 2]
    assert str(found[3]) == (
        "r=16 alpha=32 lr=1e-4, r=16 alpha=64 lr=5e-5, r=32 alpha=64 lr=1e-4 and r=32 alpha=128 lr=5e-5 "
        "nearly coincide at dropout 0.1: lr x alpha / r is 2e-4"
    )
    assert [len(group.points) for group in near_duplicates(published(), same_rank=True)] == [2, 2, 2]


def test_a_group_of_unequal_steps_says_from_where_to_where():
    group = Alike((LoraParams(8, 8.0, 1e-4, 0.0), LoraParams(8, 8.0, 1.05e-4, 0.0)))
    assert str(group).endswith("lr x alpha / r is 1e-4 to 1.05e-4")


def test_equal_ranks_only_where_asked():
    a, b, c = LoraParams(16, 32.0, 1e-4, 0.1), LoraParams(16, 64.0, 5e-5, 0.1), LoraParams(32, 64.0, 1e-4, 0.1)
    assert [set(group.points) for group in near_duplicates([a, b, c])] == [{a, b, c}]
    assert [set(group.points) for group in near_duplicates([a, b, c], same_rank=True)] == [{a, b}]


def test_another_dropout_is_another_point():
    assert near_duplicates([LoraParams(16, 32.0, 1e-4, 0.1), LoraParams(16, 64.0, 5e-5, 0.05)]) == []


def test_a_repeat_is_no_duplicate():
    assert near_duplicates([LoraParams(16, 32.0, 1e-4, 0.1)] * 3) == []


def test_a_group_does_not_creep_along_the_axis():
    axis = [LoraParams(10, 10.0, lr, 0.0) for lr in (1.0e-4, 1.08e-4, 1.16e-4, 1.24e-4)]
    assert near_duplicates(axis) == [Alike((axis[0], axis[1])), Alike((axis[2], axis[3]))]
    assert near_duplicates(axis, factor=1.0) == []
    assert near_duplicates(axis, factor=2.0) == [Alike(tuple(axis))]
    with pytest.raises(ValueError, match="give 1 or more"):
        near_duplicates(axis, factor=0.9)


@given(spaces, st.floats(1.0, 3.0), st.booleans())
def test_groups_hold_what_lies_within_the_factor_and_no_point_twice(tried, factor, same_rank):
    found = near_duplicates(tried, factor, same_rank=same_rank)
    named = [point for group in found for point in group.points]
    assert len(named) == len(set(named)) and set(named) <= set(tried)
    for group in found:
        found_steps = [effective_step(point) for point in group.points]
        assert found_steps == sorted(found_steps)
        assert found_steps[-1] <= found_steps[0] * factor * (1 + 1e-8)
        assert len({point.dropout for point in group.points}) == 1
        assert not same_rank or len({point.r for point in group.points}) == 1


def test_a_value_beyond_is_no_further_than_a_factor_of_ten():
    tried = [LoraParams(8, 8.0, lr, 0.0) for lr in (1e-12, 1e-2)]
    assert [edges(one, tried)[0].beyond for one in tried] == [1e-13, 0.1]
