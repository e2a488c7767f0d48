from dataclasses import replace
from datetime import timedelta
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    RELAXED,
    START,
    URGENT,
    after,
    levels,
    make_sweep,
    most_at_once,
    rehearsed,
    starts,
    sweeps,
)
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import SpecError
from gridsweep.policy.gates import Immediate, OnOff, Threshold, blind
from gridsweep.policy.planner.planned import Planned
from gridsweep.policy.registry import policy_for
from gridsweep.policy.situation import NO_DEVICE, Busy, Pause, Situation, Start, Wait, Work
from gridsweep.schedule.worklist import makespan
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Percentile, Tier

DAILY = [300.0] * 6 + [100.0] * 6
EVERY_POLICY = [Immediate(), Threshold(), OnOff(200, 150)]


def work(name: str, tier=URGENT, ready=0.0, device=None) -> Work:
    ready_at = after(ready)
    return Work(name, tier, ready_at, ready_at + tier.max_delay, 0, 6, HOUR, 0.1, device)


def seen(*works: Work, at: float = 0.0, level: float = 100.0, devices: int = 1, running=()) -> Situation:
    history = Trace(START, HOUR, [level] * 100)
    machines = tuple(Device(f"d{i}") for i in range(devices))
    reading = Reading(history, None, Provenance("a test"))
    return Situation(after(at), sorted(works, key=lambda w: w.order), running, machines, reading, history)


def busy(attempt: str, device: str = "d0", due: bool = False, pausing: bool = False) -> Busy:
    return Busy(attempt, device, URGENT, START, after(1), due, pausing)


def started(decisions) -> list[str]:
    return [id for d in decisions if isinstance(d, Start) for id in d.members]


# immediate


def test_immediate_starts_whatever_the_grid_says_while_devices_are_free():
    decisions = Immediate().decide(seen(work("a"), work("b"), work("c"), level=999, devices=2))
    assert started(decisions) == ["a", "b"]
    assert decisions[2] == Wait("c", after(4), NO_DEVICE)
    assert {d.device for d in decisions[:2]} == {"d0", "d1"}


def test_work_that_is_bound_to_a_device_waits_for_that_one():
    decisions = Immediate().decide(seen(work("a", device="d1"), work("b", device="d1"), work("c"), devices=2))
    assert [(d.members, d.device) for d in decisions if isinstance(d, Start)] == [
        (("a",), "d1"),
        (("c",), "d0"),
    ]


# threshold


@pytest.mark.parametrize(("level", "starts_now"), [(250.0, True), (250.1, False), (0.0, True), (nan, False)])
def test_threshold_starts_at_or_below_the_limit(level, starts_now):
    decisions = Threshold().decide(seen(work("a"), level=level))
    assert bool(started(decisions)) is starts_now


def test_work_is_taken_by_rank_then_age_then_id():
    works = [work("z", RELAXED, 0), work("b", URGENT, 2), work("c", URGENT, 1), work("a", URGENT, 2)]
    decisions = Threshold().decide(seen(*works, at=2, level=100, devices=4))
    assert started(decisions) == ["c", "a", "b", "z"]


def test_a_lower_rank_goes_first_where_the_better_one_may_not_start():
    strict = URGENT.__class__("strict", 50.0, 20 * HOUR, 1)
    assert started(Threshold().decide(seen(work("a", strict), work("b", RELAXED), level=120))) == ["b"]


def test_a_wait_says_until_when_and_why():
    (wait,) = Threshold().decide(seen(work("a"), level=300))
    assert wait == Wait("a", after(4), "the grid is above urgent's limit of 250 g/kWh")


@pytest.mark.parametrize("level", [999.0, nan])
@pytest.mark.parametrize("policy", [Threshold(), OnOff(200, 100)])
def test_at_its_latest_start_work_starts_whatever_the_grid_says(policy, level):
    assert started(policy.decide(seen(work("a"), at=3.99, level=level))) == []
    (start,) = policy.decide(seen(work("a"), at=4, level=level))
    assert start == Start(("a",), 6, "d0", "latest start reached (urgent waits at most 4 h)")


def test_a_start_says_why():
    (start,) = Threshold().decide(seen(work("a"), level=120))
    assert start.why == "120 g/kWh, at or below urgent's limit of 250"


def test_an_unknown_intensity_is_said_to_be_unknown():
    (wait,) = Threshold().decide(seen(work("a"), level=nan))
    assert wait.why == "the grid's intensity is unknown"


# on_off


@pytest.mark.parametrize(("level", "paused"), [(200.0, 0), (200.1, 1), (nan, 0), (50.0, 0)])
def test_on_off_pauses_above_the_upper_limit_only(level, paused):
    decisions = OnOff(200, 100).decide(seen(level=level, running=[busy("s/1")]))
    assert [d.attempt for d in decisions if isinstance(d, Pause)] == ["s/1"] * paused


