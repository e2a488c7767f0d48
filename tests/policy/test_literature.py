from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import RELAXED, START, URGENT, after, make_sweep, most_at_once, starts, sweeps
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.optima import Job, bound
from gridsweep.policy.literature import BEGINS, CLEAN, DUE, LATER, UNKNOWN, CarbonTime, LetsWaitAwhile, LowestWindow
from gridsweep.policy.registry import OPTIONS, policy_for
from gridsweep.policy.situation import NO_DEVICE, Busy, Pause, Situation, Start, Wait, Work
from gridsweep.policy.windows import Calendar, Course, ticks
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.virtual import Foreseen
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Tier

nan = float("nan")
DAY = Tier("day", 0.0, 24 * HOUR, 1)
ALONE = [LowestWindow(), CarbonTime(), LetsWaitAwhile(), LetsWaitAwhile(interrupting=True)]
AWARE = [LowestWindow(True), CarbonTime(True), LetsWaitAwhile(False, True), LetsWaitAwhile(True, True)]
EVERY = ALONE + AWARE
CONTIGUOUS = [policy for policy in EVERY if not getattr(policy, "interrupting", False)]
INTERRUPTING = [policy for policy in EVERY if getattr(policy, "interrupting", False)]


def foreseen(sweep, levels, policy, step=HOUR):
    """The sweep submitted at START on a grid whose forecast comes true."""
    return rehearse(sweep, START, Foreseen(Trace(START, step, levels), Provenance("a test")), policy)


def work(name: str, tier=DAY, ready=0.0, hours=1.0) -> Work:
    return Work(name, tier, after(ready), after(ready) + tier.max_delay, 0, 60, hours * HOUR, 0.1)


def seen(*works: Work, levels, at=0.0, devices=1, running=(), forecast=True, **changes) -> Situation:
    """Works that wait at an hour, the past of a grid and what comes."""
    trace = Trace(START, HOUR, levels)
    past = trace.between(START, after(at) + timedelta(microseconds=1))
    ahead = trace.values[None, trace.index(after(at)) :]
    told = Forecast(after(at), after(int(at)), HOUR, ahead) if forecast else None
    machines = tuple(Device(f"d{i}") for i in range(devices))
    reading = Reading(past, told, Provenance("a test"))
    return Situation(after(at), works, running, machines, reading, past, **changes)


def started(decisions) -> list[str]:
    return [id for d in decisions if isinstance(d, Start) for id in d.members]


# what each rule picks


def test_the_lowest_window_is_the_one_of_the_jobs_own_length():
    levels = [300, 90, 300, 110, 110, 300, 300, 300] + [300] * 40
    for policy in (LowestWindow(), LowestWindow(True), LetsWaitAwhile(), LetsWaitAwhile(False, True)):
        assert starts(foreseen(make_sweep(1, tiers=(DAY,), hours=1.0), levels, policy)) == {"e00": 1.0}
        assert starts(foreseen(make_sweep(1, tiers=(DAY,), hours=2.0), levels, policy)) == {"e00": 3.0}


def test_a_window_may_begin_at_the_latest_start_and_not_after_it():
    levels = [300.0] * 4 + [100.0] + [1.0] * 40
    sweep = make_sweep(1, tiers=(replace(DAY, max_delay=4 * HOUR),))
    assert starts(foreseen(sweep, levels, LowestWindow())) == {"e00": 4.0}


@pytest.mark.parametrize("policy", [CarbonTime(), CarbonTime(True)])
@pytest.mark.parametrize(("near", "begins"), [(199.0, 2.0), (200.0, 2.0), (201.0, 8.0)])
def test_carbon_time_goes_further_only_for_a_saving_that_grows_as_the_completion_time(policy, near, begins):
    levels = [300.0, 300.0, near] + [300.0] * 5 + [0.0] + [300.0] * 40  # saves 300 in 9 h, or a third of it in 3 h
    assert starts(foreseen(make_sweep(1, tiers=(DAY,)), levels, policy)) == {"e00": begins}


