from datetime import timedelta
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    RELAXED,
    START,
    URGENT,
    after,
    grid,
    levels,
    make_sweep,
    rehearsed,
    starts,
    sweeps,
)
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import PolicyError
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.policy.situation import Pause, Start, Wait
from gridsweep.schedule.pace import longest, scale
from gridsweep.schedule.step import situation, step, wake_at
from gridsweep.schedule.worklist import makespan
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import (
    Decided,
    Ended,
    Fingerprinted,
    Halted,
    Lost,
    Observed,
    Pausing,
    Progressed,
    Requested,
    Running,
    Stopping,
    Submitted,
)
from gridsweep.state.observations import observed
from gridsweep.state.state import State
from gridsweep.sweep.stints import Checkpoint, Device, Member, Outcome, Stint
from gridsweep.sweep.tiers import Tier


class Says:
    """A policy that always decides the same."""

    def __init__(self, *decisions):
        self.decisions = decisions

    def decide(self, situation):
        return self.decisions


class Never:
    """A policy that starts nothing and pauses all it can."""

    def decide(self, situation):
        return [Pause(busy.attempt, "never") for busy in situation.running]


def submitted(sweep=None, patience=None) -> State:
    return State([Submitted(START, sweep or make_sweep(), patience)])


def ask(state: State, policy, at: float = 0.0, level: float = 100.0, stop: str = ""):
    """Step at an hour after START, and fold what follows."""
    reading = grid(*[level] * 100).read(after(at))
    for event in observed(state, reading, after(at)):
        state.apply(event)
    events = step(state, policy, reading, after(at), stop)
    for event in events:
        state.apply(event)
    return events


# What is refused


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (Start(("e00",), 6, "d9", ""), "e00 on d9, which is not free"),
        (Start(("nobody",), 6, "d0", ""), "nobody up to step 6, which is not waiting for it"),
        (Start(("e00",), 7, "d0", ""), "e00 up to step 7"),
        (Start(("e00",), 0, "d0", ""), "e00 up to step 0"),
        (Start(("e00", "e00"), 6, "d0", ""), "e00 up to step 6"),
        (Start((), 6, "d0", ""), "nothing on d0"),
        (Pause("s-none/1", ""), "s-none/1, which is not running"),
        (Wait("nobody", None, ""), "nobody, which is not waiting"),
    ],
)
def test_an_impossible_decision_is_refused(decision, message):
    with pytest.raises(PolicyError, match=message):
        ask(submitted(), Says(decision))


def test_a_device_is_given_once():
    with pytest.raises(PolicyError, match="e01 on d0, which is not free"):
        ask(submitted(), Says(Start(("e00",), 6, "d0", ""), Start(("e01",), 6, "d0", "")))


def test_a_device_at_work_is_not_given():
    state = submitted()
    ask(state, Immediate())
    with pytest.raises(PolicyError, match="e01 on d0, which is not free"):
        ask(state, Says(Start(("e01",), 6, "d0", "")))


def test_work_runs_where_it_is_bound_to():
    sweep = make_sweep(1, devices=2)
    pinned = tuple(e.__class__(e.id, e.params, e.seed, e.tier, e.reason, "d1") for e in sweep.experiments)
    state = submitted(make_sweep(1, devices=2, experiments=pinned))
    with pytest.raises(PolicyError, match="e00 on d0, but it may only run on d1"):
        ask(state, Says(Start(("e00",), 6, "d0", "")))


# What is put right


def test_overdue_work_starts_whatever_a_policy_says():
    state = submitted(make_sweep(2, devices=2))
    assert ask(state, Never(), at=3.9) == []
    events = ask(state, Never(), at=4)
    assert [(e.stint.members[0].experiment, e.due, e.why) for e in events] == [
        ("e00", True, "latest start reached"),
        ("e01", True, "latest start reached"),
    ]


@given(sweeps(), levels)
def test_under_a_policy_that_never_starts_all_work_starts_at_its_latest(sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, Never())
    assert state.count("done") == len(sweep.experiments)
    assert all(attempt.due and attempt.end == "ended" for attempt in state.attempts.values())


def test_due_work_is_not_paused_and_other_work_is():
    state = submitted()
    ask(state, Immediate(), at=0)
    (attempt,) = state.active
    assert [type(e) for e in ask(state, Says(Pause(attempt, "x")))] == [Pausing]
    assert ask(state, Says(Pause(attempt, "x"))) == []  # it has been told

    overdue = submitted()
    ask(overdue, Immediate(), at=5)
    (attempt,) = overdue.active
    assert ask(overdue, Says(Pause(attempt, "x"))) == []


