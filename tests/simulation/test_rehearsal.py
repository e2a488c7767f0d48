from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    RELAXED,
    START,
    URGENT,
    after,
    levels,
    lost_and_done,
    make_sweep,
    most_at_once,
    rehearsed,
    sweeps,
)
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.pieces import joined
from gridsweep.accounting.report import make_report
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.simulation.baseline import baseline
from gridsweep.state.events import Ended, Lost, Observed, Progressed, Requested, Segment, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device, Member, Outcome, Stint

POLICIES = [Immediate(), Threshold(), OnOff(200, 150)]
POLICY_NAMES = ["immediate", "threshold", "on_off"]
IDLE = (Device("a", idle_power_w=15), Device("b", speed=2.0, power_w=300))
known = st.lists(st.floats(0, 600), min_size=60, max_size=72)
ran = st.floats(1, 600)


def saving(state: State) -> float:
    """In g, as the report states it."""
    report = make_report(state, ledger(state), baseline(state))
    assert report.saving_g is not None
    return report.saving_g


# The baseline


@given(sweeps(), known)
def test_running_at_once_saves_exactly_nothing(sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, Immediate())
    assert saving(state) == 0.0
    assert replace(baseline(state)[1], sources={}) == replace(ledger(state), sources={})


@given(known)
def test_running_at_once_saves_exactly_nothing_on_unequal_devices(grid_levels):
    state, _ = rehearsed(make_sweep(5, tiers=(RELAXED, URGENT), devices=IDLE), grid_levels, Immediate())
    assert saving(state) == 0.0


@pytest.mark.parametrize("policy", POLICIES, ids=POLICY_NAMES)
@given(sweep=sweeps(), level=ran)
def test_on_a_constant_grid_nothing_is_saved(policy, sweep, level):
    state, _ = rehearsed(sweep, [level] * 72, policy)
    assert saving(state) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=POLICY_NAMES)
@given(sweep=sweeps(), grid_levels=known)
def test_both_worlds_do_the_same_work_on_the_same_devices(policy, sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, policy)
    other, base = baseline(state)
    book = ledger(state)
    for id, standing in state.standings.items():
        last = state.attempts[standing.attempts[-1]]
        (attempt,) = (other.attempts[a] for a in other.standings[id].attempts)  # the pieces are one run
        assert attempt.device == last.device
        spans = [a.ended_at - a.requested_at for a in map(state.attempts.get, standing.attempts)]
        assert attempt.ended_at - attempt.requested_at == sum(spans, timedelta(0))
        assert base.experiments[id].energy_kwh == pytest.approx(book.experiments[id].energy_kwh)
    for device in {a.device for a in other.attempts.values()}:
        assert most_at_once(other, device) == 1
    assert min(a.requested_at for a in other.attempts.values()) == START


def test_a_saving_in_closed_form():
    state, _ = rehearsed(make_sweep(1, watts=1000), [300, 100, 100], Threshold())
    assert ledger(state).total.emissions_g == pytest.approx(100)
    assert baseline(state)[1].total.emissions_g == pytest.approx(300)
    assert saving(state) == pytest.approx(200)


def test_paused_pieces_are_joined_at_their_own_power():
    """Two hours of work, paused after one: at once it would have run through the dirty hour."""
    state, _ = rehearsed(make_sweep(1, hours=2, watts=1000), [100, 300, 100], OnOff(200, 150))
    assert [a.end for a in state.attempts.values()] == ["paused", "ended"]
    assert ledger(state).total.emissions_g == pytest.approx(200)
    other, base = baseline(state)
    assert base.total.emissions_g == pytest.approx(400)
    assert other.standings["e00"].ended_at == after(2)


def test_lost_work_and_reloads_count_in_the_actual_world_only():
    state = lost_and_done()
    other, base = baseline(state)
    assert ledger(state).total.energy_kwh == pytest.approx(5.0)
    assert base.total.energy_kwh == pytest.approx(3.5)  # one load, and a kWh each two steps
    profile = joined(list(state.attempts.values()))
    assert profile.duration == 2 * HOUR  # an hour up to the checkpoint, an hour from there
    assert [(offset / HOUR, span / HOUR, kwh) for offset, span, kwh in profile.segments] == [
        (0, 0.5, 0.5),
        (0.5, 0.5, 1),
        (1, 0.5, 1),
        (1.5, 0.5, 1),
    ]
    assert other.standings["e00"].ended_at == after(2)


def test_the_first_load_counts_also_when_the_first_attempt_left_nothing():
    stint = Stint((Member("e00", 0, 6),))
    one, two = f"{stint.id}/1", f"{stint.id}/2"
    drawn = (Segment(after(1), after(1.5), 0.5, "x", 0), Segment(after(1.5), after(2.5), 2.0, "x", 6))
    state = State(
        [
            Submitted(START, make_sweep(1)),
            Observed(START, START, HOUR, (100.0,) * 9, Provenance("a test")),
            Requested(after(0), one, stint, "d0", ""),
            Lost(after(0.9), one, "killed"),
            Requested(after(1), two, stint, "d0", ""),
            Progressed(after(2.5), two, 1, 6, {}, drawn),
            Ended(after(2.5), two, (Outcome("e00", "done", 6),)),
        ]
    )
    assert baseline(state)[1].total.energy_kwh == pytest.approx(2.5)


def test_before_anything_has_ended_there_is_no_baseline():
    assert baseline(State([Submitted(START, make_sweep())])) is None


def test_a_failed_experiment_that_left_nothing_costs_nothing_at_once():
    stint = Stint((Member("e00", 0, 6),))
    events = [Submitted(START, make_sweep(1)), Observed(START, START, HOUR, (100.0,) * 9, Provenance("a", "measured"))]
    for i in range(3):
        name = f"{stint.id}/{i + 1}"
        drawn = (Segment(after(i), after(i + 0.5), 1.0, "x", 1),)
        events += [
            Requested(after(i), name, stint, "d0", ""),
            Progressed(after(i + 0.5), name, 1, 1, {}, drawn),
        ]
        events += [Lost(after(i + 0.5), name, "killed")]
    state = State(events)
    assert state.standings["e00"].status == "failed"
    assert ledger(state).wasted.energy_kwh == ledger(state).total.energy_kwh == 3.0
    assert baseline(state)[1].total.energy_kwh == 0.0
    report = make_report(state, ledger(state), baseline(state))
    assert (report.immediate_g, report.saving_g, report.reduction) == (None, None, None)


@given(sweeps(), levels)
def test_a_rehearsal_is_repeatable(sweep, grid_levels):
    assert rehearsed(sweep, grid_levels, Threshold())[1] == rehearsed(sweep, grid_levels, Threshold())[1]
