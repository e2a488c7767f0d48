from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import RELAXED, START, URGENT, after, grid, make_sweep
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import DeadlineError, SpecError, TraceError
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.optima import Optimum
from gridsweep.policy.gates import Immediate
from gridsweep.policy.planner.planned import Planned
from gridsweep.simulation import backtest
from gridsweep.simulation.backtest import play, start_instants
from gridsweep.simulation.bounds import optimum, what_comes
from gridsweep.simulation.comparison import StartResult, compared
from gridsweep.simulation.conditions import Conditions, drawn, under
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import PolicyChoice

SWEEP = make_sweep(3, tiers=(URGENT, RELAXED), hours=1.5)
DAY = [300, 280, 200, 160, 120, 90, 80, 100, 150, 220, 260, 310]
STARTS = [after(6 * i) for i in range(4)]
ON_OFF = PolicyChoice("on_off", {"pause_above": 250, "resume_below": 150})
PLANNED = PolicyChoice("planned", {"min_saving": 0.0})
days = st.lists(st.floats(1, 600), min_size=60, max_size=60)


def simulate(sweep, provider, starts, tell=lambda done: None, **conditions):
    return backtest.simulate(sweep, provider, starts, Conditions(**conditions), tell)


def test_a_constant_grid_reduces_nothing():
    made = simulate(SWEEP, grid(*[200] * 60), starts=STARTS, policies=["immediate", "threshold"])
    assert [(p.reduction, p.reduction_p10, p.reduction_p90) for p in made.policies] == [(0, 0, 0)] * 2
    assert (made.starts, made.devices) == (4, 1)


def test_a_back_test_in_closed_form():
    """One hour at 1 kW from two starts: at 300 then 100; held back two hours it would be 100 and 80."""
    sweep = make_sweep(1, watts=1000, tiers=(replace(URGENT, threshold=100, max_delay=3 * HOUR),))
    made = simulate(sweep, grid(300, 200, 100, 90, 80, 80), starts=[after(0), after(2)])
    (policy,) = made.policies
    assert policy.name == "threshold"
    assert policy.emissions_g_mean == pytest.approx(100)
    assert policy.reduction == pytest.approx(1 - 200 / 400)
    assert (policy.reduction_p50, policy.reduction_p90) == pytest.approx((1 / 3, 0.6))
    assert (policy.makespan_h_mean, policy.late_starts) == (2.0, 0)


@settings(max_examples=20)
@given(days, st.sampled_from([0.5, 2.0, 8.0]))
def test_scaling_the_grid_and_its_limits_leaves_the_reduction(values, factor):
    tiers = tuple(replace(tier, threshold=tier.threshold * factor) for tier in SWEEP.tiers)
    plain = simulate(SWEEP, grid(*values), starts=STARTS[:2])
    scaled = simulate(replace(SWEEP, tiers=tiers), grid(*(v * factor for v in values)), starts=STARTS[:2])
    assert scaled.policies[0].reduction == pytest.approx(plain.policies[0].reduction)
    assert scaled.policies[0].emissions_g_mean == pytest.approx(factor * plain.policies[0].emissions_g_mean)


def test_another_policy_changes_nothing_for_the_rest():
    provider = grid(*DAY * 5)
    alone = simulate(SWEEP, provider, starts=STARTS, policies=["threshold"]).policies
    among = simulate(SWEEP, provider, starts=STARTS, policies=["immediate", ON_OFF, "threshold"]).policies
    assert among[2] == alone[0]
    assert [p.name for p in among] == ["immediate", "on_off", "threshold"]
    assert among[0].reduction == 0.0


def test_a_policy_may_be_named_twice_with_other_options():
    strict = PolicyChoice("on_off", {"pause_above": 150, "resume_below": 100})
    provider = grid(*DAY * 5)
    a, b, c = simulate(SWEEP, provider, starts=STARTS, policies=[ON_OFF, strict, ON_OFF]).policies
    assert a == c != b


def test_the_sweeps_own_policy_keeps_its_options():
    sweep = replace(SWEEP, policy=ON_OFF)
    provider = grid(*DAY * 5)
    named = simulate(sweep, provider, starts=STARTS, policies=["on_off"])
    assert named == simulate(sweep, provider, starts=STARTS)
    with pytest.raises(SpecError, match="needs pause_above"):
        simulate(SWEEP, provider, starts=STARTS, policies=["on_off"])


