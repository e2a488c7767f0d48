"""A gate whose start deadlines hold."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START, after, make_sweep, starts
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.policy.gates import Threshold
from gridsweep.policy.held_deadlines import WHY, Held
from gridsweep.policy.registry import policy_for
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Tier

GATE = Held(Threshold())


def swept(policy, levels, **options):
    trace = Trace(START - timedelta(days=2), HOUR, [200.0] * 48 + list(levels))
    return rehearse(make_sweep(**options), START, TraceProvider(trace, "X", "a test"), policy)


def test_where_all_become_due_together_the_first_are_brought_forward():
    tiers = (Tier("day", 100.0, 24 * HOUR, 1),)
    options = {"n": 5, "hours": 2.0, "tiers": tiers}
    assert sorted(starts(swept(Threshold(), [300.0] * 80, **options)).values()) == [24, 26, 28, 30, 32]
    state = swept(GATE, [300.0] * 80, **options)
    assert sorted(starts(state).values()) == [16, 18, 20, 22, 24]
    assert [attempt.why for attempt in state.attempts.values()][:4] == [WHY] * 4


def test_what_the_gate_lets_through_starts_as_it_would_have():
    levels = [300.0] * 3 + [50.0] * 80
    tiers = (Tier("day", 100.0, 24 * HOUR, 1),)
    for policy in (Threshold(), GATE):
        assert sorted(starts(swept(policy, levels, n=3, tiers=tiers)).values()) == [3, 4, 5]


def test_the_spec_asks_for_it_by_an_option():
    assert policy_for(PolicyChoice("threshold", {"hold_deadlines": True})) == GATE
    assert policy_for(PolicyChoice("threshold", {"hold_deadlines": False})) == Threshold()


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 20),
    st.sampled_from([0.7, 1.0, 1.5]),
    st.integers(0, 2**32 - 1),
)
def test_latest_starts_hold_wherever_the_devices_can_hold_them(n, devices, slack, hours, seed):
    levels = np.random.default_rng(seed).uniform(20, 600, 120).round()
    delay = (-(-n // devices) - 1) * hours + slack / 2
    tiers = (Tier("t", 60.0, delay * HOUR, 1),)
    state = swept(GATE, levels, n=n, devices=devices, hours=hours, tiers=tiers)
    assert max(starts(state).values()) <= delay + 1e-6


@pytest.mark.parametrize("finish_by", [10, 14])
def test_the_sweeps_deadline_holds_too(finish_by):
    tiers = (Tier("t", 60.0, 96 * HOUR, 1),)
    state = swept(GATE, [300.0] * 200, n=5, hours=2.0, tiers=tiers, finish_by=finish_by * HOUR)
    assert max(s.ended_at for s in state.standings.values()) <= after(finish_by)
