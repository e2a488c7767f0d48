import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import START, after, grid, make_sweep
from gridsweep.carbon.traces import HOUR
from gridsweep.runs.worlds import Live, Replayed
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import ClockAnchored, Ended, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Outcome, Stint
from gridsweep.sweep.sweep import Replay

SECOND = timedelta(seconds=1)


class Crew:
    """Workers by hand: who lives, whether somebody has ended, and when one last wrote."""

    def __init__(self, living: bool = True, ended: bool = False, sign: datetime | None = None):
        self.living, self.ended, self.sign = living, ended, sign

    def observe(self, state, now):
        return ()

    def act(self, state):
        pass

    def changed(self, state):
        return self.ended

    def alive(self, state):
        return self.living

    def last_sign(self, state):
        return self.sign


def waiting() -> State:
    return State([Submitted(START, make_sweep(1))])


def working(*more) -> State:
    stint = Stint((Member("e00", 0, 6),))
    return State([Submitted(START, make_sweep(1)), *more, Requested(START, "s/1", stint, "d0", "")])


def replayed(crew: Crew | None = None, speed: float = 3600.0) -> Replayed:
    return Replayed(Replay(START, speed), grid(1), crew or Crew())


def folded(world, state: State) -> list[ClockAnchored]:
    events = list(world.clock(state))
    for event in events:
        state.apply(event)
    return events


# Virtual


def test_virtual_time_jumps_to_the_earlier_of_the_two():
    world = Virtual(START, grid(1), Simulated())
    world.wait(after(0.5), waiting())
    assert world.now() == after(0.5)
    world.wait(after(9), working())
    assert world.now() == after(1)  # the worker's end
    world.wait(after(0.2), working())
    assert world.now() == after(1)  # never back
    assert world.clock(working()) == ()


# Live


def test_live_time_is_the_wall_clock():
    assert abs(Live(grid(1), Crew()).now() - datetime.now(UTC)) < SECOND


def test_a_wait_ends_when_it_is_time():
    world = Live(grid(1), Crew())
    begun = time.monotonic()
    world.wait(world.now() + 0.3 * SECOND, working())
    assert 0.25 < time.monotonic() - begun < 2


def test_a_wait_for_the_past_does_not_wait():
    begun = time.monotonic()
    Live(grid(1), Crew()).wait(START, working())
    assert time.monotonic() - begun < 0.2


def test_a_wait_ends_when_a_worker_ends():
    crew = Crew()
    world = Live(grid(1), crew)
    threading.Timer(0.1, setattr, (crew, "ended", True)).start()
    begun = time.monotonic()
    world.wait(world.now() + 30 * SECOND, working())
    assert time.monotonic() - begun < 5


def test_a_wait_ends_when_it_is_interrupted_and_the_next_one_does_not():
    interrupt = threading.Event()
    world = Live(grid(1), Crew(), interrupt)
    threading.Timer(0.1, interrupt.set).start()
    begun = time.monotonic()
    world.wait(world.now() + 30 * SECOND, working())
    assert time.monotonic() - begun < 5
    begun = time.monotonic()
    world.wait(world.now() + 0.3 * SECOND, working())  # the workers are saving: no busy loop
    assert time.monotonic() - begun > 0.25


class Shifted(Live):
    """A machine whose clock is set by hand."""

    offset = timedelta(days=1)

    def wall_minus_boot(self) -> timedelta:
        return self.offset


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, 0), (59, 0), (-59, 0), (61, 1), (-3600, 1), (7200, 1), (-7200, 1), (315_360_000, 1)]
)
def test_a_jump_of_the_wall_clock_is_told_once(seconds, told):
    world = Shifted(grid(1), Crew())
    assert world.clock(working()) == ()
    world.offset += timedelta(seconds=seconds)
    events = world.clock(working())
    assert [event.why for event in events] == [f"the wall clock jumped by {seconds:+.0f} s"] * told
    assert all(event.speed == 1.0 and event.at == event.wall for event in events)
    assert world.clock(working()) == ()


