import gc
import weakref

import pytest

from builders import START, make_sweep
from gridsweep.schedule.memo import kept_until
from gridsweep.state.events import Stopping, Submitted
from gridsweep.state.state import State


@pytest.fixture
def asked():
    """A function of a state that is kept until what waits changes, and how often it was really called."""
    calls = []

    @kept_until("work")
    def derived(state, *args):
        calls.append(args)
        return [len(state.standings), *args]

    return derived, calls


def submitted(experiments=2):
    return State([Submitted(START, make_sweep(experiments))])


def test_a_value_is_derived_once_until_what_it_depends_on_changes(asked):
    derived, calls = asked
    state = submitted()
    assert derived(state) is derived(state)
    state.apply(Stopping(START, "asked to"))
    assert derived(state) == [2] and len(calls) == 1
    state.apply(Submitted(START, make_sweep(3)))
    assert derived(state) == [3] and len(calls) == 2


def test_states_and_arguments_are_told_apart(asked):
    derived, calls = asked
    one, other = submitted(2), submitted(3)
    assert (derived(one), derived(other), derived(one)) == ([2], [3], [2])
    assert (derived(one, 7), derived(one, 8), derived(one, 8)) == ([2, 7], [2, 8], [2, 8])
    assert calls == [(), (), (7,), (8,)]


def test_a_value_is_forgotten_with_its_state(asked):
    derived, _ = asked
    state = submitted()
    derived(state)
    gone = weakref.ref(state)
    del state
    gc.collect()
    assert gone() is None
