from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import START, after, levels, lost_and_done, make_sweep, rehearsed, segment, sweeps
from gridsweep.accounting.ledger import Account, charge, idle_segments, kept, ledger
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.policy.situation import Start
from gridsweep.state.events import Segment, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Device


def trace(*values: float) -> Trace:
    return Trace(START, HOUR, values)


# One segment


def test_a_constant_grid_charges_energy_times_intensity():
    assert charge([segment(0.25, 5.75, 2.0)], trace(*[226.0] * 9)) == Account(2.0, pytest.approx(452.0), 0.0)


def test_a_ramp_charges_its_mean():
    ramp = trace(*range(0, 1000, 100))  # 0, 100, ..., 900
    assert charge([segment(2, 6, 1.0)], ramp).emissions_g == pytest.approx((200 + 300 + 400 + 500) / 4)


def test_a_square_wave_charges_by_the_time_in_each_half():
    wave = trace(*[100, 300] * 6)
    assert charge([segment(0, 12, 1.0)], wave).emissions_g == pytest.approx(200)
    assert charge([segment(0.5, 1.25, 3.0)], wave).emissions_g == pytest.approx(3 * (0.5 * 100 + 0.25 * 300) / 0.75)


def test_an_instant_is_charged_where_it_is():
    assert charge([segment(1, 1, 2.0)], trace(100, 300)) == Account(2.0, 600.0, 0.0)
    assert charge([segment(5, 5, 2.0)], trace(100, 300)) == Account(2.0, 0.0, 2.0)


def test_energy_of_unknown_hours_is_kept_apart():
    account = charge([segment(0, 4, 4.0)], trace(100, nan, 300))
    assert account == Account(4.0, pytest.approx(400), pytest.approx(2.0))
    assert account.mean_intensity == pytest.approx(200)
    assert Account(1.0, 0.0, 1.0).mean_intensity is None


@given(levels, st.floats(0, 50), st.floats(0.01, 20), st.lists(st.floats(0.01, 0.99), max_size=4))
def test_a_segment_cut_into_pieces_costs_the_same(values, start, length, cuts):
    edges = [start, *(start + length * cut for cut in sorted(cuts)), start + length]
    pieces = [segment(a, b, (b - a) / length) for a, b in pairwise(edges)]
    whole, parts = (charge(s, trace(*values)) for s in ([segment(start, start + length, 1.0)], pieces))
    assert parts.energy_kwh == pytest.approx(whole.energy_kwh)
    assert parts.emissions_g == pytest.approx(whole.emissions_g, abs=1e-3)
    assert parts.unknown_kwh == pytest.approx(whole.unknown_kwh, abs=1e-6)


# A sweep


@pytest.mark.parametrize("policy", [Immediate(), Threshold(), OnOff(200, 150)], ids=lambda p: type(p).__name__)
@given(sweep=sweeps(), grid_levels=levels)
def test_the_accounts_of_experiments_sum_to_the_training(policy, sweep, grid_levels):
    state, _ = rehearsed(sweep, grid_levels, policy)
    book = ledger(state)
    assert sum(a.energy_kwh for a in book.experiments.values()) == pytest.approx(book.training.energy_kwh)
    assert sum(a.emissions_g for a in book.experiments.values()) == pytest.approx(book.training.emissions_g)
    assert sum(book.sources.values()) == pytest.approx(book.training.energy_kwh)
    assert book.total == book.training + book.idle and book.idle == Account()
    assert book.ended_at == max(s.ended_at for s in state.standings.values())


def test_the_energy_of_a_sweep_is_its_estimates():
    book = ledger(rehearsed(make_sweep(3, hours=1.5, watts=425, devices=2), [100] * 9, Immediate())[0])
    assert book.training.energy_kwh == pytest.approx(3 * 1.5 * 0.425)
    assert book.training.emissions_g == pytest.approx(3 * 1.5 * 42.5)
    assert book.makespan == 3 * HOUR


def test_idle_devices_draw_from_the_submission_to_the_last_end():
    devices = (Device("d0", idle_power_w=20), Device("d1", idle_power_w=50), Device("d2"))
    sweep = make_sweep(1, devices=devices, hours=2)
    state, _ = rehearsed(sweep, [300, 100, 100, 100], Threshold())  # d0 runs from 1 to 3
    assert idle_segments(state, after(3)) == [
        Segment(after(0), after(1), 0.02, "idle", 0),
        Segment(after(0), after(3), pytest.approx(0.15), "idle", 0),
    ]
    book = ledger(state)
    assert book.idle.energy_kwh == pytest.approx(0.17)
    assert book.idle.emissions_g == pytest.approx(0.02 * 300 + 0.05 * 500)
    assert book.total.energy_kwh == pytest.approx(0.37)


class Pack:
    """Train all that waits together on the first device."""

    def decide(self, situation):
        members = tuple(work.experiment for work in situation.waiting)
        return [Start(members, 6, "d0", "packed")] if members else []


def test_a_pack_shares_its_energy_evenly():
    state, _ = rehearsed(make_sweep(3, hours=1, watts=300), [100] * 4, Pack())
    book = ledger(state)
    assert [a.energy_kwh for a in book.experiments.values()] == pytest.approx([0.3] * 3)
    assert book.total.energy_kwh == pytest.approx(0.9), "three take three times as long, where nobody knows better"


# Lost attempts


def test_work_that_no_checkpoint_kept_is_wasted_and_counted():
    book = ledger(lost_and_done())
    assert book.training.energy_kwh == pytest.approx(5.0)
    assert book.wasted == Account(1.0, pytest.approx(100.0), 0.0)


def test_what_is_kept_leaves_out_reloads():
    first, second = lost_and_done().attempts.values()
    assert [s.kwh for s in kept(first, reload=False)] == [0.5, 1]
    assert [s.kwh for s in kept(second, reload=True)] == [1, 1]


@pytest.mark.parametrize("end", ["paused", "lost"])
def test_an_attempt_stopped_before_a_step_that_was_kept_is_wasted_whole(end):
    """Interrupted while it loaded: the energy at step 0 bought nothing, though no step after it was lost."""
    state = lost_and_done(saved=0)
    next(iter(state.attempts.values())).end = end
    book = ledger(state)
    assert book.wasted == Account(2.5, pytest.approx(250.0), 0.0)
    first, second = state.attempts.values()
    assert kept(first, reload=False) == []
    assert [s.kwh for s in kept(second, reload=False)] == [0.5, 1, 1]
    assert book.reloaded == Account(), "the second attempt begins where nothing was kept: its loading is the only one"


def test_loading_again_after_an_interruption_is_counted_by_itself():
    book = ledger(lost_and_done())
    assert book.reloaded == Account(0.5, pytest.approx(50.0), 0.0)
    assert (book.wasted.energy_kwh, book.training.energy_kwh) == (1.0, 5.0)


def test_loading_after_a_rung_is_no_repetition():
    state = lost_and_done()
    state.sweep = replace(state.sweep, rungs=Rungs((1 / 3,), (1,)))
    assert state.sweep.stages == (2, 6)
    assert ledger(state).reloaded == Account()


def test_what_still_runs_is_not_wasted():
    state = lost_and_done()
    for attempt in state.attempts.values():
        attempt.ended_at = None
    assert ledger(state).wasted == Account()


def test_a_sweep_without_an_attempt_costs_nothing():
    book = ledger(State([Submitted(START, make_sweep())]))
    assert (book.total, book.makespan, book.sources) == (Account(), timedelta(0), {})