def test_starts_past_the_longest_delay_are_late():
    """Three experiments of six hours on one device may each wait four: the second and third are late."""
    sweep = make_sweep(3, hours=6)
    made = simulate(sweep, grid(*[200] * 60), starts=STARTS, policies=["immediate"])
    assert made.policies[0].late_starts == 2 * len(STARTS)
    assert made.policies[0].makespan_h_mean == made.policies[0].makespan_h_p90 == 18


def test_a_start_at_the_last_allowed_moment_is_not_late():
    made = simulate(make_sweep(1), grid(*[300] * 60), starts=STARTS)
    assert (made.policies[0].late_starts, made.policies[0].makespan_h_mean) == (0, 5)


def test_a_sweep_that_runs_past_the_end_of_the_trace_is_refused():
    assert simulate(make_sweep(1), grid(200, 200), starts=[after(1)]).policies[0].reduction == 0
    with pytest.raises(TraceError, match="until 2024-06-10 02:30, past the end of the trace"):
        simulate(make_sweep(1), grid(200, 200), starts=[after(1.5)])


def test_a_finer_tick_only_starts_sooner():
    provider = grid(*DAY * 5)
    sweep = make_sweep(1, tiers=(replace(RELAXED, max_delay=2.2 * HOUR),))
    coarse = simulate(sweep, provider, starts=STARTS[:1], tick=timedelta(hours=1)).policies[0]
    fine = simulate(sweep, provider, starts=STARTS[:1], tick=timedelta(minutes=5)).policies[0]
    assert fine.makespan_h_mean <= coarse.makespan_h_mean


def test_progress_is_told_after_each_start():
    told: list[int] = []
    simulate(SWEEP, grid(*[200] * 60), starts=STARTS, tell=told.append)
    assert told == [1, 2, 3, 4]


# Other conditions


def test_finish_by_takes_the_place_of_the_start_deadlines():
    """Urgent work may wait 4 h; with all due in 10 h the experiment waits for the clean hours from the sixth on."""
    dirty_then_clean = grid(*[300] * 6, *[50] * 30)
    assert simulate(make_sweep(1), dirty_then_clean, starts=STARTS[:1]).policies[0].makespan_h_mean == 5
    made = simulate(make_sweep(1), dirty_then_clean, starts=STARTS[:1], finish_by=10 * HOUR)
    assert (made.policies[0].makespan_h_mean, made.finish_by_h) == (7, 10)
    assert made.policies[0].reduction == pytest.approx(1 - 50 / 300)


def test_a_deadline_that_cannot_be_met_is_refused():
    """Three hours of work on one device, due in two."""
    with pytest.raises(
        DeadlineError, match="3 experiments of 1 h on 1 device take 3 h, and finish_by leaves 2 h"
    ) as told:
        simulate(make_sweep(3), grid(*[200] * 60), starts=STARTS, finish_by=2 * HOUR, policies=["immediate"])
    assert told.value.exit_code == 124
    late = make_sweep(3, finish_by=after(8))  # an instant, which some of the starts leave too little time for
    with pytest.raises(DeadlineError, match="finish_by leaves 2 h"):
        simulate(late, grid(*[200] * 60), starts=STARTS, policies=["immediate"])


def test_starts_and_ends_past_the_deadline_are_counted():
    """Three experiments of an hour on one device, due in three, that take two hours each: 0 to 2, 2 to 4, 4 to 6."""
    sweep = under(make_sweep(3), finish_by=3 * HOUR)
    longer = {e.id: 2.0 for e in sweep.experiments}
    found = play(sweep, START, grid(*[200] * 60), Immediate(), longer)
    assert (found.makespan_h, found.late_starts, found.late_ends, found.in_time) == (6, 1, 2, False)
    found = play(sweep, START, grid(*[200] * 60), Immediate())
    assert (found.late_starts, found.late_ends, found.in_time) == (0, 0, True)
    packed = under(make_sweep(4, pack=4), finish_by=4 * HOUR)
    found = play(packed, START, grid(*[200] * 60), Immediate(), {e.id: 2.0 for e in packed.experiments})
    assert (found.late_starts, found.late_ends) == (0, 4)


