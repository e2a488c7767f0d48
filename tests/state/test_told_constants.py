"""What the submission and the attempts tell of the constants, and what becomes of a difference."""

from builders import START, make_sweep
from gridsweep.state.events import Fingerprinted, Halted, Lost, Requested, Resumed, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint


def told(*events):
    return State([Submitted(START, make_sweep(3), encoding=2), *events]).constants


def test_a_sweep_submitted_before_there_were_versions_has_the_first_reading():
    assert State([Submitted(START, make_sweep(1))]).constants.encoding == 1
    assert told().encoding == 2


def test_what_is_missing_is_told_by_the_first_attempt():
    found = told(Fingerprinted(START, {"tokenizer": "t"}, "submission", ("training data",)))
    assert found.missing == ("training data",) and found.things == {"tokenizer": "t"}
    found.take(Fingerprinted(START, {"training data": "d", "dtype": "float32"}, "s-1/1"))
    assert found.missing == () and found.refusal == ""
    assert found.things == {"tokenizer": "t", "training data": "d", "dtype": "float32"}


def test_two_attempts_side_by_side_that_differ_are_refused_and_the_first_stays():
    found = told(
        Fingerprinted(START, {"dtype": "float32"}, "s-1/1"), Fingerprinted(START, {"dtype": "bfloat16"}, "s-2/1")
    )
    assert found.refusal == "two attempts do not train the same: the dtype was float32 and is now bfloat16"
    assert found.things == {"dtype": "float32"}


def test_a_refused_attempt_counts_against_no_experiment_and_a_new_run_begins_afresh():
    sweep = make_sweep(2)
    state = State([Submitted(START, sweep), Requested(START, "s/1", Stint((Member("e00", 0, 6),)), "d0", "")])
    state.apply(Lost(START, "s/1", "the data have no answers", refused=True))
    assert state.constants.refusal == "the data have no answers"
    assert (state.standings["e00"].status, state.standings["e00"].fruitless) == ("waiting", 0)
    state.apply(Halted(START, "the data have no answers", refused=True))
    assert state.refused and state.finished
    state.apply(Resumed(START, 2, sweep))
    assert not (state.refused or state.halted or state.constants.refusal)
