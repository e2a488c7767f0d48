from datetime import timedelta

import pytest

from builders import START, after, make_sweep
from gridsweep.accounting.pieces import Profile
from gridsweep.carbon.traces import HOUR
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Ended, Paused, Pausing, Progressed, Requested, Running, Segment, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint


def running(*members: Member, sweep=None) -> State:
    stint = Stint(members or (Member("e00", 0, 6),))
    return State([Submitted(START, sweep or make_sweep(2)), Requested(START, f"{stint.id}/1", stint, "d0", "")])


def test_a_stint_occupies_its_half_open_window():
    state, executor = running(), Simulated()
    (name,) = state.active
    assert executor.next_end(state) == after(1)
    assert executor.observe(state, after(0.99)) == [Running(START, name)]
    _, progress, end = executor.observe(state, after(1))
    assert progress == Progressed(after(1), name, 1, 6, {}, (Segment(START, after(1), 0.1, "estimated", 6),))
    assert (end.at, end.outcomes[0].status, end.outcomes[0].step) == (after(1), "done", 6)


def test_observing_changes_nothing_and_remembers_nothing():
    state, executor = running(), Simulated()
    assert (
        executor.observe(state, after(1)) == executor.observe(state, after(1)) == Simulated().observe(state, after(1))
    )
    executor.act(state)
    assert executor.next_end(state) == after(1)


def test_an_end_seen_late_is_told_with_its_own_time():
    state = running()
    assert [e.at for e in Simulated().observe(state, after(7))] == [START, after(1), after(1)]


def test_ends_come_in_order():
    slow, quick = Stint((Member("e00", 0, 6),)), Stint((Member("e01", 3, 6),))
    state = State([Submitted(START, make_sweep(2, devices=2))])
    for stint, device in ((slow, "d0"), (quick, "d1")):
        state.apply(Requested(START, f"{stint.id}/1", stint, device, ""))
    ends = [e for e in Simulated().observe(state, after(2)) if isinstance(e, Ended)]
    assert [(e.outcomes[0].experiment, e.at) for e in ends] == [("e01", after(0.5)), ("e00", after(1))]


@pytest.mark.parametrize(("told", "step", "ends"), [(0.0, 0, 0.0), (0.5, 3, 0.5), (0.6, 4, 4 / 6), (0.9, 6, 1.0)])
def test_a_pause_is_heeded_after_the_step_that_had_begun(told, step, ends):
    state, executor = running(), Simulated()
    (name,) = state.active
    state.apply(Pausing(after(told), name, "enough"))
    assert executor.next_end(state) == after(ends)
    end = executor.observe(state, after(ends))[-1]
    assert isinstance(end, Ended if step == 6 else Paused)
    assert (end.at, end.outcomes[0].step) == (after(ends), step)


def test_members_end_at_their_own_steps():
    state = running(Member("e00", 0, 6), Member("e01", 4, 6))
    end = Simulated().observe(state, after(2))[-1]
    assert end.at - START == 8 / 6 * HOUR, "the steps of both, one after another, unless the estimates know better"
    outcomes = end.outcomes
    assert [(o.experiment, o.status, o.step) for o in outcomes] == [("e00", "done", 6), ("e01", "done", 6)]


def test_a_profile_is_replayed_at_its_place():
    profile = Profile(3 * HOUR, ((timedelta(0), HOUR, 0.5), (2 * HOUR, HOUR, 0.25)))
    state = running()
    _, progress, end = Simulated({("e00", 6): profile}).observe(state, after(3))
    assert [(s.start, s.end, s.kwh) for s in progress.energy] == [
        (START, after(1), 0.5),
        (after(2), after(3), 0.25),
    ]
    assert end.at == after(3)


def test_what_took_no_time_ends_at_once():
    state = running()
    assert Simulated({("e00", 6): Profile(timedelta(0), ())}).next_end(state) == START
    assert isinstance(Simulated({("e00", 6): Profile(timedelta(0), ())}).observe(state, START)[-1], Ended)
