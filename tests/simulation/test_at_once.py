"""Running at once by the short way makes the attempts that the loop makes, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import RELAXED, START, URGENT, grid, make_sweep
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.pieces import Profile
from gridsweep.policy.gates import Immediate
from gridsweep.simulation.at_once import at_once
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Added
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment, LoraParams
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Device

AXES = st.tuples(
    st.tuples(st.just("batch_size"), st.sampled_from([8, 16])), st.tuples(st.just("steps"), st.sampled_from([8, 12]))
)
DEVICES = (Device("a", idle_power_w=10), Device("b", speed=2.0), Device("c"))


def end_of(state: State) -> list[Any]:
    """All that a report takes from a baseline."""
    attempts = [
        (a.id, a.stint, a.device, a.why, a.due, a.requested_at, a.running_at, a.ended_at, a.end, a.energy, a.step)
        for a in state.attempts.values()
    ]
    standings = [
        (id, s.status, s.step, s.ended_at, s.why, s.attempts, s.latest_start, s.outcome)
        for id, s in state.standings.items()
    ]
    rungs = [(r.at, r.step, r.kept, r.stopped) for r in state.rankings]
    return [attempts, standings, rungs, [(a.at, a.after, a.experiments) for a in state.additions], state.now]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Simulated, dict[int, tuple[Experiment, ...]]]:
    n, staged = draw(st.integers(1, 9)), draw(st.booleans())
    devices = DEVICES[: draw(st.integers(1, 3))]
    tiers = draw(st.sampled_from([(URGENT,), (URGENT, RELAXED), (RELAXED, URGENT)]))
    changes: dict[str, Any] = {}
    if staged:
        changes = {"pack": draw(st.integers(1, 4))}
        if draw(st.booleans()):
            keep = draw(st.sampled_from([(n + 3, n + 2), (max(2, n // 2), 1)]))
            changes["rungs"] = Rungs(at=(0.25, 0.5), keep=keep, together=draw(st.booleans()))
    sweep = make_sweep(n, tiers=tiers, devices=devices, steps=8, **changes)
    names = [device.name for device in devices]
    pins = draw(st.lists(st.sampled_from([None, *names]), min_size=n, max_size=n))
    pinned = tuple(replace(e, device=pin) for e, pin in zip(sweep.experiments, pins, strict=True))
    if draw(st.booleans()):  # further axes: members of a stint share both
        pinned = tuple(replace(e, params=replace(e.params, more=draw(AXES))) for e in pinned)
    sweep = replace(sweep, experiments=pinned)
    later: tuple[Added, ...] = ()
    if staged and draw(st.booleans()):
        step = draw(st.sampled_from(sweep.stages))
        joined = tuple(
            Experiment(f"z{i}", LoraParams(99 + i, 1.0, 1.0, 0.0), 42, tiers[0].name, "added", None, repeats)
            for i, repeats in enumerate(draw(st.lists(st.sampled_from([None, "e00"]), min_size=1, max_size=3)))
        )
        later = (Added(START, step, joined, "added"),)
    minutes = st.sampled_from([0, 30, 60, 61, 90])
    every = [*sweep.experiments, *(e for event in later for e in event.experiments)]
    profiles = {}
    for experiment in every:
        for stage in sweep.stages_of(experiment):
            span = timedelta(minutes=draw(minutes))
            profiles[experiment.id, stage] = Profile(span, ((timedelta(0), span, draw(st.floats(0, 2))),))
    early = [e for e in every if len(sweep.stages) > 1 and draw(st.integers(0, 4)) == 0]
    stopped = {e.id: sweep.stages_of(e)[0] for e in early}
    return sweep, Simulated(profiles, stopped=stopped), later


@settings(max_examples=300)
@given(cases(), st.lists(st.one_of(st.floats(10, 600), st.just(float("nan"))), min_size=30, max_size=40))
def test_the_attempts_are_those_of_the_loop(case, levels):
    sweep, executor, later = case
    seen = grid(*levels)
    made = at_once(sweep, START, seen, executor, later)
    assert made is not None
    expected = rehearse(sweep, START, seen, Immediate(), executor, foreseen=later)
    assert end_of(made) == end_of(expected)
    assert repr(ledger(made)) == repr(ledger(expected))
    assert made.history.values.tobytes() == expected.history.values.tobytes()


def test_work_that_no_device_may_run_has_no_end():
    sweep = make_sweep(2, devices=1)
    lost = Experiment("x", LoraParams(1, 1.0, 1.0, 0.0), 42, URGENT.name, "elsewhere", "gone")
    pinned = replace(sweep, experiments=(*sweep.experiments, lost))
    assert at_once(pinned, START, grid(*[100] * 9), Simulated(), ()) is None