def test_a_missed_deadline_does_not_count_towards_the_share_of_what_was_possible():
    """The policy that ended late emitted less than the optimum, which ends in time; the other start counts alone."""
    best = Optimum(80.0, 0.0, (), START, START, True)
    atonce = [StartResult(100.0, 1.0, 2.0, 0, 0, (START,))] * 2
    late = StartResult(10.0, 1.0, 9.0, 0, 0, (after(4),), late_ends=1)
    kept = StartResult(90.0, 1.0, 3.0, 0, 0, (after(1),))
    made = compared("x", [late, kept], atonce, [best, best])
    assert (made.late_ends, made.bound_reduction, made.share_of_bound) == (1, pytest.approx(0.2), pytest.approx(0.5))
    assert compared("x", [late, late], atonce, [best, best]).share_of_bound is None


NOISE = np.random.default_rng(7).uniform(0.7, 1.3, 60 * 24)


def test_a_few_short_stints_that_end_first_make_nothing_late():
    """The lengths of 21 experiments differ widely, and the first that end are short, on a grid with clean evenings.

    With the median of the first two in place of the estimate, the devices idled until it was too late.
    """
    levels = (300 + 150 * np.sin(np.arange(60 * 24) * np.pi / 12)) * NOISE
    provider = TraceProvider(Trace(START - timedelta(days=40), HOUR, levels), "X", "a test")
    sweep = under(make_sweep(21, hours=1.5, devices=2), finish_by=24 * HOUR)
    short, long = {0, 1, 2, 3, 4}, {9: 3.5, 14: 3.0, 20: 1.5}
    factors = {e.id: 0.3 if i in short else long.get(i, 1.0) for i, e in enumerate(sweep.experiments)}
    waited = False
    for hour in range(0, 24, 6):
        atonce = play(sweep, after(hour), provider, Immediate(), factors)
        planned = play(sweep, after(hour), provider, Planned(min_saving=0), factors)
        assert atonce.makespan_h < 20 and planned.late_ends == 0
        waited = waited or planned.makespan_h > atonce.makespan_h
    assert waited


def test_devices_are_counted_like_the_first_one():
    sweep = make_sweep(4, devices=(Device("fast", speed=2.0), Device("slow")))
    made = simulate(sweep, grid(*[200] * 60), starts=STARTS, policies=["immediate"], devices=4)
    assert (made.devices, made.policies[0].makespan_h_mean) == (4, 0.5)
    assert [device.name for device in under(sweep).devices] == ["fast", "slow"]


def test_idle_power_is_paid_from_submission_to_the_last_end():
    """One hour at 100 W held back four hours: 40 W are drawn for four hours at 300 before it."""
    made = simulate(make_sweep(1), grid(*[300] * 60), starts=STARTS[:1], idle_power_w=40)
    assert made.policies[0].emissions_g_mean == pytest.approx(30 + 4 * 12)
    assert made.policies[0].kwh_mean == pytest.approx(0.1 + 0.16)
    assert made.policies[0].reduction == pytest.approx(-48 / 30)
    assert made.bound.reduction == pytest.approx(0)


def test_a_perfect_forecast_shows_what_comes_and_the_trace_provider_does_not():
    """A clean hour that no day before had: only who is told of it waits for it."""
    values = [300.0] * (24 * 40)
    values[24 * 30 + 9] = 10
    provider = TraceProvider(Trace(START, HOUR, values), "zone", "a test")
    sweep = make_sweep(1, tiers=(replace(URGENT, max_delay=24 * HOUR),))
    start = [START + timedelta(days=30)]
    told = simulate(sweep, provider, starts=start, policies=[PLANNED], forecast="perfect")
    untold = simulate(sweep, provider, starts=start, policies=[PLANNED])
    assert told.policies[0].emissions_g_mean == pytest.approx(1)
    assert told.policies[0].share_of_bound == pytest.approx(1)
    assert untold.policies[0].share_of_bound == pytest.approx(0)
    assert (told.forecast, untold.forecast) == ("perfect", "history")


def test_a_perfect_forecast_leaves_policies_alone_that_ask_for_none():
    provider = grid(*DAY * 6)
    plain = simulate(SWEEP, provider, starts=STARTS, policies=["threshold", "immediate"])
    told = simulate(SWEEP, provider, starts=STARTS, policies=["threshold", "immediate"], forecast="perfect")
    assert told.policies == plain.policies