def test_of_equal_work_the_first_in_order_starts():
    events = ask(submitted(make_sweep(3)), Says(Start(("e02",), 6, "d0", "mine")))
    assert [e.stint.members for e in events] == [(Member("e00", 0, 6),)]


def test_unequal_work_starts_as_decided():
    state = submitted(make_sweep(4, tiers=(URGENT, RELAXED)))
    events = ask(state, Says(Start(("e03",), 6, "d0", "")))
    assert events[0].stint.members[0].experiment == "e01"  # the first of its own tier


def test_members_that_train_together_start_as_decided():
    events = ask(
        submitted(make_sweep(3, devices=2)),
        Says(Start(("e01", "e02"), 6, "d0", ""), Start(("e00",), 6, "d1", "")),
    )
    assert [tuple(m.experiment for m in e.stint.members) for e in events] == [("e01", "e02"), ("e00",)]


def test_a_stint_may_end_before_the_last_step():
    (event,) = ask(submitted(), Says(Start(("e00",), 4, "d0", "")))
    assert event.stint.members == (Member("e00", 0, 4),)


def test_work_of_which_only_the_result_is_missing_starts_again():
    """Its worker was killed after the last checkpoint: it has no step left, and is not done."""
    state = submitted(make_sweep(1))
    (event,) = ask(state, Immediate())
    state.apply(Lost(after(1), event.attempt, "killed", (Checkpoint("e00", 6, "", ""),)))
    (again,) = ask(state, Immediate(), 1)
    assert again.stint.members == (Member("e00", 6, 6),)
    for event in Simulated().observe(state, after(1)):
        state.apply(event)
    assert state.standings["e00"].status == "done" and state.finished


# What is journaled


def test_a_wait_is_told_only_when_it_changes():
    state = submitted(make_sweep(1))
    assert [type(e) for e in ask(state, Threshold(), 0, level=300)] == [Decided]
    assert ask(state, Threshold(), 1, level=300) == []
    assert [e.why for e in ask(state, Says(Wait("e00", None, "other")), 1)] == ["other"]


def test_an_attempt_is_named_by_its_work_and_its_number():
    state = submitted(make_sweep(1))
    (first,) = ask(state, Immediate())
    state.apply(Lost(after(1), first.attempt, "gone"))
    (second,) = ask(state, Immediate(), 1)
    stint = Stint((Member("e00", 0, 6),)).id
    assert (first.attempt, second.attempt) == (f"{stint}/1", f"{stint}/2")


def test_a_stop_pauses_all_that_runs_and_starts_nothing():
    state = submitted(make_sweep(3, devices=2))
    ask(state, Immediate())
    events = ask(state, Immediate(), stop="enough")
    assert [type(e) for e in events] == [Stopping, Pausing, Pausing]
    assert ask(state, Immediate(), stop="enough") == []
    assert state.stopping == "enough" and not state.finished


# Workers that are silent


def silent_since(at: float, *, running: bool) -> State:
    """One attempt, requested at START and last heard of at an hour; ten minutes of patience."""
    state = submitted(make_sweep(1, steps=600), patience=timedelta(minutes=10))
    (event,) = ask(state, Immediate())
    if running:
        state.apply(Running(after(at), event.attempt))
    return state


def test_a_silent_worker_is_told_to_stop_then_killed():
    state = silent_since(0, running=True)
    assert ask(state, Immediate(), at=10 / 60) == []
    (told,) = ask(state, Immediate(), at=10.1 / 60)
    assert (told.kill, told.why) == (False, "no progress for 0:10:00")
    assert ask(state, Immediate(), at=11 / 60) == []
    (killed,) = ask(state, Immediate(), at=11.2 / 60)
    assert killed.kill
    assert ask(state, Immediate(), at=2) == []


def test_progress_renews_patience():
    state = silent_since(0, running=True)
    (attempt,) = state.active
    state.apply(Progressed(after(9 / 60), attempt, 1, 3))
    assert ask(state, Immediate(), at=18.9 / 60) == []
    assert len(ask(state, Immediate(), at=19.1 / 60)) == 1


def test_a_worker_may_load_for_longer():
    state = silent_since(0, running=False)
    assert ask(state, Immediate(), at=59 / 60) == []
    assert len(ask(state, Immediate(), at=61 / 60)) == 1


def test_long_steps_lengthen_patience():
    state = submitted(make_sweep(1, steps=6), patience=timedelta(minutes=10))  # ten minutes a step
    (event,) = ask(state, Immediate())
    state.apply(Running(START, event.attempt))
    assert ask(state, Immediate(), at=99 / 60) == []
    assert len(ask(state, Immediate(), at=101 / 60)) == 1


