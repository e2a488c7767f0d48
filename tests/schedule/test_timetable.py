"""Where attempts stand in grid time by the steps they have reported, and how far the sweep's time may move."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import START, after, make_sweep
from gridsweep.carbon.traces import HOUR
from gridsweep.schedule.pace import scale, spread
from gridsweep.schedule.timetable import LOADING, SCORING, next_moment, reached, timetable
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Event, Progressed, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import RESTART, Device, Member, Stint
from gridsweep.sweep.sweep import Estimates, Replay

AUTO = Replay(START, "auto")
SWEEP = make_sweep(4, steps=10, devices=(Device("d0"), Device("d1", speed=2.0)), hours=2.0, replay=AUTO)


def begun(*members: Member, device: str = "d0", sweep=SWEEP) -> State:
    state = State([Submitted(START, sweep)])
    state.apply(Requested(START, "s/1", Stint(members), device, ""))
    return state


def told(state: State, step: int, over_at: datetime | None = None, attempt: str = "s/1") -> None:
    """A worker's report of a step; the first one says that it is loaded."""
    if state.attempts[attempt].running_at is None:
        state.apply(Running(state.attempts[attempt].requested_at, attempt))
    seq = state.attempts[attempt].seq + 1
    state.apply(Progressed(START, attempt, seq, step, over_at=over_at))


def test_an_attempt_loads_makes_its_steps_and_is_scored_in_its_estimate():
    state = begun(Member("e00", 0, 10))
    table = timetable(state, state.attempts["s/1"])
    assert (table.start, table.end) == (START, after(2))
    assert table.at(0) == table.ready == START + 2 * HOUR * LOADING
    assert table.at(10) == table.trained == after(2) - 2 * HOUR * SCORING
    assert table.at(5) == after(1)
    assert table.end_at(10) == after(2)


def test_steps_beyond_the_last_take_as_long_as_the_others():
    state = begun(Member("e00", 0, 10))
    table = timetable(state, state.attempts["s/1"])
    assert table.at(20) - table.at(10) == table.at(10) - table.at(0)
    assert table.end_at(20) == after(2) + (table.at(10) - table.at(0))


@pytest.mark.parametrize(
    ("members", "device", "hours"),
    [
        ([Member("e00", 0, 10)], "d0", 2.0),
        ([Member("e00", 0, 10)], "d1", 1.0),
        ([Member("e00", 0, 5)], "d0", 1.1),  # a rung, where it is judged for a twentieth of its run
        ([Member("e00", 0, 5), Member("e01", 0, 5)], "d0", 2.2 * 0.8),  # a pack of two, in 0.8 of the time
        ([Member("e00", 5, 10)], "d0", 1.0 + RESTART / HOUR),
    ],
)
def test_it_takes_what_the_simulated_executor_takes(members, device, hours):
    estimates = Estimates(2 * HOUR, 100.0, packed=((1, 1.0), (2, 0.8)), evaluation=0.05)
    sweep = replace(SWEEP, rungs=Rungs((0.5,), (2,)), estimates=estimates)
    state = begun(*members, device=device, sweep=sweep)
    end = timetable(state, state.attempts["s/1"]).end
    assert end == Simulated(restart=RESTART).next_end(state)
    assert (end - START) / HOUR == pytest.approx(hours)


def test_a_worker_stands_at_its_start_until_it_is_loaded_and_then_at_its_last_step():
    state = begun(Member("e00", 0, 10))
    attempt = state.attempts["s/1"]
    assert reached(state, attempt) == START
    told(state, 0)
    assert reached(state, attempt) == START + 0.1 * HOUR
    told(state, 5)
    assert reached(state, attempt) == after(1)
    told(state, 10)
    assert reached(state, attempt) == after(1.9)  # not the end: it is yet to be scored
    told(state, 10, after(2))
    assert reached(state, attempt) == after(2)


def test_time_waits_until_all_are_beyond_the_next_wake_up():
    state = begun(Member("e00", 0, 10))
    state.apply(Requested(START, "t/1", Stint((Member("e01", 0, 10),)), "d1", ""))
    told(state, 4)
    assert next_moment(state, after(0.5)) is None  # the other is not loaded
    told(state, 1, attempt="t/1")
    assert next_moment(state, after(0.5)) is None
    told(state, 5, attempt="t/1")
    assert next_moment(state, after(0.5)) is None  # at the moment, not beyond: it may end there
    told(state, 6, attempt="t/1")
    assert next_moment(state, after(0.5)) == after(0.5)
    assert next_moment(state, after(0.9)) is None


def test_an_end_comes_when_all_others_are_beyond_it():
    state = begun(Member("e00", 0, 10))
    state.apply(Requested(START, "t/1", Stint((Member("e01", 0, 10),)), "d1", ""))
    told(state, 10, after(2))  # the slow device's worker was the faster one
    told(state, 2, attempt="t/1")
    assert next_moment(state, after(3)) is None
    told(state, 10, after(1), attempt="t/1")
    assert next_moment(state, after(3)) == after(1)
    assert next_moment(state, after(0.5)) == after(0.5)


def test_while_nothing_runs_time_jumps():
    assert next_moment(State([Submitted(START, SWEEP)]), after(7)) == after(7)


@given(st.lists(st.integers(0, 10), min_size=2, max_size=2), st.integers(0, 240))
def test_no_attempt_can_end_before_a_moment_that_has_come(steps, minutes):
    state = begun(Member("e00", 0, 10))
    state.apply(Requested(START, "t/1", Stint((Member("e01", 0, 10),)), "d1", ""))
    for attempt, step in zip(("s/1", "t/1"), steps, strict=True):
        told(state, step, attempt=attempt)
    moment = next_moment(state, START + timedelta(minutes=minutes))
    if moment is not None:
        for attempt in state.active.values():
            assert timetable(state, attempt).at(attempt.step) > moment


def test_nothing_measured_teaches_how_long_stints_take():
    state = begun(Member("e00", 0, 10))
    told(state, 1)
    told(state, 9)
    assert scale(state) == 1.0 and spread(state) == 0.0


def test_a_journal_of_before_is_read_as_it_was():
    from typing import Annotated

    from pydantic import Field

    from gridsweep.records import codec

    text = '{"at":"2024-06-10T00:00:00Z","attempt":"s/1","seq":1,"step":2,"kind":"Progressed"}'
    event = codec.loads(Annotated[Event, Field(discriminator="kind")], text)  # type: ignore[arg-type]
    assert event == Progressed(START, "s/1", 1, 2)
    assert codec.loads(Replay, '{"start":"2024-06-10T00:00:00Z","speed":300.0}') == Replay(START, 300.0)
    assert codec.loads(Replay, codec.dumps(AUTO)) == AUTO
