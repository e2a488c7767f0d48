"""What users ask, as facts and their fold: driven in a virtual world by a desk with a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import START, URGENT, after, make_sweep, rehearsed, starts
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import JournalError
from gridsweep.loop import drive
from gridsweep.policy.gates import Immediate, Threshold
from gridsweep.records.requests import Found, Request
from gridsweep.runs.desk import judged
from gridsweep.selection.proposers import Proposers
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Observations, Virtual
from gridsweep.state.asked import requests
from gridsweep.state.asks import ALL
from gridsweep.state.events import Event, Submitted
from gridsweep.state.state import State
from gridsweep.state.wishes import Asked
from gridsweep.sweep.experiments import LoraParams
from gridsweep.sweep.identity import experiment_id
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import PolicyChoice, Sweep
from gridsweep.sweep.tiers import Tier

CLEAN = [100.0] * 96
OTHER = replace(make_sweep(2).experiments[0], params=LoraParams(1, 1.0, 1.0, 0.0))


class Script:
    """A desk at which each request is left at its hour after START."""

    def __init__(self, *asked: tuple[float, Request]):
        self.left = [(after(hour), f"r{i}", request) for i, (hour, request) in enumerate(asked)]

    def take(self, state: State, now: datetime) -> Sequence[Event]:
        due = next((one for one in self.left if one[0] <= now), None)
        if due is None:
            return []
        self.left.remove(due)
        return judged(state, Found(due[1], "alice", due[0], due[2]), now, START)

    def answered(self) -> None: ...

    def called(self) -> bool:
        return False

    def chosen(self, sweep: Sweep) -> tuple[Immediate, Proposers | None]:
        return Immediate(), None


def asked(sweep: Sweep, *script: tuple[float, Request], levels: Sequence[float] = CLEAN) -> tuple[State, list[Event]]:
    journal: list[Event] = [Submitted(START, sweep)]
    state = State(journal)
    grid = Observations(Trace(START, HOUR, levels), Provenance("a test"))
    drive(state, journal, Virtual(START, grid, Simulated()), Threshold(), desk=Script(*script))
    assert folded(State(journal)) == folded(state)  # what was taken is in the journal, and nothing else
    return state, journal


def folded(state: State) -> object:
    return {id: repr(s) for id, s in state.standings.items()}, repr(state.asks), state.sweep


def wish(what: str, *ids: str, **rest: object) -> Request:
    return Request(what, START, ids, **rest)  # type: ignore[arg-type]  # by name, as a table of cases has them


def test_a_paused_sweep_starts_nothing_until_it_is_resumed():
    state, _ = asked(make_sweep(4, hours=2.0), (0.5, wish("pause")), (10.0, wish("resume")))
    assert next(a.end for a in state.attempts.values()) == "paused" and state.count("done") == 4
    begun = sorted(a.requested_at for a in state.attempts.values())
    assert begun[0] == START and begun[1] == after(10.0)
    assert next(iter(state.attempts.values())).reason == "paused by alice"


def test_one_paused_experiment_waits_and_the_others_go_on():
    state, _ = asked(make_sweep(3), (0.0, wish("pause", "e00")), (5.0, wish("resume", "e00")))
    assert starts(state) == {"e01": 0.0, "e02": 1.0, "e00": 5.0}


def test_a_held_experiment_starts_when_its_hold_is_over_and_what_runs_goes_on():
    script = ((0.0, wish("hold", "e01", until=after(6.0))), (0.5, wish("hold", "e00")))
    state, journal = asked(make_sweep(3), *script)
    assert starts(state) == {"e00": 0.0, "e02": 1.0, "e01": 6.0}
    over = next(e for e in journal if isinstance(e, Asked) and e.what == "release")
    assert (over.at, over.experiments, over.by) == (after(6.0), ("e01",), "alice")
    assert [row.what for row in requests(state)] == ["hold", "hold"]  # that a hold is over was not asked


def test_the_end_of_one_hold_leaves_the_others():
    script = ((0.0, wish("hold", until=after(3.0))), (0.0, wish("hold", "e01", until=after(6.0))))
    state, _ = asked(make_sweep(2), *script)
    assert starts(state) == {"e00": 3.0, "e01": 6.0}


def test_release_now_starts_on_a_dirty_grid():
    dirty = [400.0] * 96
    state, _ = asked(make_sweep(2), (1.0, wish("release", "e01", soon=True)), levels=dirty)
    assert starts(state) == {"e01": 1.0, "e00": 4.0}  # e00 at its latest start
    assert state.attempts[state.standings["e01"].attempts[0]].why == "alice asked to start it now"
    state, _ = asked(make_sweep(2), (0.0, wish("hold")), (7.0, wish("release", soon=True)), levels=dirty)
    assert starts(state) == {"e00": 7.0, "e01": 8.0}


def test_a_cancelled_experiment_ends_and_the_rest_of_its_pack_goes_on():
    state, _ = asked(make_sweep(3, pack=3, hours=3.0), (1.0, wish("cancel", "e01")), (1.5, wish("cancel", "e01")))
    ended = state.standings["e01"]
    assert (ended.status, ended.reason, ended.ended_at) == ("cancelled", "cancelled by alice", after(1.5))
    assert state.count("done") == 2 and len(state.attempts) == 2
    rerun = baseline(state)
    assert rerun is not None and rerun[0].standings.keys() == {"e00", "e01", "e02"}


def test_a_cancelled_experiment_that_never_ran_is_not_in_the_baseline():
    state, _ = asked(make_sweep(2), (0.0, wish("cancel", "e01")))
    rerun = baseline(state)
    assert rerun is not None and rerun[0].standings.keys() == {"e00"}


def added(sweep: Sweep, *ranks: int) -> Request:
    made = []
    for r in ranks:
        params = LoraParams(r, 1.0, 1e-3, 0.0)
        id = experiment_id(params, 42, sweep.model, sweep.dataset, sweep.recipe)
        made.append(replace(sweep.experiments[0], id=id, params=params))
    return Request("add", START, sweep=replace(sweep, experiments=()), added=tuple(made))


def test_added_experiments_are_the_users_and_run_at_once_from_when_they_were_added():
    sweep = make_sweep(1)
    state, _ = asked(sweep, (0.5, added(sweep, 2, 4)))
    assert state.count("done") == 3 and len(state.sweep.experiments) == 3
    rerun = baseline(state)
    assert rerun is not None
    assert starts(rerun[0]) == starts(state)
    late = make_sweep(1, hours=0.25)
    state, _ = asked(late, (0.0, wish("hold", "e00", until=after(4.0))), (3.0, added(late, 2)))
    rerun = baseline(state)
    assert rerun is not None and [a.requested_at for a in rerun[0].attempts.values()] == [START, after(3.0)]


def varied(**axes):
    """An experiment with further axes."""
    one = make_sweep(9).experiments[8]
    return replace(one, params=one.params.having(**axes))


def test_changed_keys_take_effect_and_are_told():
    sweep = make_sweep(4)
    four = replace(make_sweep(4, devices=4), experiments=(), finish_by=24 * HOUR)
    state, _ = asked(sweep, (0.5, Request("add", START, sweep=four)))
    assert starts(state) == {"e00": 0.0, "e01": 0.5, "e02": 0.5, "e03": 0.5}
    row = requests(state)[0]
    assert row.changes == ("devices: 1 before, 4 now", "finish_by: None before, 24 h now")


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (wish("pause", "e99"), "the sweep has no experiment e99"),
        (wish("cancel"), "it names no experiment; `gridsweep stop` ends the run"),
        (wish("cancel", "e00"), "e00 has ended (done); nothing was changed"),
        (wish("hold", "e01", until=START), "2024-06-10 00:00 UTC is past: the sweep's time is 2024-06-10 01:30 UTC"),
        (wish("unknown"), "it asks for nothing that is known"),
        (Request("stop", after(-1)), "it was asked before this run began"),
        (Request("add", START), "it names no sweep"),
        (Request("add", START, sweep=make_sweep(2, steps=7)), "only tiers, policy, devices"),
        (Request("add", START, sweep=make_sweep(0, devices=0)), "it names no device or no tier"),
        (Request("add", START, sweep=make_sweep(0, tiers=())), "it names no device or no tier"),
        (Request("add", START, sweep=make_sweep(0, devices=(Device("d0", speed=1e308),))), "speed"),
        (Request("add", START, sweep=make_sweep(0, devices=(Device("a\x1b[31m"),))), "device 'a'"),
        (Request("add", START, sweep=make_sweep(0, devices=(Device("d0", power_w=-5.0),))), "power_w"),
        (Request("add", START, sweep=make_sweep(0, finish_by=999_999 * 24 * HOUR)), "finish_by must be above 0"),
        (Request("add", START, sweep=make_sweep(0, finish_by=-HOUR)), "finish_by must be above 0"),
        (Request("add", START, sweep=make_sweep(0, finish_by=START.replace(tzinfo=None))), "time zone"),
        (Request("add", START, sweep=make_sweep(0, pack=10**30)), "pack must be from 1 to"),
        (Request("add", START, sweep=make_sweep(0, finish_by=0.4 * HOUR)), "which is past: the sweep's time is"),
        (Request("add", START, sweep=make_sweep(0, finish_by=1.6 * HOUR)), "and finish_by leaves"),
        (Request("add", START, sweep=make_sweep(0, tiers=(Tier("tier1", -1.0, HOUR, 0),))), "threshold must be"),
        (Request("add", START, sweep=make_sweep(0, tiers=(Tier("tier1", math.nan, HOUR, 0),))), "threshold must be"),
        (Request("add", START, sweep=make_sweep(0, policy=PolicyChoice("planned", {"exact": 7.0}))), "policy: planned"),
        (Request("release", START, ("e01",), until=after(9)), "only a hold has an end; release takes no until"),
        (Request("pause", START, ("e01",), until=after(9)), "only a hold has an end; pause takes no until"),
        (Request("add", START, sweep=make_sweep(0, tiers=(replace(URGENT, max_delay=-HOUR),))), "its max_delay"),
        (
            Request(
                "add",
                START,
                sweep=make_sweep(0),
                added=(replace(make_sweep(2).experiments[0], params=LoraParams(1, 1.0, 1.0, 0.0)),),
            ),
            "is another experiment",
        ),
        (wish("pause", "\x1b[31mred\nnext: run evil"), "no experiment red next: run evil"),
        (
            Request("add", START, sweep=make_sweep(0), added=make_sweep(9).experiments[8:]),
            "e08 is not an experiment of",
        ),
        (Request("add", START, sweep=make_sweep(0), added=(varied(evil=1),)), "e08 varies evil, which is no axis"),
        (Request("add", START, sweep=make_sweep(0), added=(varied(steps=0),)), "e08 is no experiment: steps must be"),
        (Request("add", START, sweep=make_sweep(0), added=(varied(clip="a"),)), "e08 is no experiment: clip must be"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(request_, told):
    sweep = make_sweep(2, hours=1.0)
    state, _ = asked(sweep, (1.5, request_))
    assert told in state.asks.taken["r0"].refused
    plain, _ = rehearsed(sweep, CLEAN, Threshold())
    assert starts(state) == starts(plain) and state.count("done") == 2


def test_a_request_for_an_experiment_of_another_sweep_does_not_fit_the_journal():
    with pytest.raises(JournalError, match="event 2: Asked does not fit"):
        State([Submitted(START, make_sweep(1)), Asked(START, "x", "pause", "alice", START, ("e07",))])


wishes = st.builds(
    lambda what, ids, hours, soon: wish(
        what, *ids, until=hours and after(hours) if what == "hold" else None, soon=soon
    ),
    st.sampled_from(["pause", "resume", "hold", "release", "cancel"]),
    st.lists(st.sampled_from(["e00", "e01", "e02", "e03"]), unique=True, max_size=3),
    st.one_of(st.none(), st.floats(0.5, 30.0)),
    st.booleans(),
)


@given(st.lists(st.tuples(st.floats(0, 12), wishes), max_size=8), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_whatever_is_asked_each_experiment_ends_done_or_cancelled(script, pack, devices):
    sweep = make_sweep(4, hours=1.5, pack=pack, devices=devices, tiers=(URGENT,))
    script = [*script, (40.0, wish("resume")), (40.0, wish("release"))]
    state, journal = asked(sweep, *script, levels=[100.0] * 200)
    assert {s.status for s in state.standings.values()} <= {"done", "cancelled"}
    assert {id for id, s in state.standings.items() if s.status == "cancelled"} <= state.asks.cancelled.keys()
    assert ALL not in state.asks.soon
    for cut in range(1, len(journal), max(1, len(journal) // 7)):  # a crash anywhere
        State(journal[:cut])


def test_a_frozen_state_keeps_what_was_asked():
    from test_frozen import check

    sweep = make_sweep(4, pack=2)
    script = ((0.0, wish("hold", "e01", until=after(3.0))), (0.5, wish("cancel", "e00")), (0.5, added(sweep, 2)))
    more = ((1.0, wish("pause")), (5.0, wish("pause", "e99")), (6.0, wish("resume", soon=True)))
    journal = asked(sweep, *script, *more)[1]
    check(journal, list(range(1, len(journal), 3)))