def test_by_another_clock_silence_is_what_that_clock_says():
    state = submitted(make_sweep(1, steps=6), patience=timedelta(minutes=10))
    (event,) = ask(state, Immediate())
    state.apply(Running(START, event.attempt))

    def told(minutes: float) -> list:
        silences = {event.attempt: timedelta(minutes=minutes)}
        events = step(state, Immediate(), grid(1.0).read(after(9)), after(9), silences=silences)
        for one in events:
            state.apply(one)
        return events

    assert told(10) == []  # nine hours of the grid, and ten minutes of that clock
    assert [e.kill for e in told(10.1)] == [False]
    assert told(0.9) == []
    assert [e.kill for e in told(1.1)] == [True]
    assert told(99) == []


def test_a_worker_that_is_done_is_not_silent():
    state = silent_since(0, running=True)
    (attempt,) = state.active
    state.apply(Progressed(START, attempt, 1, 600, over_at=after(1)))
    assert ask(state, Immediate(), at=5) == []


def test_silence_is_told_once_also_to_what_is_stopped():
    state = silent_since(0, running=True)
    events = ask(state, Immediate(), at=1, stop="enough")
    assert [type(e) for e in events] == [Pausing, Stopping]


# Everything fails alike


def lose(state: State, why: str, at: float, checkpoint: int = 0) -> str:
    """Start the next experiment and lose it a moment later."""
    (event,) = [e for e in ask(state, Immediate(), at) if isinstance(e, Requested)]
    id = event.stint.members[0].experiment
    saved = (Checkpoint(id, checkpoint, "", ""),) if checkpoint else ()
    state.apply(Lost(after(at) + timedelta(seconds=5), event.attempt, why, saved))
    return id


def test_a_sweep_in_which_everything_fails_alike_halts():
    state = submitted(make_sweep(9))
    lost = []
    while not state.halted:
        try:
            lost.append(lose(state, "no CUDA", len(lost)))
        except ValueError:
            break
    assert state.halted.endswith("for the same reason: no CUDA")
    assert len(set(lost)) == 3 and state.count("failed") == 2


def test_one_experiment_that_fails_alike_each_time_fails_alone():
    state = submitted(make_sweep(3))
    assert [lose(state, "out of memory", i) for i in range(3)] == ["e00"] * 3
    assert state.standings["e00"].status == "failed"
    assert state.standings["e00"].reason == "3 attempts without progress; the last: out of memory"
    (event,) = ask(state, Immediate(), 4)
    assert event.stint.members[0].experiment == "e01" and not state.halted


def test_a_pack_that_is_lost_once_is_one_loss_however_many_are_in_it():
    state = submitted(make_sweep(4, pack=4))
    for at in range(3):
        (event,) = ask(state, Immediate(), at)
        assert isinstance(event, Requested) and len(event.stint.members) == 4
        state.apply(event)
        state.apply(Lost(after(at) + timedelta(seconds=5), event.attempt, "no CUDA"))
    assert [type(e) for e in ask(state, Immediate(), 4)] == [Halted]


def test_a_lone_experiment_that_fails_alike_halts_its_sweep():
    state = submitted(make_sweep(1))
    for i in range(3):
        lose(state, "out of memory", i)
    assert [type(e) for e in ask(state, Immediate(), 4)] == [Halted]


def test_different_failures_do_not_halt():
    state = submitted(make_sweep(3))
    for i in range(9):
        lose(state, f"reason {i}", i)
    assert ask(state, Immediate(), 10) == [] and state.count("failed") == 3 and state.finished


# Deadlines


def test_makespan_takes_the_longest_first():
    two = (Device("d0"), Device("d1"))
    assert makespan([HOUR, HOUR, 2 * HOUR], two) == 2 * HOUR
    assert makespan([HOUR] * 3, two) == 2 * HOUR
    assert makespan([2 * HOUR], (Device("d0", speed=2.0),)) == HOUR
    assert makespan([], two) == timedelta(0)


def test_a_deadline_lets_nothing_start_too_late_to_end():
    state = submitted(make_sweep(3, tiers=(RELAXED,), finish_by=timedelta(hours=5)))
    reading = Reading(Trace(START, HOUR, [300.0]), None, Provenance(""))
    assert {w.latest_start for w in situation(state, reading, START).waiting} == {after(4)}


def test_a_deadline_starts_work_one_after_the_other_as_late_as_can_be():
    sweep = make_sweep(5, tiers=(Tier("patient", -1, timedelta(days=9), 1),), devices=2, finish_by=timedelta(hours=7))
    state, _ = rehearsed(sweep, [300.0] * 12, Never())
    assert sorted(starts(state).values()) == [4, 5, 5, 6, 6]


