"""Who goes on from a rung: all at once, or each by those who came before."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START, URGENT, grid, make_sweep
from gridsweep.policy.gates import Immediate
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import Sweep

EACH = Rungs((0.25, 0.5), (4, 2), together=False)


def by(losses: dict[str, float]) -> Simulated:
    """Losses that do not change on the way, the same on two samples."""

    def scored(experiment: Experiment, step: int) -> Losses:
        loss = losses[experiment.id]
        return Losses((loss, loss), (1.0, 1.0))

    return Simulated(scored=scored)


def run(sweep: Sweep, losses: dict[str, float]) -> State:
    return rehearse(sweep, START, grid(*[100.0] * 48), Immediate(), by(losses))


def falling(n: int) -> dict[str, float]:
    """The last one is the best."""
    return {f"e{i:02}": float(n - i) for i in range(n)}


def ended(state: State, status: str) -> list[str]:
    return [id for id, standing in state.standings.items() if standing.status == status]


def test_each_is_judged_by_those_who_came_before():
    losses = falling(8) | {"e00": 1.5, "e01": 0.5}  # the first two are the best, but for the last
    state = run(make_sweep(8, rungs=EACH, steps=8), losses)
    first = [event for event in state.rankings if event.step == 2]
    assert first[0].kept == ("e01",)  # of two that came, the better one goes on at once
    assert "behind others at this rung" in first[-1].why
    assert {id for event in first for id in event.kept} == {"e00", "e01", "e05", "e06", "e07"}
    assert {"e01", "e07"} <= set(ended(state, "done")) < {"e00", "e01", "e05", "e06", "e07"}


def test_who_comes_later_is_not_waited_for():
    """Experiments of the fast device do not wait at a rung for those of the slow one."""
    devices = (Device("fast", speed=10.0), Device("slow"))
    losses = {f"e{i:02}": float(i) for i in range(8)}

    def uneven(rungs: Rungs) -> State:
        sweep = make_sweep(8, rungs=rungs, steps=8, devices=devices)
        bound = tuple(replace(e, device=devices[i % 2].name) for i, e in enumerate(sweep.experiments))
        return run(replace(sweep, experiments=bound), losses)

    alone, together = uneven(EACH), uneven(replace(EACH, together=True))
    assert alone.standings["e00"].ended_at < together.rankings[0].at
    assert [event.step for event in together.rankings] == [2, 4]
    order = [event.step for event in alone.rankings]
    assert order != sorted(order)  # the second rung was decided about while others were on their way to the first
    assert ended(together, "done") == ["e00", "e01"]


def test_one_that_diverged_at_a_rung_is_stopped_there():
    losses = falling(8) | {"e07": nan}
    state = run(make_sweep(8, rungs=EACH, steps=8), losses)
    assert state.standings["e07"].status == "stopped"
    assert "e07" in {id for event in state.rankings for id in event.diverged}
    assert "e06" in ended(state, "done")


def test_without_losses_those_who_came_first_go_on():
    state = rehearse(make_sweep(8, rungs=EACH, steps=8), START, grid(*[100.0] * 48), Immediate())
    assert len(ended(state, "done")) >= 2


@given(st.permutations(range(8)), st.integers(1, 3), st.integers(1, 8), st.booleans())
@settings(max_examples=60)
def test_somebody_always_comes_to_the_end_and_the_best_does(order, devices, pack, together):
    losses = {f"e{i:02}": float(value) for i, value in enumerate(order)}
    rungs = Rungs((0.25, 0.5), (4, 2), together=together)
    state = run(make_sweep(8, rungs=rungs, steps=8, devices=devices, pack=pack), losses)
    done = ended(state, "done")
    assert min(losses, key=losses.__getitem__) in done
    assert len(done) == 2 if together else 2 <= len(done) <= 8
    assert set(done) | set(ended(state, "stopped")) == set(losses)
    assert state.finished


def test_the_baseline_is_carried_where_each_is_judged_alone():
    rungs = Rungs((0.25, 0.5), (4, 2), ("e00",), together=False)
    assert "e00" in ended(run(make_sweep(8, rungs=rungs, steps=8), falling(8)), "done")


@pytest.mark.parametrize("together", [True, False])
def test_rungs_of_unequal_tiers(together):
    sweep = make_sweep(6, rungs=Rungs((0.5,), (3,), together=together), steps=4, tiers=(URGENT,), devices=2)
    assert len(ended(run(sweep, falling(6)), "done")) >= 3