@pytest.mark.parametrize(("level", "resumes"), [(100.0, True), (100.1, False), (199.0, False)])
def test_on_off_resumes_at_or_below_the_lower_limit_only(level, resumes):
    assert bool(started(OnOff(200, 100).decide(seen(work("a"), level=level)))) is resumes


@pytest.mark.parametrize("one", [busy("s/1", due=True), busy("s/1", pausing=True)])
def test_on_off_leaves_alone_what_is_due_or_pausing(one):
    assert OnOff(200, 100).decide(seen(level=999, running=[one])) == []


def test_on_off_says_that_the_latest_start_came_also_below_the_tiers_own_limit():
    (start,) = OnOff(200, 100).decide(seen(work("a"), at=4, level=150))
    assert start.why == "latest start reached (urgent waits at most 4 h)"


def test_on_off_lets_work_run_between_its_limits():
    state, _ = rehearsed(make_sweep(1, hours=3), [90, 150, 190, 150], OnOff(200, 100))
    assert len(state.attempts) == 1 and state.attempts.popitem()[1].ended_at == after(3)


@pytest.mark.parametrize("level", [100.0, 150.0, 200.0])
def test_on_off_does_not_flap_where_the_grid_does(level):
    flapping = [level + (-1) ** hour for hour in range(1000)]
    state, _ = rehearsed(make_sweep(1, hours=400, steps=800, tiers=(RELAXED,)), flapping, OnOff(200, 100))
    assert len(state.attempts) <= 2 and state.count("done") == 1


def test_on_off_pauses_and_goes_on():
    sweep = make_sweep(1, hours=3, steps=6)
    state, _ = rehearsed(sweep, [90, 90, 300, 150, 90, 90], OnOff(200, 100))
    pieces = [(a.requested_at, a.ended_at, a.end) for a in state.attempts.values()]
    assert pieces == [(after(0), after(2), "paused"), (after(4), after(5), "ended")]
    assert [a.stint.members[0].from_step for a in state.attempts.values()] == [0, 4]
    assert state.standings["e00"].outcome.step == 6


@given(sweeps(tick=timedelta(minutes=15)), levels)
def test_pausing_loses_no_step_and_no_energy(sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, OnOff(200, 150))
    assert state.count("done") == len(sweep.experiments)
    assert all(s.outcome.step == sweep.total_steps for s in state.standings.values())
    whole = sweep.estimates.duration / HOUR * sweep.estimates.power_w / 1000
    assert ledger(state).total.energy_kwh == pytest.approx(len(sweep.experiments) * whole)


def test_a_pause_ends_with_the_step_that_had_begun():
    state, _ = rehearsed(make_sweep(1, hours=2, steps=3), [90, 300, 90, 90, 90], OnOff(200, 100))
    first, second = state.attempts.values()  # forty minutes a step; told after an hour
    assert (first.ended_at, first.step) == (after(4 / 3), 2)
    assert (second.requested_at, second.ended_at) == (after(2), after(8 / 3))


# all


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=lambda p: type(p).__name__)
@given(sweep=sweeps(), grid_levels=levels)
def test_every_sweep_ends_done_with_no_device_taken_twice(policy, sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, policy)
    assert state.count("done") == len(sweep.experiments)
    assert all(most_at_once(state, device.name) == 1 for device in sweep.devices if busy_ever(state, device))


def busy_ever(state, device) -> bool:
    return any(attempt.device == device.name for attempt in state.attempts.values())


@given(sweeps(), levels)
def test_threshold_starts_late_only_for_want_of_a_device(sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, Threshold())
    last = makespan([sweep.estimates.duration] * len(sweep.experiments), sweep.devices)
    for standing in state.standings.values():
        tier = sweep.tier(standing.experiment.tier)
        level = state.history.at(standing.first_running_at)
        waited = standing.first_running_at - START
        assert level <= tier.threshold or waited >= tier.max_delay
        longest = max(t.max_delay for t in sweep.tiers)
        assert waited <= longest + last


def test_nothing_starts_between_ticks_unless_a_device_is_freed_or_the_grid_changes():
    sweep = make_sweep(2, hours=0.75, tick=timedelta(hours=2))
    state, _ = rehearsed(sweep, [300.0, 100.0, 100.0], Threshold())
    assert starts(state) == {"e00": 1.0, "e01": 1.75}


# by name