def test_carbon_time_that_can_save_nothing_loses_little():
    levels = [100.0, 120.0, 140.0, 110.0] + [160.0] * 40
    state = foreseen(make_sweep(2, tiers=(DAY,)), levels, CarbonTime(True))
    assert sorted(starts(state).values()) == [0.0, 3.0]


def test_interrupting_takes_the_cleanest_slots_and_pauses_in_between():
    levels = [300, 100, 300, 90, 300, 300, 80, 300] + [300] * 60
    for policy in INTERRUPTING:
        state = foreseen(make_sweep(1, tiers=(DAY,), hours=3.0, steps=60), levels, policy)
        pieces = [(a.requested_at, a.ended_at) for a in state.attempts.values()]
        assert pieces == [(after(i), after(i + 1)) for i in (1, 3, 6)]


# capacity


def test_as_published_all_jobs_like_the_same_window_and_queue():
    levels = [300.0] * 10 + [50.0] + [400.0] * 60
    for policy in (LowestWindow(), CarbonTime(), LetsWaitAwhile()):
        state = foreseen(make_sweep(3, tiers=(DAY,)), levels, policy)
        assert sorted(starts(state).values()) == [10.0, 11.0, 12.0]


def test_capacity_aware_jobs_take_what_the_others_leave():
    levels = [300.0] * 8 + [100.0, 200.0, 50.0] + [400.0] * 60
    for policy in (LowestWindow(True), LetsWaitAwhile(False, True), LetsWaitAwhile(True, True)):
        state = foreseen(make_sweep(3, tiers=(DAY,), steps=60), levels, policy)
        assert sorted(starts(state).values()) == [8.0, 9.0, 10.0]
        state = foreseen(make_sweep(3, tiers=(DAY,), steps=60, devices=2), levels, policy)
        assert sorted(starts(state).values()) == [8.0, 10.0, 10.0]


def test_the_first_in_order_has_the_first_choice():
    levels = [300.0] * 8 + [100.0, 300.0, 50.0] + [400.0] * 60
    second = Tier("second", 0.0, 24 * HOUR, 2)
    state = foreseen(make_sweep(2, tiers=(second, DAY)), levels, LowestWindow(True))
    assert starts(state) == {"e01": 10.0, "e00": 8.0}


def test_a_running_stint_is_counted_until_its_expected_end():
    running = [Busy("s/1", "d0", DAY, after(0), after(3), due=True, pausing=False)]
    levels = [300.0, 300.0, 50.0, 60.0, 70.0] + [300.0] * 60
    for policy in AWARE[:1] + AWARE[2:3]:
        (wait,) = policy.decide(seen(work("a", hours=2.0), levels=levels, at=1, running=running, devices=2))
        assert wait == Wait("a", after(2), LATER)  # the second device is free
        (wait,) = policy.decide(seen(work("a", hours=2.0), levels=levels, at=1, running=running))
        assert wait == Wait("a", after(25 - 1), NO_DEVICE)


# the interrupting rule's limits


def test_neither_due_nor_pausing_nor_just_started_work_is_paused():
    levels = [300.0, 300.0, 100.0] + [300.0] * 60
    for policy in INTERRUPTING:
        plain = Busy("s/1", "d0", DAY, after(0), after(2), due=False, pausing=False)
        assert policy.decide(seen(levels=levels, at=1, running=[plain])) == [Pause("s/1", "cleaner slots are forecast")]
        for kept in (replace(plain, due=True), replace(plain, pausing=True), replace(plain, since=after(1))):
            assert policy.decide(seen(levels=levels, at=1, running=[kept])) == []


def test_one_that_runs_goes_on_rather_than_pause_for_another():
    levels = [100.0, 100.0, 90.0, 90.0, 300.0] + [300.0] * 60
    running = [Busy("s/1", "d0", DAY, after(0), after(2), due=False, pausing=False)]
    waiting = work("a", hours=3.0)
    situation = seen(waiting, levels=levels, at=1, running=running, submitted_at=START, submitted=[waiting])
    assert [type(d) for d in LetsWaitAwhile(True, True).decide(situation)] == [Wait]