def test_slow_drift_is_no_jump():
    world = Shifted(grid(1), Crew())
    for _ in range(10):
        world.offset += 30 * SECOND
        assert world.clock(working()) == ()


# Replayed


def test_a_replay_begins_at_its_start_and_stands_still():
    world, state = replayed(), waiting()
    (anchor,) = folded(world, state)
    assert (anchor.at, anchor.speed, anchor.why) == (START, 0.0, "start")
    time.sleep(0.02)
    assert world.now() == START and folded(world, state) == []


def test_while_nothing_runs_it_jumps():
    world, state = replayed(), waiting()
    folded(world, state)
    begun = time.monotonic()
    world.wait(after(5), state)
    (anchor,) = folded(world, state)
    assert (anchor.at, anchor.speed, anchor.why, world.now()) == (after(5), 0.0, "jump", after(5))
    assert time.monotonic() - begun < 1


def test_while_somebody_works_it_runs():
    world = replayed()
    state = waiting()
    folded(world, state)
    state.apply(Requested(START, "s/1", Stint((Member("e00", 0, 6),)), "d0", ""))
    (anchor,) = folded(world, state)
    assert (anchor.at, anchor.speed, anchor.why) == (START, 3600.0, "start of work")
    time.sleep(0.1)
    assert after(0.1) <= world.now() <= after(2)
    state.apply(Ended(world.now(), "s/1", (Outcome("e00", "done", 6),)))
    (anchor,) = folded(world, state)
    assert anchor.speed == 0.0 and anchor.why == "end of work"
    assert world.now() == anchor.at


def test_a_wait_is_shorter_on_a_faster_clock():
    world, state = replayed(), working()
    folded(world, state)
    begun = time.monotonic()
    world.wait(world.now() + 0.2 * HOUR, state)
    assert 0.1 < time.monotonic() - begun < 1


def long_ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def crashed(ago: float = 100.0) -> State:
    """Work was begun so many seconds ago, with the grid at 2 h after START; then the loop was killed."""
    wall = long_ago(ago)
    return working(ClockAnchored(START, wall, 0.0, "start"), ClockAnchored(after(2), wall, 3600.0, "start of work"))


def test_after_a_crash_time_has_gone_on_while_a_worker_lives():
    state = crashed(ago=3.0)
    (anchor,) = folded(replayed(Crew(living=True)), state)
    assert anchor.why == "resume" and anchor.speed == 3600.0
    assert after(5) <= anchor.at <= after(6)


def test_after_a_crash_time_has_stood_still_since_the_last_sign_of_life():
    state = crashed(ago=100.0)
    sign = state.anchors[-1].wall + 1.5 * SECOND
    (anchor,) = folded(replayed(Crew(living=False, sign=sign)), state)
    assert (anchor.at, anchor.speed) == (after(3.5), 0.0)
    assert state.grid_time(sign) == after(3.5)


def test_after_a_crash_before_anything_started_nothing_has_moved():
    (anchor,) = folded(replayed(Crew(living=False)), crashed())
    assert (anchor.at, anchor.speed) == (after(2), 0.0)


def test_after_a_crash_while_nothing_ran_nothing_has_moved():
    state = State([Submitted(START, make_sweep(1)), ClockAnchored(after(7), long_ago(100), 0.0, "jump")])
    (anchor,) = folded(replayed(Crew(living=False)), state)
    assert (anchor.at, anchor.speed) == (after(7), 0.0)


@given(st.floats(0, 50), st.floats(0, 50))
def test_a_resumed_clock_never_goes_back(sign_after, known_after):
    """Whatever was last written or journaled, the clock goes on behind neither."""
    state = crashed()
    known = after(2 + known_after)
    state.apply(Requested(known, "s/2", Stint((Member("e00", 1, 6),)), "d0", ""))
    sign = state.anchors[-1].wall + sign_after * SECOND
    wanted = max(known, state.grid_time(sign))
    (anchor,) = folded(replayed(Crew(living=False, sign=sign)), state)
    assert anchor.at == wanted
