"""Who joins a sweep on the way: repeats of the best, points for freed places."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START, grid, make_sweep
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import make_report
from gridsweep.carbon.traces import HOUR
from gridsweep.loop import drive
from gridsweep.policy.gates import Immediate
from gridsweep.policy.planner.planned import Planned
from gridsweep.render import markdown
from gridsweep.schedule.worklist import ahead, expected, staged_makespan, waiting
from gridsweep.selection.joining import added
from gridsweep.selection.proposers import BeyondTheEdge
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import Event, Resumed, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment, LoraParams
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import Proposals, Repeats, Rungs
from gridsweep.sweep.sweep import Sweep

FLAT = [100.0] * 96


def scored(experiment: Experiment, step: int) -> Losses:
    """The larger the rank the better; other seeds are up to 0.3 worse, and samples differ."""
    loss = 100 - experiment.params.r - experiment.params.lr * 1000 + 0.1 * (experiment.seed - 42)
    return Losses((loss, loss + 1, loss + 2), (1.0, 2.0, 1.0))


def driven(sweep: Sweep, events: list[Event] | None = None, policy=None, proposers=None, levels=FLAT) -> State:
    journal = events if events is not None else []
    if not journal:
        journal.append(Submitted(START, sweep))
    state = State(journal)
    world = Virtual(max(START, state.now), grid(*levels), Simulated(scored=scored))
    return drive(state, journal, world, policy or Immediate(), proposers=proposers)


# -- repeats


def test_the_best_are_repeated_once_everybody_has_ended():
    state = driven(make_sweep(5, repeats=Repeats(seeds=3, finalists=2)))
    repeats = [s.experiment for s in state.standings.values() if s.experiment.repeats]
    assert sorted((e.repeats, e.seed) for e in repeats) == [("e03", 43), ("e03", 44), ("e04", 43), ("e04", 44)]
    assert all(s.status == "done" for s in state.standings.values())
    first_end = max(s.ended_at for id, s in state.standings.items() if not s.experiment.repeats)
    assert min(s.first_running_at for s in state.standings.values() if s.experiment.repeats) >= first_end
    assert [event.after for event in state.additions] == [6]


def test_repeats_pass_the_rungs_by_and_share_a_stint_by_seed():
    sweep = make_sweep(8, rungs=Rungs((0.5,), (3,)), repeats=Repeats(3, 3), pack=8)
    state = driven(sweep)
    stints = [
        a.stint for a in state.attempts.values() if state.standings[a.stint.members[0].experiment].experiment.repeats
    ]
    assert sorted(len(stint.members) for stint in stints) == [3, 3]
    for stint in stints:
        assert {(m.from_step, m.to_step) for m in stint.members} == {(0, 6)}
        assert len({state.standings[m.experiment].experiment.seed for m in stint.members}) == 1
    assert state.count("stopped") == 5


def test_repeats_to_come_are_planned_with_and_counted_for_a_deadline():
    sweep = make_sweep(4, repeats=Repeats(3, 2), hours=1.0)
    assert [len(works) for works in expected(sweep, 6, 4)] == [4]
    fresh = State([Submitted(START, sweep)])
    assert len(waiting(fresh)) == 4 and len(ahead(fresh)) == 4
    assert staged_makespan(sweep, START) == staged_makespan(replace(sweep, repeats=None), START) * 2


@given(st.integers(2, 6), st.integers(2, 3), st.integers(1, 3), st.integers(1, 2))
@settings(max_examples=30)
def test_a_deadline_holds_with_repeats(n, seeds, finalists, devices):
    sweep = make_sweep(n, repeats=Repeats(seeds, finalists), devices=devices)
    sweep = replace(sweep, finish_by=staged_makespan(sweep, START) * 1.5)
    state = rehearse(sweep, START, grid(*[300, 200, 100, 50] * 30), Planned(min_saving=0.0))
    assert state.finished and state.count("done") == len(state.standings)
    assert ledger(state).ended_at <= START + sweep.finish_by


def test_a_journal_cut_anywhere_gets_the_same_repeats():
    sweep = make_sweep(4, rungs=Rungs((0.5,), (2,)), repeats=Repeats(2, 2), pack=2)
    whole: list[Event] = []
    wanted = driven(sweep, whole)
    for cut in range(1, len(whole)):
        part = whole[:cut]
        state = driven(sweep, part)
        assert {id: (s.status, s.step) for id, s in state.standings.items()} == {
            id: (s.status, s.step) for id, s in wanted.standings.items()
        }


def test_repeats_asked_for_afterwards_are_made():
    sweep = make_sweep(3)
    journal: list[Event] = []
    state = driven(sweep, journal)
    journal.append(Resumed(state.now, 2, replace(sweep, repeats=Repeats(2, 1))))
    state = driven(sweep, journal)
    assert [s.experiment.repeats for s in state.standings.values()] == [None, None, None, "e02"]
    assert state.standings[list(state.standings)[-1]].status == "done"


def test_who_is_repeated_is_ranked_by_the_mean_and_paired_by_seed():
    state = driven(make_sweep(4, repeats=Repeats(3, 2)))
    report = make_report(state, ledger(state), baseline(state))
    first, second, third, *_ = report.rows
    assert (first.experiment, first.seeds, second.seeds, third.seeds) == ("e03", 3, 3, 1)
    assert first.loss == pytest.approx(100 - 11 - 0.1 + 1 + 0.1)
    assert first.spread == pytest.approx(0.1)
    repeats = [row for row in report.rows if row.repeats]
    assert len(repeats) == 4 and all(row.place is None and row.difference is None for row in repeats)
    assert [row.place for row in report.rows if row.place] == [1, 2, 3, 4]
    assert sum(row.energy_kwh for row in report.rows) == pytest.approx(report.energy_kwh)


def test_running_at_once_repeats_after_everybody_has_ended_too():
    sweep = make_sweep(4, repeats=Repeats(2, 2), devices=2)
    state = driven(sweep)
    other, book = baseline(state)
    assert other.standings.keys() == state.standings.keys()
    assert book.total.emissions_g == pytest.approx(ledger(state).total.emissions_g)
    assert book.ended_at == ledger(state).ended_at


def test_a_sweep_that_was_halted_repeats_nobody():
    state = driven(make_sweep(2))
    state.sweep = replace(state.sweep, repeats=Repeats())
    state.halted = "everything fails alike"
    assert added(state, state.now) == []


# -- over the full base


def proxied(n: int, **changes) -> Sweep:
    """All over a base in 4 bits."""
    sweep = make_sweep(n, **changes)
    return replace(sweep, experiments=tuple(replace(e, base="4-bit") for e in sweep.experiments))


@pytest.mark.parametrize("repeats", [None, Repeats(2, 2)])
def test_the_winner_of_a_proxy_is_trained_over_the_full_base(repeats):
    state = driven(proxied(4, rungs=Rungs((0.5,), (2,)), pack=4, repeats=repeats))
    final = state.sweep.retrained
    assert (final.repeats, final.base, final.seed) == ("e03", "full", 42)
    assert final.params == state.standings["e03"].experiment.params
    standing = state.standings[final.id]
    assert standing.status == "done" and len(standing.attempts) == 1
    others = [s for id, s in state.standings.items() if id != final.id]
    assert standing.first_running_at >= max(s.ended_at for s in others)
    assert sum(e.base == "full" for e in state.sweep.experiments) == 1


def test_who_was_trained_over_the_full_base_stands_first_and_is_compared_with_nobody():
    state = driven(proxied(3))
    report = make_report(state, ledger(state), baseline(state))
    first, second, *_ = report.rows
    assert (first.experiment, first.place, first.difference) == (state.sweep.retrained.id, 1, None)
    assert (second.experiment, second.place, second.difference) == ("e02", 2, 0.0)
    assert report.reference == "e02" and report.best == first
    assert "(full base)" in markdown.render(report)


def test_the_run_over_the_full_base_is_planned_with():
    sweep = proxied(4, hours=1.0)
    assert [len(works) for works in expected(sweep, 6, 4)] == [1]
    state = rehearse(replace(sweep, finish_by=staged_makespan(sweep, START)), START, grid(*FLAT), Planned())
    assert state.count("done") == 5 and ledger(state).ended_at == START + 5 * HOUR


# -- proposals


RUNGS = Rungs((0.25, 0.5), (4, 2))


def swept(**changes) -> Sweep:
    """Eight points of which the best sits on the edge of two axes."""
    sweep = make_sweep(8, rungs=RUNGS, steps=8, pack=8, propose=Proposals("edge", 2), **changes)
    points = (LoraParams(8 + i, 32.0, (1 + i // 4) * 1e-4, 0.05) for i in range(8))
    pairs = zip(sweep.experiments, points, strict=True)
    return replace(sweep, experiments=tuple(replace(e, params=params) for e, params in pairs))


def test_freed_places_go_to_points_beyond_the_edge():
    state = driven(swept(), proposers=BeyondTheEdge)
    new = [s for s in state.standings.values() if s.experiment.reason.startswith("proposed by edge after step 2")]
    assert len(new) == 2
    assert max(s.experiment.params.lr for s in new) > 2e-4
    assert [event.after for event in state.additions] == [2]
    assert {s.status for s in new} <= {"done", "stopped"}
    assert any(s.status == "done" for s in new)  # it is better than all before it, and was let through both rungs
    report = make_report(state, ledger(state), baseline(state))
    assert report.best.experiment in {s.experiment.id for s in new}


def test_newcomers_are_judged_by_those_who_were_there_before():
    state = driven(swept(), proposers=BeyondTheEdge)
    new = {e.id for event in state.additions for e in event.experiments}
    second = next(event for event in state.rankings if event.step == 4)
    alone = [event for event in state.rankings if event.step == 2][1:]
    assert {id for event in alone for id in (*event.kept, *event.stopped)} == new
    assert set(second.kept) & new


def test_places_are_freed_where_each_is_judged_alone_too():
    sweep = swept()
    sweep = replace(sweep, rungs=replace(sweep.rungs, together=False), pack=1)
    state = driven(sweep, proposers=BeyondTheEdge)
    (event,) = state.additions  # asked once, when the first place was free
    assert event.after == 2 and 1 <= len(event.experiments) <= 2
    assert state.finished and any(s.status == "done" for s in state.standings.values())


def test_a_plan_asks_nobody():
    state = rehearse(swept(), START, grid(*FLAT), Immediate())
    assert not state.additions


def test_a_cut_journal_asks_nobody_twice():
    whole: list[Event] = []
    wanted = driven(swept(), whole, proposers=BeyondTheEdge)
    for cut in range(1, len(whole), 3):
        state = driven(swept(), whole[:cut], proposers=BeyondTheEdge)
        assert state.standings.keys() == wanted.standings.keys()
        assert len(state.additions) == 1


def test_that_nobody_proposed_anything_is_noted():
    class Nothing:
        def ask(self):
            return None

        def tell(self, params, value):
            assert value >= 0

    state = driven(swept(), proposers=lambda tried: Nothing())
    assert [event.experiments for event in state.additions] == [()]


def test_running_at_once_newcomers_come_after_the_same_rung():
    state = driven(swept(), proposers=BeyondTheEdge)
    other, book = baseline(state)
    assert other.standings.keys() == state.standings.keys()
    assert book.total.energy_kwh == pytest.approx(ledger(state).total.energy_kwh)
    assert {id: s.status for id, s in other.standings.items()} == {id: s.status for id, s in state.standings.items()}
