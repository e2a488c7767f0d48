"""How long work takes, learned from the stints that have ended, and what is kept free before a deadline."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START, after, make_sweep
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.policy.gates import Immediate
from gridsweep.policy.planner.planned import Planned
from gridsweep.schedule.pace import duration, spread
from gridsweep.schedule.worklist import deadline_for
from gridsweep.simulation.conditions import drawn
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Ended, Progressed, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Outcome, Stint
from gridsweep.sweep.tiers import Tier

PATIENT = Tier("patient", 0.0, timedelta(days=4), 1)


def ended(*hours, first=0, n=6, finish_by=20 * HOUR):
    """A sweep of six-step experiments of an hour, of which the first took so long."""
    state = State([Submitted(START, make_sweep(n, devices=2, finish_by=finish_by))])
    for i, span in enumerate(hours):
        stint = Stint((Member(f"e{i:02}", first, 6),))
        for event in (
            Requested(after(0), f"{stint.id}/1", stint, "d0", ""),
            Running(after(0), f"{stint.id}/1"),
            Ended(after(span), f"{stint.id}/1", (Outcome(f"e{i:02}", "done", 6),)),
        ):
            state.apply(event)
    return state


def test_the_estimate_holds_until_two_stints_have_ended():
    assert duration(ended(), 6) == duration(ended(2.0), 6) == HOUR
    assert duration(ended(2.0, 3.0), 6) == 2.5 * HOUR
    assert spread(ended()) == spread(ended(2.0)) == 0.0


def test_what_came_back_from_a_checkpoint_teaches_nothing_for_it_also_had_to_load():
    assert duration(ended(2.0, 3.0, first=3), 6) == HOUR


def test_the_first_steps_of_what_runs_teach_until_stints_have_ended():
    """An hour of evaluating before the first step is not taken for the pace of steps."""
    state = State([Submitted(START, make_sweep(4, steps=100, pack=4, hours=1.0))])
    stint = Stint(tuple(Member(f"e{i:02}", 0, 100) for i in range(4)))
    name = f"{stint.id}/1"
    told = [(1.0, 4), (1.2, 10), (2.0, 24)]  # 20 steps of four members in an hour: 0.8 h as estimated
    state.apply(Requested(START, name, stint, "d0", ""))
    state.apply(Running(START, name))
    for seq, (hours, step) in enumerate(told, 1):
        assert duration(state, 100) == HOUR
        state.apply(Progressed(after(hours), name, seq, step))
    assert duration(state, 100) / HOUR == pytest.approx(1.25)
    state.apply(Ended(after(5), name, tuple(Outcome(f"e{i:02}", "done", 100) for i in range(4))))
    assert duration(state, 100) == HOUR  # one that has ended is not enough, and nothing runs any more


def test_where_lengths_are_alike_the_deadline_is_the_sweeps():
    assert deadline_for(ended()) == deadline_for(ended(1.0, 1.0, 1.005)) == after(20)
    assert deadline_for(ended(finish_by=None)) is None


def test_where_they_differ_time_is_kept_free_for_what_is_left_on_each_device():
    state = ended(0.9, 1.1)
    share = np.std([0.9, 1.1], ddof=1)
    assert spread(state) == pytest.approx(share)
    kept = after(20) - deadline_for(state)  # four are left on two devices: two in a row
    assert kept / HOUR == pytest.approx(2 * share * 2**0.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999), st.integers(8, 30))
def test_deadlines_with_room_hold_though_lengths_differ_by_a_tenth(seed, slack):
    levels = np.random.default_rng(seed).uniform(50, 500, 24 * 60).round()
    sweep = make_sweep(8, devices=2, hours=1.5, steps=64, tiers=(PATIENT,), finish_by=(6 + slack) * HOUR)
    trace = TraceProvider(Trace(START - timedelta(days=40), HOUR, levels), "X", "a test")
    simulated = Simulated(factors=drawn(sweep, 0.1))
    state = rehearse(sweep, START, trace, Planned(min_saving=0), simulated)
    atonce = rehearse(sweep, START, trace, Immediate(), simulated)
    assert max(s.ended_at for s in atonce.standings.values()) < after(8)
    assert max(s.ended_at for s in state.standings.values()) <= after(6 + slack)