def test_a_pause_does_not_move_the_deadline():
    levels = [300.0 - i for i in range(200)]  # always cleaner later
    sweep = make_sweep(1, tiers=(DAY,), hours=3.0, steps=60)
    for policy in INTERRUPTING:
        state = foreseen(sweep, levels, policy)
        assert ledger(state).ended_at == after(27)


# all


@pytest.mark.parametrize("policy", EVERY)
@pytest.mark.parametrize("level", [0.0, 100.1, 333.333])
def test_on_a_level_grid_all_runs_at_once(policy, level):
    sweep = make_sweep(5, tiers=(URGENT, RELAXED), devices=2, hours=1.5)
    assert sorted(starts(foreseen(sweep, [level] * 200, policy)).values()) == [0.0, 0.0, 1.5, 1.5, 3.0]


@pytest.mark.parametrize("policy", EVERY)
def test_noise_of_floats_postpones_nothing(policy):
    noise = 100 * (1 + 1e-12 * np.random.default_rng(1).standard_normal(200))
    state = foreseen(make_sweep(3, tiers=(DAY,), hours=1.5), noise - np.linspace(0, 1e-10, 200), policy)
    assert sorted(starts(state).values()) == [0.0, 1.5, 3.0]


@pytest.mark.parametrize("policy", EVERY)
def test_at_its_latest_start_work_starts_whatever_is_expected(policy):
    levels = [300.0 - i for i in range(100)]
    assert started(policy.decide(seen(work("a"), levels=levels, at=23.5))) == []
    (start,) = policy.decide(seen(work("a"), levels=levels, at=24))
    assert (start.members, start.why) == (("a",), DUE)


@pytest.mark.parametrize("policy", EVERY)
@pytest.mark.parametrize("known", [False, True])
def test_where_nothing_is_expected_all_runs_at_once(policy, known):
    situation = seen(work("a"), work("b"), levels=[nan] * 50, forecast=known)
    assert policy.decide(situation) == [Start(("a",), 60, "d0", UNKNOWN), Wait("b", after(24), NO_DEVICE)]


@pytest.mark.parametrize("policy", EVERY)
def test_a_start_says_why(policy):
    (start,) = policy.decide(seen(work("a"), levels=[100.0] + [300.0] * 99))
    assert start.why in (BEGINS, CLEAN)


@pytest.mark.parametrize("policy", CONTIGUOUS)
def test_a_wait_shorter_than_min_wait_is_not_waited(policy):
    situation = seen(work("a", ready=0.9), levels=[300.0, 100.0] + [300.0] * 90, at=0.9)
    assert policy.decide(situation) == [Wait("a", after(1), LATER)]
    assert started(policy.decide(replace(situation, min_wait=timedelta(minutes=10)))) == ["a"]


@pytest.mark.parametrize("policy", EVERY)
def test_a_forecast_that_is_too_short_goes_on_as_on_its_last_day(policy):
    day = [300.0] * 12 + [100.0] + [300.0] * 11
    at = 20.0
    short = policy.decide(seen(work("a", ready=at), levels=day * 2, at=at))
    assert short == policy.decide(seen(work("a", ready=at), levels=day * 9, at=at))
    assert started(short) == []


columns = st.lists(st.one_of(st.integers(0, 600).map(float), st.just(nan)), min_size=24, max_size=60)


