"""The grid as a fold: revisions, runs of one provenance, and figures that must not be added up."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import START, after
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.state.events import Observed
from gridsweep.state.observed_grid import Grid

MEASURED = Provenance("a service", "measured", basis="lifecycle")
ESTIMATED = Provenance("a service", "estimated", basis="lifecycle")
MARGINAL = Provenance("another", "measured", kind="marginal")


def fact(start, values, provenance=MEASURED):
    return Observed(START, after(start), HOUR, tuple(values), provenance)


def grid(*facts):
    made = Grid()
    for each in facts:
        made.take(each)
    return made


def known(made):
    return [None if v != v else v for v in made.trace(START).values.tolist()]


def test_a_later_observation_revises_an_earlier_one_and_its_quality():
    made = grid(fact(0, [1, 2, 3], ESTIMATED), fact(1, [20]))
    assert known(made) == [1, 20, 3]
    assert made.of_quality("estimated").values.tolist() == [1, 0, 1]
    assert made.qualities == ("estimated", "measured")


def test_slots_before_the_first_are_put_in_front():
    made = grid(fact(5, [5, 6]), fact(2, [2, 3]))
    assert made.trace(START).start == after(2)
    assert known(made) == [2, 3, None, 5, 6]


def test_figures_of_another_meaning_are_unknown_to_the_sums():
    made = grid(fact(0, [1, 2, 3]), fact(1, [400], MARGINAL))
    assert known(made) == [1, None, 3]
    assert made.foreign == 1


def test_times_of_fetching_do_not_tell_sources_apart():
    early, late = (Provenance("a service", fetched_at=after(h)) for h in (1, 2))
    assert len(grid(fact(0, [1], early), fact(1, [2], late)).provenances) == 1


@given(
    st.lists(
        st.tuples(st.integers(-20, 40), st.lists(st.floats(0, 900), min_size=1, max_size=12), st.booleans()), max_size=8
    ),
    st.integers(-25, 40),
)
def test_its_facts_make_the_same_grid_again(parts, since):
    made = grid(*(fact(start, values, MEASURED if m else ESTIMATED) for start, values, m in parts))
    again = grid(*made.facts(after(since), START))
    whole = made.trace(START).between(after(since), after(99))
    for i in range(len(whole)):
        moment = whole.start + i * HOUR
        np.testing.assert_equal(again.trace(START).at(moment), whole.at(moment))
        for quality in again.qualities:
            assert (again.of_quality(quality).at(moment) == 1) is (made.of_quality(quality).at(moment) == 1)


def test_the_shares_of_qualities_are_taken_slot_by_slot():
    made = grid(fact(0, [1, 1]), fact(2, [1, 1], ESTIMATED))
    assert made.of_quality("estimated").mean(after(1.5), after(2.5)) == pytest.approx(0.5)
    assert made.trace(START).known(after(0), after(9)) == timedelta(hours=4)