# What was possible


@settings(max_examples=15, deadline=None)
@given(days, st.integers(1, 2), st.sampled_from([0.75, 1.5, 2.0]))
def test_no_policy_that_keeps_its_deadlines_beats_the_bound(values, devices, hours):
    sweep = make_sweep(3, tiers=(RELAXED,), hours=hours, devices=devices)
    made = simulate(sweep, grid(*values), starts=STARTS[:2], policies=["threshold", "immediate", PLANNED])
    assert made.bound.starts == 2 and made.bound.proven
    assert made.bound_pausing.reduction >= made.bound.reduction - 1e-9 >= -2e-9
    for policy in made.policies:
        assert policy.late_starts == 0 or policy.name == "threshold"  # who starts late may save more
        assert policy.late_starts or policy.reduction <= made.bound.reduction + 1e-9
        assert policy.bound_reduction == made.bound.reduction


def test_the_share_in_closed_form():
    """At 300, 200, 100, ... the gate at 250 starts after an hour; the best starts after two."""
    sweep = make_sweep(1, tiers=(replace(URGENT, threshold=250, max_delay=2 * HOUR),))
    (policy,) = simulate(sweep, grid(300, 200, 100, 90, 80), starts=[after(0)]).policies
    assert (policy.reduction, policy.bound_reduction) == pytest.approx((1 / 3, 2 / 3))
    assert policy.share_of_bound == pytest.approx(0.5)


def test_a_policy_that_pauses_is_held_against_the_bound_that_may():
    """Two hours between two clean ones: only who pauses gets both."""
    sweep = make_sweep(1, hours=2, steps=8, tiers=(replace(URGENT, max_delay=4 * HOUR),))
    made = simulate(sweep, grid(100, 300, 300, 100, *[300] * 20), starts=[after(0)], policies=[ON_OFF, "immediate"])
    pausing, never = made.policies
    assert pausing.pauses_mean > 0 and pausing.bound_reduction == made.bound_pausing.reduction == pytest.approx(0.5)
    assert never.pauses_mean == 0 and never.bound_reduction == made.bound.reduction == 0


def test_where_nothing_can_be_saved_there_is_no_share_of_it():
    (policy,) = simulate(SWEEP, grid(*[200] * 60), starts=STARTS).policies
    assert policy.bound_reduction == pytest.approx(0) and policy.share_of_bound is None


def test_starts_whose_bound_nobody_knows_count_in_none():
    """An unknown hour lies before the second start's deadlines, and after the first's."""
    values = [*DAY, float("nan"), *DAY * 5]
    made = simulate(make_sweep(1), grid(*values), starts=[after(0), after(10)], policies=["immediate"])
    assert (made.starts, made.bound.starts) == (2, 1)


def test_work_in_hours_that_nobody_knows_is_no_saving():
    """All known hours are at 200 g: a start from which some policy's work falls into unknown ones counts for none."""
    hours = [200.0] * 4 + [float("nan")] * 12 + [200.0] * 40
    tier = replace(URGENT, threshold=100, max_delay=4 * HOUR)
    made = simulate(
        make_sweep(1, watts=1000, tiers=(tier,)), grid(*hours), starts=[after(0), after(20)],
        policies=["immediate", "threshold"],
    )  # fmt: skip
    assert (made.starts, made.unknown_starts) == (1, 1)
    assert [(p.emissions_g_mean, p.reduction) for p in made.policies] == [(200.0, 0.0)] * 2
    with pytest.raises(TraceError, match="from each of 1 starts, some work falls into hours of unknown intensity"):
        simulate(make_sweep(1, tiers=(tier,)), grid(*hours), starts=[after(0)], policies=["threshold"])


def test_bounds_can_be_left_out_and_change_nothing_else():
    provider = grid(*DAY * 5)
    without, having = (simulate(SWEEP, provider, starts=STARTS, bounds=bounds) for bounds in (False, True))
    assert without.bound is without.bound_pausing is without.policies[0].share_of_bound is None
    assert having.bound is not None
    assert replace(having.policies[0], bound_reduction=None, share_of_bound=None) == without.policies[0]