def test_the_tighter_of_deadline_and_delay_counts():
    state = submitted(make_sweep(1, tiers=(URGENT,), finish_by=timedelta(hours=50)))
    reading = Reading(Trace(START, HOUR, [300.0]), None, Provenance(""))
    assert situation(state, reading, START).waiting[0].latest_start == after(4)


@pytest.mark.parametrize("policy", [Threshold(), Never()], ids=["threshold", "never"])
@given(sweep=sweeps(), grid_levels=levels, slack=st.integers(0, 20))
def test_a_sweep_ends_by_its_deadline_when_it_can(policy, sweep, grid_levels, slack):
    least = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    limit = least + slack * timedelta(minutes=45)
    sweep = make_sweep(
        len(sweep.experiments),
        tiers=(Tier("patient", -1, timedelta(days=9), 1),),
        devices=len(sweep.devices),
        hours=sweep.estimates.duration / HOUR,
        finish_by=limit,
    )
    state, _ = rehearsed(sweep, grid_levels, policy)
    assert max(s.ended_at for s in state.standings.values()) <= START + limit


@given(sweeps(), levels, st.integers(0, 20))
def test_pauses_do_not_miss_a_deadline(sweep, grid_levels, slack):
    least = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    limit = least + slack * timedelta(minutes=45)
    sweep = make_sweep(
        len(sweep.experiments),
        tiers=(Tier("patient", -1, timedelta(days=9), 1),),
        devices=len(sweep.devices),
        hours=sweep.estimates.duration / HOUR,
        finish_by=limit,
    )
    state, _ = rehearsed(sweep, grid_levels, OnOff(200, 150))
    assert max(s.ended_at for s in state.standings.values()) <= START + limit


# When to look again


def test_the_loop_wakes_at_ticks_slot_edges_and_latest_starts():
    state = submitted(make_sweep(1, tick=timedelta(hours=3)))
    ask(state, Threshold(), level=300)
    assert wake_at(state, START) == after(1)  # the edge of the slot
    slow = submitted(make_sweep(1, tiers=(Tier("t", 0, 0.4 * HOUR, 1),)))
    ask(slow, Threshold(), level=300)
    assert wake_at(slow, START) == after(0.4)  # its latest start
    assert wake_at(slow, after(0.4)) == after(0.5)  # the tick


# The grid


def test_only_what_is_new_or_revised_is_observed():
    state = submitted()
    provider = grid(1, 2, nan, 4)
    first = observed(state, provider.read(after(2.5)), after(2.5))
    assert first == [Observed(after(2.5), START, HOUR, (1, 2, None), Provenance("a test"))]
    for event in first:
        state.apply(event)
    assert observed(state, provider.read(after(2.7)), after(2.7)) == []
    (second,) = observed(state, provider.read(after(3)), after(3))
    assert (second.start, second.values) == (after(3), (4,))
    (revised,) = observed(state, grid(1, 2, 3, 4).read(after(3)), after(3))
    assert (revised.start, revised.values) == (after(2), (3, 4))


@given(
    st.lists(levels.map(lambda values: values[:12]), min_size=1, max_size=4),
    st.lists(st.integers(0, 11), min_size=4),
)
def test_what_was_observed_is_what_the_readings_told_last(columns, hours):
    state = submitted()
    wanted = [nan] * 12
    for column, hour in zip(columns, sorted(hours), strict=False):
        reading = grid(*column).read(after(hour))
        for event in observed(state, reading, after(hour)):
            state.apply(event)
        told = column[: hour + 1]
        wanted[: hour + 1] = [was if new != new else new for new, was in zip(told, wanted, strict=False)]
    known = [state.history.at(after(hour)) for hour in range(12)]
    assert np.array_equal(known, wanted, equal_nan=True)


def test_a_night_without_readings_stays_unknown():
    state = submitted()
    state.apply(Observed(START, START, HOUR, (1.0,), Provenance("a", "measured")))
    reading = Reading(Trace(after(5), HOUR, [6.0]), None, Provenance("a", "measured"))
    for event in observed(state, reading, after(5)):
        state.apply(event)
    assert state.history.at(after(5)) == 6 and state.history.at(START) == 1
    assert all(state.history.at(after(i)) != state.history.at(after(i)) for i in range(1, 5))


