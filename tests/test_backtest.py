from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import RELAXED, START, URGENT, after, grid, make_sweep
from gridsweep.backtest import simulate, start_instants
from gridsweep.carbon import HOUR, Trace
from gridsweep.errors import SpecError, TraceError
from gridsweep.sweep import PolicyChoice

SWEEP = make_sweep(3, tiers=(URGENT, RELAXED), hours=1.5)
DAY = [300, 280, 200, 160, 120, 90, 80, 100, 150, 220, 260, 310]
STARTS = [after(6 * i) for i in range(4)]
ON_OFF = PolicyChoice("on_off", {"pause_above": 250, "resume_below": 150})
days = st.lists(st.floats(1, 600), min_size=60, max_size=60)


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
