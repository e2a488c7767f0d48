"""A frozen state, thawed, shows the same status as the state it was made of, and folds on like it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import DAYS, START, after, levels, lost_and_done, make_sweep, rehearsed, sweeps
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.policy.gates import OnOff, Threshold
from gridsweep.records import codec
from gridsweep.render import documents
from gridsweep.render.answers import status_of
from gridsweep.state.events import Event, Observed, Submitted
from gridsweep.state.frozen import Frozen, freeze, thaw
from gridsweep.state.glance import from_plain, glance, plain
from gridsweep.state.observed_grid import Grid
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked, Wish
from gridsweep.sweep.rungs import Rungs


def shown(state: State) -> tuple[object, str]:
    """All that a status shows of a state."""
    return plain(glance(state)), documents.text(status_of(state, Path("runs/x"), None))


def again(state: State) -> State:
    """The state as a snapshot keeps it."""
    return thaw(codec.loads(Frozen, codec.dumps(freeze(state))))


def check(events: list[Event], cuts: list[int]) -> None:
    """Compare the whole fold with one that is frozen and thawed at each cut, after every event."""
    whole, other = State(), State()
    for n, event in enumerate(events, 1):
        whole.apply(event)
        other.apply(event)
        if n in cuts:
            other = again(other)
        assert shown(other) == shown(whole), f"after event {n}, {event.kind}"
        assert from_plain(json.loads(json.dumps(plain(glance(other))))) == glance(whole)


POLICIES = st.sampled_from([Threshold(), OnOff(200, 150)])


@settings(max_examples=30)
@given(sweeps(), levels, POLICIES, st.data())
def test_a_cut_changes_nothing(sweep, grid_levels, policy, data):
    events = rehearsed(sweep, grid_levels, policy)[1]
    check(events, data.draw(st.lists(st.integers(1, len(events)), max_size=3)))


def test_a_cut_before_every_event_changes_nothing_at_rungs():
    rungs = Rungs(at=(0.25, 0.5), keep=(4, 2))
    events = rehearsed(make_sweep(8, steps=8, pack=2, devices=2, rungs=rungs), DAYS, Threshold())[1]
    check(events, list(range(1, len(events) + 1)))


def old_events() -> dict[str, list[Event]]:
    """The journals of real runs: killed, raced, stopped, troubled, with outages."""
    import tempfile

    import old_runs

    found = {}
    for name in old_runs.names():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = old_runs.events(old_runs.unpack(name, Path(folder)))
    return found


OLD = old_events()


@pytest.mark.parametrize("name", OLD)
def test_a_cut_of_a_real_journal_changes_nothing(name):
    events = OLD[name]
    cuts = random.Random(name).sample(range(1, len(events) + 1), min(12, len(events)))
    check(events, cuts)


def test_a_lost_attempt_goes_on():
    state = lost_and_done()
    assert shown(again(state)) == shown(state)
    assert shown(again(again(state))) == shown(state)


def test_a_grid_is_kept_with_its_provenances_and_its_foreign_slots():
    grid = Grid()
    grid.take(Observed(START, START, HOUR, (None, 5.0), Provenance("m", kind="marginal")))
    grid.take(Observed(START, START, HOUR, (7.0, 8.0), Provenance("a", kind="average")))
    marked = grid.marked()
    assert marked is not None and marked.foreign == 2
    other = Grid.of(marked, grid.provenances)
    for each in (grid, other):
        each.take(Observed(after(2), after(-1), HOUR, (1.0,), Provenance("m", kind="marginal")))
        each.take(Observed(after(2), after(5), HOUR, (2.0, None), Provenance("b", kind="marginal")))
    assert grid.marked() == other.marked() and grid.provenances == other.provenances
    assert Grid().marked() is None


def test_requests_are_kept_once_however_many_experiments_they_name():
    events = rehearsed(make_sweep(3), DAYS, Threshold())[1][:1]
    first = events[0]
    assert isinstance(first, Submitted)
    one = first.sweep.experiments[0]
    ids = [f"experiment-{n:05d}" for n in range(2000)]
    sweep = replace(first.sweep, baseline=ids[0], experiments=tuple(replace(one, id=id) for id in ids))
    events = [replace(first, sweep=sweep)]
    events += [asked(n, "pause", ids[n * 100 : n * 100 + 100]) for n in range(5)]
    events += [asked(5, "resume", ids[:10]), asked(6, "hold", []), asked(7, "cancel", ids[:1000])]
    events += [asked(8, "resume", ids[400:500], soon=True), asked(9, "cancel", ids[1000:])]
    check(events, [3, 6, 7, 8, 10])
    state = State(events)
    frozen = freeze(state)
    assert len(frozen.asks.requests) == 10
    assert len(codec.dumps(frozen.asks)) < 6 * len(codec.dumps(ids))
    kept = again(state).asks
    assert kept == state.asks and kept.cancelled[ids[0]] is kept.cancelled[ids[999]] is kept.taken["request-7"]


def asked(n: int, what: Wish, experiments: list[str], *, soon: bool = False) -> Asked:
    return Asked(after(n), f"request-{n}", what, "somebody", START, tuple(experiments), soon=soon)
