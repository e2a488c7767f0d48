"""What a run says as it goes: one line an event, and a count that rises with each experiment that ends."""

from __future__ import annotations

import re

from builders import START as AT
from builders import make_sweep
from gridsweep.render.progress import lines
from gridsweep.state.events import Ended, Event, Lost, Ranked, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Outcome, Stint


def running(*stints: tuple[str, ...]) -> State:
    """Four experiments, of which each stint given is on a device; an attempt is called as its first member."""
    state = State([Submitted(AT, make_sweep(4))])
    for members in stints:
        stint = Stint(tuple(Member(id, 0, 6) for id in members))
        state.apply(Requested(AT, members[0], stint, "d0", "at once"))
    return state


def done(*ids: str) -> Ended:
    return Ended(AT, ids[0], tuple(Outcome(id, "done", 6, validation_loss=1.0) for id in ids))


def counts(state: State, *events: Event) -> list[str]:
    """The counts in the lines of one look at the world."""
    for event in events:
        state.apply(event)
    return re.findall(r"\[\d+/\d+\]", "\n".join(lines(state, events)))


def test_experiments_that_end_together_are_counted_one_by_one():
    state = running(("e00", "e01"), ("e02",))
    assert counts(state, done("e00", "e01"), done("e02")) == ["[1/4]", "[2/4]", "[3/4]"]


def test_the_count_goes_on_where_an_earlier_look_left_off():
    state = running(("e00",), ("e01", "e02"))
    assert counts(state, done("e00")) == ["[1/4]"]
    assert counts(state, done("e01", "e02")) == ["[2/4]", "[3/4]"]


def test_an_experiment_stopped_at_a_rung_counts_between_two_ends():
    state = running(("e00",), ("e02",))
    stopped = Ranked(AT, 2, ("e03",), "behind", kept=("e01",))
    assert counts(state, done("e00"), stopped, done("e02")) == ["[1/4]", "[3/4]"]


def test_an_experiment_that_reached_a_rung_has_not_ended():
    state = running(("e00",), ("e01",))
    reached = Ended(AT, "e00", (Outcome("e00", "reached", 2),))
    assert counts(state, reached, done("e01")) == ["[1/4]"]


def test_an_experiment_given_up_after_lost_attempts_counts():
    state = running(("e00",), ("e01",))
    state.standings["e00"].fruitless = 2
    assert counts(state, Lost(AT, "e00", "gone"), done("e01")) == ["[2/4]"]
    assert state.standings["e00"].status == "failed"