def test_policies_by_name():
    assert policy_for(PolicyChoice("immediate")) == Immediate()
    assert policy_for(PolicyChoice("threshold")) == Threshold()
    assert policy_for(PolicyChoice()) == Planned()
    choice = PolicyChoice("on_off", {"pause_above": 200, "resume_below": 100})
    assert policy_for(choice) == OnOff(200, 100)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (PolicyChoice("thresold"), "unknown policy 'thresold'; choose one of planned, immediate"),
        (PolicyChoice("on_off"), "needs pause_above and resume_below"),
        (
            PolicyChoice("on_off", {"pause_above": 1, "resume_below": 1, "x": 1}),
            "on_off has no option x",
        ),
        (
            PolicyChoice("on_off", {"pause_above": 100, "resume_below": 200}),
            "policy on_off has resume_below above pause_above; lower resume_below or raise pause_above",
        ),
    ],
)
def test_a_wrong_choice_is_refused(choice, message):
    with pytest.raises(SpecError, match=message):
        policy_for(choice)


# limits that travel


def travelling(percent: float) -> Tier:
    return Tier("travelling", Percentile(percent), 20 * HOUR, 1)


def among(column, at: float, forecast=None, min_wait=timedelta(0)) -> Situation:
    """One device, work of `travelling(40)` waiting, the grid known up to the slot at `at`."""
    known = Trace(START, HOUR, column).between(START, after(at) + timedelta(microseconds=1))
    reading = Reading(known, forecast, Provenance("a test"))
    return Situation(
        after(at), [work("a", travelling(40), ready=at)], [], (Device("d0"),), reading, known, min_wait=min_wait
    )


def test_a_percentile_is_one_of_what_was_observed_up_to_now():
    column = [float(v) for v in range(100)]
    situation = among(column, 99)
    assert situation.limit(travelling(40)) == pytest.approx(np.percentile(column, 40))
    assert situation.limit(travelling(0)) == 0
    assert situation.limit(travelling(100)) == 99


def test_a_percentile_forgets_what_is_older_than_28_days():
    column = [999.0] * 24 * 30 + [10.0] * 24 * 28
    assert among(column, 24 * 58 - 1).limit(travelling(99)) == 10


def test_with_less_than_a_day_of_history_a_percentile_is_one_of_the_forecast():
    path = np.arange(100.0)[None, :]
    forecast = Forecast(after(5), after(5), HOUR, path)
    assert among([500.0] * 6, 5, forecast).limit(travelling(40)) == pytest.approx(np.percentile(path, 40))
    assert among([500.0] * 6, 5).limit(travelling(40)) == 500, "without a forecast, of the history there is"


def test_a_percentile_of_nothing_is_met_by_nothing():
    (wait,) = Threshold().decide(among([nan] * 50, 49))
    assert wait.why == "the grid's intensity is unknown"


def test_a_start_below_a_percentile_names_both():
    column = [200.0] * 60 + [100.0] * 40
    (start,) = Threshold().decide(among(column, 99))
    assert start.why == "100 g/kWh, at or below travelling (p40)'s limit of 160"


@given(st.lists(st.floats(0, 1000), min_size=24, max_size=200), st.floats(0, 100))
def test_a_trace_ranks_as_numpy_does(column, percent):
    trace = Trace(START, HOUR, column)
    assert trace.percentile(percent, trace.end, timedelta(days=28)) == pytest.approx(np.percentile(column, percent))


# waits that are too short


def test_a_latest_start_that_is_near_is_not_waited_for():
    soon = seen(work("a"), at=3.9, level=999)
    assert started(Threshold().decide(soon)) == []
    assert started(Threshold().decide(replace(soon, min_wait=timedelta(minutes=10)))) == ["a"]


@pytest.mark.parametrize(("minute", "starts_now"), [(49, False), (50, True), (59, True)])
def test_a_clean_slot_that_is_near_is_not_waited_for(minute, starts_now):
    column = [100.0] * 30 + [300.0] * 30
    forecast = Forecast(after(30), after(30), HOUR, np.array([[300.0, 90.0, 90.0]]))
    decisions = Threshold().decide(among(column, 30 + minute / 60, forecast, timedelta(minutes=10)))
    assert bool(started(decisions)) is starts_now


# nothing known


def test_blind_work_waits_for_its_deadline():
    decisions = blind(seen(work("a"), work("b", ready=-4), level=nan, devices=2), "wait_until_deadline")
    assert started(decisions) == ["b"]
    assert Wait("a", after(4), "no grid data from any provider") in decisions


def test_blind_work_runs_where_the_sweep_says_so():
    assert started(blind(seen(work("a"), work("b"), level=nan), "run")) == ["a"]


def test_blind_work_may_be_told_to_wait_for_ever():
    (wait,) = blind(seen(work("a", ready=-99), level=nan), "wait")
    assert wait.until is None
