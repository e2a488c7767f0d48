"""Deadlines that were missed are told: by whom, by how much, in every place where people look."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from builders import START, URGENT, after, make_sweep, rehearsed
from gridsweep import errors
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.policy.gates import Immediate, Threshold
from gridsweep.records import codec
from gridsweep.render import answers, html, markdown, promises, terminal
from gridsweep.render.glance import picture
from gridsweep.render.screen import console
from gridsweep.runs.run import exit_code
from gridsweep.simulation.baseline import baseline
from gridsweep.state.events import Held, Observed, Requested, Resumed, Running, Submitted
from gridsweep.state.glance import glance
from gridsweep.state.overdue import Overdue, overdue
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint
from gridsweep.sweep.sweep import PolicyChoice


def report_of(state: State) -> Report:
    return make_report(state, ledger(state), baseline(state))


def late_sweep(**changes) -> State:
    """Six experiments of two hours on one device, each of which may wait four hours: three start late."""
    return rehearsed(make_sweep(6, hours=2, **changes), [300] * 40, Immediate())[0]


def requested(at: float, id: str = "e00") -> list[Requested | Running]:
    stint = Stint((Member(id, 0, 6),))
    return [Requested(after(at), f"{stint.id}/1", stint, "d0", "runs at once")]


def test_every_late_start_is_told_with_its_delay():
    state = late_sweep()
    assert overdue(state) == [
        Overdue("e05", "start", after(4), after(10), 6.0),
        Overdue("e04", "start", after(4), after(8), 4.0),
        Overdue("e03", "start", after(4), after(6), 2.0),
    ]
    assert report_of(state).overdue == tuple(overdue(state))


def test_the_reason_of_the_decision_says_that_it_was_overdue():
    state = late_sweep()
    whys = {attempt.stint.members[0].experiment: attempt.why for attempt in state.attempts.values()}
    assert (whys["e02"], whys["e05"]) == ("runs at once", "overdue by 6 h: runs at once")
    assert report_of(state).rows[-1].why.startswith("overdue by ")


def test_what_ended_after_finish_by_is_told_too():
    state = late_sweep(finish_by=timedelta(hours=9))
    ends = [one for one in overdue(state) if one.kind == "end"]
    assert ends == [
        Overdue("e05", "end", after(9), after(12), 3.0),
        Overdue("e04", "end", after(9), after(10), 1.0),
    ]


def test_a_missed_deadline_is_exit_code_124_and_a_kept_one_is_0():
    assert exit_code(late_sweep()) == errors.DEADLINE
    assert exit_code(late_sweep(devices=2)) == errors.DONE
    kept = rehearsed(make_sweep(1, finish_by=timedelta(hours=1)), [100] * 9, Immediate())[0]
    assert exit_code(kept) == errors.DONE and overdue(kept) == []


def test_a_start_within_the_least_wait_is_in_time():
    def begun(hours: float, **changes) -> list[Overdue]:
        return overdue(State([Submitted(START, make_sweep(1, **changes)), *requested(hours)]))

    assert begun(4 + 1 / 6) == [] and len(begun(4 + 1 / 5)) == 1
    assert begun(4 + 1 / 60, min_wait=timedelta(0)) == []  # the loop looks a moment after it is due
    assert len(begun(4 + 1 / 30, min_wait=timedelta(0))) == 1


def test_what_has_not_started_yet_is_told_as_soon_as_it_is_late():
    seen = Observed(after(9), START, HOUR, (300.0,) * 10, Provenance("a test"))
    state = State([Submitted(START, make_sweep(1, finish_by=timedelta(hours=8))), seen])
    assert [(one.kind, one.at, one.late_h) for one in overdue(state)] == [("start", None, 5.0), ("end", None, 1.0)]
    assert promises.overdue(overdue(state)) == [
        "e00 has not started: 5 h past its latest start, 2024-06-10 04:00 UTC",
        "e00 has not ended: 1 h past finish_by, 2024-06-10 08:00 UTC",
    ]


def test_a_wait_ends_when_the_worker_starts_and_not_when_it_has_loaded(capsys):
    """Loading took 2.8 hours of a replayed clock: `explain` said 21:00 and the report 23:48."""
    name = f"{Stint((Member('e00', 0, 6),)).id}/1"
    state = State([Submitted(START, make_sweep(1)), *requested(3), Running(after(5.8), name)])
    (row,) = report_of(state).rows
    assert (row.started_at, row.wait_h) == (after(3), 3.0)
    assert overdue(state) == []
    terminal.explain(state, state.standings["e00"])
    assert "started   2024-06-10 03:00 UTC on d0" in capsys.readouterr().out
    assert answers.explanation(state, state.standings["e00"]).started_at == after(3)


def test_what_something_outside_holds_back_has_not_started():
    name = f"{Stint((Member('e00', 0, 6),)).id}/1"
    events = [Submitted(START, make_sweep(1)), *requested(1), Held(after(1), name, "Kueue", "no quota")]
    assert State(events).start_of("e00") is None
    events.append(Held(after(6), name, "", ""))
    assert [(one.at, one.late_h) for one in overdue(State(events))] == [(after(6), 2.0)]
    untold = State([*events[:-1], Running(after(7), name)])
    assert untold.start_of("e00") == after(7)


def test_a_later_change_of_a_tier_makes_no_start_late():
    sweep = make_sweep(2)
    strict = replace(sweep, tiers=(replace(URGENT, max_delay=HOUR),))
    state = State([Submitted(START, sweep), *requested(3), Resumed(after(3.5), 2, strict, ("tiers",))])
    assert [one.id for one in overdue(state)] == ["e01"]


def test_every_report_and_the_status_say_which_and_by_how_much(capsys):
    state = late_sweep(finish_by=timedelta(hours=9))
    report = report_of(state)
    said = "e05 started 6 h after its latest start, 2024-06-10 04:00 UTC"
    assert said in html.render(report) and "Missed deadlines" in html.render(report)
    assert f"- {markdown.escape(said)}" in markdown.render(report) and "(6 h late)" in markdown.render(report)
    assert codec.loads(Report, codec.dumps(report)).overdue == report.overdue
    summary = (
        "3 experiments started after their latest start: e05 by 6 h, e04 by 4 h, e03 by 2 h; "
        "2 experiments ended after finish_by: e05 by 3 h, e04 by 1 h"
    )
    assert any(summary in line for line in terminal.headline(report))
    told = answers.status_of(state, Path("runs/a"), None).overdue
    assert [(one.id, one.kind, one.late_h) for one in told][:1] == [("e05", "start", 6.0)]
    console().print(picture(glance(state)), width=300, soft_wrap=True)
    assert summary in capsys.readouterr().out


def test_what_started_late_and_what_still_waits_are_named_apart():
    found = [
        Overdue("e03", "start", after(4), None, 2.5),
        Overdue("e01", "start", after(4), after(6), 2.0),
        Overdue("e02", "start", after(4), None, 1.5),
    ]
    assert promises.summary(found) == (
        "1 experiment started after its latest start: e01 by 2 h; "
        "2 experiments have not started by their latest start: e03 by 2.5 h, e02 by 1.5 h"
    )
    many = [Overdue(f"e{i:02}", "end", after(4), None, 9.0 - i) for i in range(7)]
    assert promises.summary(many).endswith("e03 by 6 h, e04 by 5 h and 2 more")


def test_nothing_is_said_where_all_deadlines_held():
    state, _ = rehearsed(make_sweep(3), [300, 300, 100, 100, 100, 100, 100], Threshold())
    report = report_of(state)
    assert report.overdue == () and "Missed deadlines" not in markdown.render(report) + html.render(report)
    assert not any("overdue" in line for line in terminal.headline(report))


@pytest.mark.parametrize(("policy", "quoted"), [("threshold", True), ("planned", False), ("immediate", False)])
def test_a_limit_is_quoted_only_where_the_policy_minds_it(capsys, policy, quoted):
    sweep = make_sweep(1, policy=PolicyChoice(policy))
    terminal.explain(State([Submitted(START, sweep)]), State([Submitted(START, sweep)]).standings["e00"])
    explained = capsys.readouterr().out
    assert ("starts at or below 250" in explained) == quoted and "waits at most 4 h" in explained
    terminal.check(sweep)
    assert ("250 gCO2eq/kWh" in capsys.readouterr().out) == quoted