def test_the_bound_counts_idle_power_and_ends_early_for_it():
    """An hour at 100 W from 110 or, two hours later, 100: with 50 W of idle power waiting for it does not pay."""
    sweep = make_sweep(1)
    comes = what_comes(sweep, grid(110, 110, *[100] * 60), START)
    plain, powered = optimum(sweep, comes, START), optimum(under(sweep, idle_power_w=50), comes, START)
    assert plain.emissions_g == pytest.approx(10) and powered.emissions_g == pytest.approx(11)


# Who waited


def test_starts_at_which_nothing_waited_are_told_apart():
    """The first start is at a clean hour, the second waits an hour for 100."""
    sweep = make_sweep(1, tiers=(replace(URGENT, threshold=150),))
    (policy,) = simulate(sweep, grid(100, 300, 100, *[300] * 20), starts=[after(0), after(1)]).policies
    assert policy.never_waited == 0.5
    assert policy.reduction_waited == pytest.approx(2 / 3)
    assert policy.reduction == pytest.approx(1 - 200 / 400)


def test_running_at_once_never_waits():
    (policy,) = simulate(SWEEP, grid(*DAY * 5), starts=STARTS, policies=["immediate"]).policies
    assert policy.never_waited == 1 and policy.reduction_waited is None


def test_a_play_tells_every_start():
    outcome = play(under(make_sweep(2)), START, grid(*[200] * 60), Immediate())
    assert outcome.starts == (after(0), after(1))
    assert (outcome.energy_kwh, outcome.makespan_h, outcome.pauses) == (pytest.approx(0.2), 2, 0)


# Start instants


def test_start_instants_are_half_open():
    trace = Trace(START, HOUR, [1.0] * 100)
    assert start_instants(trace, 6 * HOUR, after(0), after(12)) == [after(0), after(6)]
    assert start_instants(trace, 6 * HOUR, after(0), after(12.5)) == [after(0), after(6), after(12)]
    assert start_instants(trace, 6 * HOUR, after(0), after(1)) == [after(0)]


def test_by_default_there_is_room_before_and_after():
    trace = Trace(START, HOUR, [1.0] * (24 * 40))
    instants = start_instants(trace, timedelta(days=1))
    assert instants == [START + timedelta(days=28 + i) for i in range(3)]


@pytest.mark.parametrize(("first", "end"), [(-1, 5), (5, 5), (6, 5), (0, 101), (None, None), (100, None)])
def test_instants_outside_the_trace_are_refused(first, end):
    trace = Trace(START, HOUR, [1.0] * 100)
    with pytest.raises(TraceError, match=r"no start instant from .* choose --from and --to inside it"):
        start_instants(trace, HOUR, *(None if hours is None else after(hours) for hours in (first, end)))


# lengths that differ from the estimate


def test_experiments_take_what_their_ids_draw_and_every_policy_meets_the_same():
    lengths = drawn(SWEEP, 0.4)
    assert lengths == drawn(SWEEP, 0.4) and len(set(lengths.values())) == 3
    assert drawn(SWEEP, 0.0) == dict.fromkeys(lengths, 1.0)
    made = simulate(SWEEP, grid(*DAY * 6), starts=STARTS, policies=["immediate", "threshold"], lengths=0.4)
    kwh = 0.1 * 1.5 * sum(lengths.values())
    assert [policy.kwh_mean for policy in made.policies] == pytest.approx([kwh, kwh])
    assert made.bound is None or made.bound_pausing is not None


# variants of one policy


def test_variants_of_a_policy_stand_side_by_side_and_are_told_apart():
    tried = ["planned", "planned:min_saving=0", "planned:exact,min_saving=0", "threshold:hold_deadlines"]
    made = simulate(SWEEP, grid(*DAY * 6), starts=STARTS, policies=tried)
    assert [result.name for result in made.policies] == tried
    choices = [PolicyChoice("planned"), PolicyChoice("planned", {"min_saving": 0.0})]
    made = simulate(SWEEP, grid(*DAY * 6), starts=STARTS, policies=choices)
    assert [result.name for result in made.policies] == ["planned", "planned:min_saving=0"]


@pytest.mark.parametrize("wrong", ["planned:exact=maybe", "planned:nonsense", "nobody:exact"])
def test_a_variant_that_is_none_is_an_error_that_names_it(wrong):
    with pytest.raises(SpecError, match=r"maybe|nonsense|nobody"):
        simulate(SWEEP, grid(*DAY * 6), starts=STARTS, policies=[wrong])