@pytest.mark.parametrize("policy", EVERY, ids=repr)
@settings(max_examples=20, deadline=None)
@given(sweep=sweeps(), levels=columns)
def test_every_sweep_ends_done_with_no_device_taken_twice(policy, sweep, levels):
    state = foreseen(sweep, levels, policy)
    assert state.count("done") == len(sweep.experiments)
    for device in sweep.devices:
        assert most_at_once(state, device.name) <= 1
    if policy in CONTIGUOUS:
        assert all(len(s.attempts) == 1 for s in state.standings.values())


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 6),
    devices=st.integers(1, 3),
    levels=st.lists(st.integers(0, 600).map(float), min_size=48, max_size=48),
)
def test_capacity_aware_and_interrupting_is_the_exact_optimum_of_jobs_of_one_tick(n, devices, levels):
    sweep = make_sweep(n, tiers=(DAY,), devices=devices, hours=0.5, steps=60)
    state = foreseen(sweep, levels, LetsWaitAwhile(True, True))
    jobs = [Job(e.id, 0.5 * HOUR, after(24), power_w=100.0) for e in sweep.experiments]
    least = bound(jobs, sweep.devices, Trace(START, HOUR, levels), START, grid=0.5 * HOUR)
    assert ledger(state).total.emissions_g == pytest.approx(least.emissions_g, rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 8),
    hours=st.sampled_from([0.5, 1.5, 2.0]),
    levels=st.lists(st.integers(0, 600).map(float), min_size=80, max_size=80),
    policy=st.sampled_from([p for p in CONTIGUOUS if p.capacity_aware and not isinstance(p, CarbonTime)]),
)
def test_asked_anew_at_every_look_a_rule_keeps_to_its_first_answer(n, hours, levels, policy):
    sweep = make_sweep(n, tiers=(DAY,), devices=2, hours=hours)
    trace, length = Trace(START, HOUR, levels), round(2 * hours)
    taken, expected = [0] * 200, []
    for _ in range(n):  # one job after another, by brute force on half hours
        windows = [
            (trace.exposure(after(i / 2), after((i + length) / 2)).level_hours, i)
            for i in range(49)
            if max(taken[i : i + length]) < 2
        ]
        best = min(windows)[1]
        taken[best : best + length] = [t + 1 for t in taken[best : best + length]]
        expected.append(best / 2)
    assert sorted(starts(foreseen(sweep, levels, policy)).values()) == sorted(expected)


# windows


def test_a_course_joins_what_was_and_what_is_expected():
    history = Trace(START, 0.5 * HOUR, [1.0, 2.0, 3.0])
    path = Trace(after(1), HOUR, [10.0, nan, 30.0])
    course = Course(history, path, after(1.25), after(0.5), after(6))
    assert course.first == -0.75 * 3600 * 10**6
    at = [int((h - 1.25) * 3600 * 10**6) for h in (0.5, 1, 2, 3, 4, 5, 6)]
    met = course.met(np.array(at[:-1]), np.array(at[1:]))
    assert met == pytest.approx([1, 10, 20, 30, 10, 20])  # a hole is bridged; the last day goes on
    assert course.known and not Course(history, Trace(after(1), HOUR, [nan]), after(1), START, after(9)).known


def test_ticks_are_those_of_the_clock_and_now():
    found = ticks(after(0.6), 0.5 * HOUR, after(0.5), after(2), [1])
    minutes = 60 * 10**6
    assert found.tolist() == [-6 * minutes, 0, 1, 24 * minutes, 54 * minutes, 84 * minutes]


def test_a_calendar_knows_when_a_device_is_free():
    calendar = Calendar(2, np.arange(10), [3], [2, 5])
    assert calendar.free(3, slice(0, 10)).tolist() == [False] * 2 + [True] * 8
    assert calendar.fill(3, 4) is True, "with the one that is taken until 5, no device is left at 4"
    assert calendar.fill(3, 7) is False
    assert calendar.free(3, slice(0, 10)).tolist() == [False] * 5 + [True] * 5


# by name


def test_the_rules_by_name():
    on = {"capacity_aware": 1.0}
    assert policy_for(PolicyChoice("lowest_window")) == LowestWindow()
    assert policy_for(PolicyChoice("lowest_window", on)) == LowestWindow(True)
    assert policy_for(PolicyChoice("carbon_time", on)) == CarbonTime(True)
    assert policy_for(PolicyChoice("lets_wait_awhile")) == LetsWaitAwhile()
    assert policy_for(PolicyChoice("lets_wait_awhile", {**on, "interrupting": 1.0})) == LetsWaitAwhile(True, True)
    assert {"lowest_window", "carbon_time", "lets_wait_awhile"} <= set(OPTIONS)


@pytest.mark.parametrize("policy", EVERY)
def test_the_same_situation_gets_the_same_decisions(policy):
    situation = seen(work("a"), work("b"), work("c", RELAXED), levels=[300.0, 200.0, 100.0] * 40, devices=2)
    assert policy.decide(situation) == policy.decide(situation)