def test_a_reading_that_reaches_further_back_changes_nothing_known():
    state = submitted()
    state.apply(Observed(START, START, HOUR, (1.0, 2.0), Provenance("a", "measured")))
    reading = Reading(Trace(after(-3), HOUR, [9, 9, 9, 1.0, 2.0, 3.0]), None, Provenance("a", "measured"))
    (event,) = observed(state, reading, after(2))
    assert (event.start, event.values) == (after(2), (3.0,))


def test_an_empty_reading_says_nothing():
    assert observed(submitted(), Reading(Trace(START, HOUR, []), None, Provenance("a")), START) == []


def test_a_tier_without_limit_is_a_limit_of_infinity():
    state = submitted(make_sweep(1, tiers=(Tier("any", inf, HOUR, 1),)))
    assert starts(state) == {}
    assert [type(e) for e in ask(state, Threshold(), level=1e9)] == [Requested]


# Durations that are learned


def test_stints_that_ended_teach_how_long_the_others_take():
    sweep = make_sweep(3, hours=1)
    state = submitted(sweep)
    for n, hours in ((0, 2.0), (1, 3.0)):
        id = f"e{n:02}"
        stint = Stint((Member(id, 0, 6),))
        for event in (
            Requested(after(n * 5), f"{stint.id}/1", stint, "d0", ""),
            Running(after(n * 5), f"{stint.id}/1"),
            Ended(after(n * 5 + hours), f"{stint.id}/1", (Outcome(id, "done", 6),)),
        ):
            state.apply(event)
        assert scale(state) == (4 / 3 if n == 0 else 7 / 4)  # the estimate counts twice
    assert longest(state, 3, Device("fast", speed=2.0)) == 3 * HOUR / 4  # as slow as the slowest


def test_a_fast_device_teaches_what_an_ordinary_one_takes():
    sweep = make_sweep(3, hours=1, devices=(Device("d0", speed=4.0),))
    state = submitted(sweep)
    state.paces = [2.0] * 2
    assert scale(state) == 1.5


def test_an_estimate_that_is_right_to_a_hundredth_stays():
    state = submitted(make_sweep(3, hours=1))
    state.paces = [1.005] * 5
    assert scale(state) == 1


# What the sweep takes as constant


def test_no_other_attempt_starts_before_the_first_has_told_what_is_constant():
    state = State([Submitted(START, make_sweep(3, devices=3), encoding=2)])
    state.apply(Fingerprinted(START, {}, "submission", ("training data",)))
    assert [type(e) for e in ask(state, Immediate())].count(Requested) == 1
    assert not [e for e in ask(state, Immediate(), 0.5) if isinstance(e, Requested)]
    (first,) = state.active
    state.apply(Fingerprinted(after(0.6), {"training data": "d"}, first))
    assert [type(e) for e in ask(state, Immediate(), 0.7)].count(Requested) == 2


def test_a_first_attempt_that_is_lost_before_it_told_is_followed_by_one_more():
    state = State([Submitted(START, make_sweep(3, devices=3), encoding=2)])
    state.apply(Fingerprinted(START, {}, "submission", ("training data",)))
    ask(state, Immediate())
    state.apply(Lost(after(0.1), next(iter(state.active)), "the disk was full"))
    assert [type(e) for e in ask(state, Immediate(), 0.2)].count(Requested) == 1


def test_a_refusal_ends_the_sweep_at_once():
    state = submitted(make_sweep(3, devices=2))
    ask(state, Immediate())
    first, second = state.active
    state.apply(Lost(after(0.1), first, "the data have no answers", refused=True))
    assert ask(state, Immediate(), 0.2) == [
        Halted(after(0.2), "the data have no answers", refused=True),
        Pausing(after(0.2), second, "the data have no answers"),
    ]


@pytest.mark.parametrize(("dtype", "apart", "halts"), [
    ("float32", 5e-5, False), ("float32", 2e-4, True), ("bfloat16", 5e-4, False), ("bfloat16", 2e-3, True),
])  # fmt: skip
def test_losses_before_the_first_step_are_the_same_for_all_or_the_sweep_ends(dtype, apart, halts):
    state = State([Submitted(START, make_sweep(3), encoding=2)])
    for id, loss in (("e00", 2.0), ("e01", 2.0 * (1 + apart))):
        ask(state, Says(Start((id,), 6, "d0", "")))
        outcome = Outcome(id, "done", 6, validation_loss=1.0, initial_validation_loss=loss)
        state.apply(Ended(after(0.1), next(iter(state.active)), (outcome,), {"dtype": dtype}))
    events = ask(state, Immediate(), 0.2)
    assert any(isinstance(event, Halted) and event.refused for event in events) == halts
    if halts:
        assert "2 for e00" in state.halted and "for e01" in state.halted and "please report" in state.halted
