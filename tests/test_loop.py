from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given

from builders import DAYS, RELAXED, START, URGENT, after, grid, levels, make_sweep, rehearsed, starts, sweeps
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.traces import HOUR
from gridsweep.errors import PolicyError
from gridsweep.loop import drive
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.policy.situation import Start, Wait
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import Decided, Ended, Observed, Progressed, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Device

POLICIES = [Immediate(), Threshold(), OnOff(200, 150)]
POLICY_NAMES = ["immediate", "threshold", "on_off"]


def test_at_one_instant_come_ends_then_the_grid_then_decisions_then_starts():
    _, journal = rehearsed(make_sweep(3, tiers=(URGENT, RELAXED)), [240, 200, 200], Threshold())
    at_one = [event for event in journal if event.at == after(1)]
    assert [type(e) for e in at_one] == [Progressed, Ended, Observed, Requested, Running]


def test_a_device_freed_at_an_instant_starts_at_that_instant():
    state, _ = rehearsed(make_sweep(3, hours=0.7), [100] * 3, Immediate())
    runs = [(a.requested_at, a.ended_at) for a in state.attempts.values()]
    assert runs == [(after(0), after(0.7)), (after(0.7), after(1.4)), (after(1.4), after(2.1))]


def test_a_run_starts_at_the_edge_at_which_the_grid_gets_good():
    state, _ = rehearsed(make_sweep(1, tick=timedelta(hours=6)), [300, 300, 100], Threshold())
    assert starts(state) == {"e00": 2.0}


def test_devices_are_as_fast_as_they_are():
    devices = (Device("slow", speed=0.5, power_w=40), Device("fast", speed=2.0))
    state, _ = rehearsed(make_sweep(3, devices=devices, watts=100), [500] * 9, Immediate())
    runs = {(a.device, a.requested_at, a.ended_at) for a in state.attempts.values()}
    assert runs == {
        ("slow", after(0), after(2)),
        ("fast", after(0), after(0.5)),
        ("fast", after(0.5), after(1)),
    }
    assert ledger(state).total.energy_kwh == pytest.approx(2 * 0.04 + 2 * 0.05)


def test_bound_experiments_run_where_they_are_bound_to():
    sweep = make_sweep(3, devices=2)
    sweep = replace(sweep, experiments=tuple(replace(e, device="d1") for e in sweep.experiments))
    state, _ = rehearsed(sweep, [100] * 9, Immediate())
    assert {a.device for a in state.attempts.values()} == {"d1"}
    assert starts(state) == {"e00": 0, "e01": 1, "e02": 2}


class Cleanest:
    """Wait for an hour below 100, whoever you are: a policy in five lines."""

    def decide(self, situation):
        free = zip(situation.waiting, situation.free, strict=False)
        if situation.intensity < 100:
            return [Start((work.experiment,), work.to_step, d.name, "clean") for work, d in free]
        return [Wait(work.experiment, None, "dirty") for work in situation.waiting]


def test_a_policy_of_ones_own_drives_a_sweep():
    state, journal = rehearsed(make_sweep(2, tiers=(RELAXED,)), [200, 200, 90, 300, 50], Cleanest())
    assert starts(state) == {"e00": 2, "e01": 4}
    assert [e.why for e in journal if isinstance(e, Decided)] == ["dirty"] * 2  # told once each
    assert {a.why for a in state.attempts.values()} == {"clean"}


def test_an_impossible_decision_stops_the_loop_and_not_the_journal():
    class Mad:
        def decide(self, situation):
            return [Start(("e00",), 6, "d7", "")]

    journal = []
    with pytest.raises(PolicyError):
        world = Virtual(START, grid(1), Simulated())
        drive(State([Submitted(START, make_sweep())]), journal, world, Mad())
    assert [type(e) for e in journal] == [Observed]


def test_a_fact_is_written_before_the_act_it_announces():
    journal: list = []
    acts = []

    class Watching(Simulated):
        def act(self, state):
            asked = {e.attempt for e in journal if isinstance(e, Requested)}
            assert set(state.active) <= asked
            acts.append(len(asked))

    drive(State([Submitted(START, make_sweep())]), journal, Virtual(START, grid(1), Watching()), Immediate())
    assert max(acts) == 3


def test_a_stop_is_heard_at_once_and_pauses():
    heard = []
    world = Virtual(START, grid(*[100] * 9), Simulated())
    journal: list = []
    state = State([Submitted(START, make_sweep(3))])
    asked = lambda: "enough" if world.time >= after(1.5) else ""  # noqa: E731
    drive(state, journal, world, Immediate(), stop=asked, tell=lambda s, events: heard.extend(events))
    assert heard == journal
    assert [s.status for s in state.standings.values()] == ["done", "waiting", "waiting"]
    assert state.standings["e01"].step == 3 and state.stopping == "enough" and state.finished


# A journal cut after any of its events


def figures(state: State) -> object:
    """All that a schedule is: who ran when, where, how far, at what cost."""
    runs = {
        a.id: (a.device, a.requested_at, a.running_at, a.ended_at, a.end, a.stint, a.energy)
        for a in state.attempts.values()
    }
    return runs, state.standings, ledger(state)


def resumed(journal, cut: int, provider, policy) -> State:
    kept = list(journal[:cut])
    state = State(kept)
    return drive(state, kept, Virtual(state.now, provider, Simulated()), policy)


SWEEPS = [
    make_sweep(4, tiers=(URGENT, RELAXED), devices=2, hours=1.75, steps=7),
    make_sweep(5, tiers=(RELAXED, URGENT), devices=(Device("a", speed=2), Device("b", idle_power_w=20)), hours=3),
    make_sweep(3, tiers=(RELAXED,), hours=2.5, finish_by=timedelta(hours=11)),
]


@pytest.mark.parametrize("policy", POLICIES, ids=POLICY_NAMES)
@pytest.mark.parametrize("sweep", SWEEPS, ids=["two tiers", "unequal devices", "deadline"])
def test_a_journal_cut_after_any_event_goes_on_to_the_same_schedule(sweep, policy):
    state, journal = rehearsed(sweep, DAYS, policy)
    wanted = figures(state)
    for cut in range(1, len(journal) + 1):
        assert figures(resumed(journal, cut, grid(*DAYS), policy)) == wanted, f"cut after {journal[cut - 1]}"


@pytest.mark.parametrize("policy", POLICIES, ids=POLICY_NAMES)
@given(sweep=sweeps(), grid_levels=levels)
def test_a_journal_of_any_grid_cut_anywhere_goes_on_to_the_same_schedule(policy, sweep, grid_levels):
    state, journal = rehearsed(sweep, grid_levels, policy)
    wanted = figures(state)
    for cut in range(1, len(journal) + 1, max(1, len(journal) // 4)):
        assert figures(resumed(journal, cut, grid(*grid_levels), policy)) == wanted


def test_a_finished_journal_has_nothing_to_add():
    _, journal = rehearsed(make_sweep(), DAYS, Threshold())
    kept = list(journal)
    state = State(kept)
    drive(state, kept, Virtual(state.now, grid(*DAYS), Simulated()), Threshold())
    assert kept == journal


def test_until_a_slot_is_known_nothing_is_invented():
    state, _ = rehearsed(make_sweep(1), [], Immediate())
    assert ledger(state).total.unknown_kwh == pytest.approx(0.1)
    assert ledger(state).total.emissions_g == 0
    assert state.attempts.popitem()[1].ended_at == START + HOUR
