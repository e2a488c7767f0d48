"""What the plan promised stands beside what came, and the causes of the difference add up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from builders import START, after, grid, make_sweep, segment
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.policy.registry import policy_for
from gridsweep.records import codec
from gridsweep.render import accounts, html, markdown, promises, terminal
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.plan import plan
from gridsweep.simulation.promises import promise, promised
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.state.events import Event, Paused, Progressed, Promised, Requested, Resumed
from gridsweep.state.state import State
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Member, Outcome, Stint
from gridsweep.sweep.sweep import PolicyChoice
from gridsweep.sweep.tiers import Tier

PATIENT = Tier("patient", 150.0, 24 * HOUR, 1)
DAY = [300.0] * 9 + [100.0] * 8 + [300.0] * 7
PLANNED = PolicyChoice("planned")


class Expecting:
    """A grid whose forecast is given once and for all, whatever comes."""

    def __init__(self, came, expected):
        self.came = Trace(START - 24 * HOUR, HOUR, [200.0] * 24 + list(came))
        self.expected = Trace(START, HOUR, list(expected))

    def read(self, now):
        past = self.came.between(self.came.start, now + timedelta(microseconds=1))
        slot = START + self.expected.index(now) * HOUR
        ahead = self.expected.between(slot, self.expected.end)
        forecast = Forecast(now, ahead.start, HOUR, np.array([ahead.values]), "given")
        return Reading(past, lambda: forecast, Provenance("a test"))


def ran(sweep, provider, factors=None) -> State:
    """The sweep as it really goes, with the promise in its journal."""
    told = promised(sweep, provider.read(START), START)
    journal: list[Event] = []
    rehearse(sweep, START, provider, policy_for(sweep.policy), Simulated(factors=factors), journal)
    return State([journal[0], told, *journal[1:]])


def report_of(state: State) -> Report:
    book, other = ledger(state), baseline(state)
    return make_report(state, book, other, promise(state, book, other))


def sweep_of(n: int = 3, **changes):
    return make_sweep(n, **{"tiers": (PATIENT,), "policy": PLANNED, "watts": 1000} | changes)


def test_the_promise_is_what_the_plan_says():
    sweep, provider = sweep_of(), Expecting(DAY * 4, DAY * 4)
    told, made = promised(sweep, provider.read(START), START), plan(sweep, provider, START)
    assert (told.emissions_g, told.immediate_g) == (made.emissions_g, made.emissions_immediate_g)
    assert (told.finish, told.finish_immediate, told.work) == (made.finish, made.finish_immediate, 3 * HOUR)
    assert (told.forecast, told.start, told.values[:24]) == ("given", START, tuple(DAY))
    assert codec.loads(Promised, codec.dumps(told)) == told


def test_a_promise_that_comes_true_has_no_difference():
    made = report_of(ran(sweep_of(), Expecting(DAY * 4, DAY * 4))).promise
    assert (made.promised, made.came) == pytest.approx((2 / 3, 2 / 3))
    assert (made.length, made.durations, made.grid, made.rest) == pytest.approx((1.0, 0.0, 0.0, 0.0))
    assert (made.promised_g, made.promised_h) == pytest.approx((made.came_g, made.came_h))


def test_work_that_takes_longer_is_told_as_the_cause():
    """Twelve hours on one device: eight were promised the sun, and twice as long runs out of it."""
    factors = {f"e{i:02}": 3.0 for i in range(4)}
    made = report_of(ran(sweep_of(4), Expecting(DAY * 8, DAY * 8), factors)).promise
    assert made.length == pytest.approx(3.0)
    assert made.durations < -0.05 and abs(made.grid) < 1e-9
    told = promises.promise(report_of(ran(sweep_of(4), Expecting(DAY * 8, DAY * 8), factors)))
    assert "(the work took 3.0 times as long as planned)" in told
    assert made.durations + made.grid + made.rest == pytest.approx(made.came - made.promised)


def test_a_grid_that_comes_otherwise_is_told_as_the_cause():
    dull = [300.0] * 9 + [250.0] * 8 + [300.0] * 7
    made = report_of(ran(sweep_of(), Expecting(dull * 4, DAY * 4))).promise
    assert (made.promised, made.came) == pytest.approx((2 / 3, 1 / 6))
    assert (made.durations, made.grid, made.rest) == pytest.approx((0.0, -0.5, 0.0))


def test_deadlines_and_decisions_are_what_is_left():
    """Held until the deadline though the plan chose noon: neither durations nor the grid explain it."""
    sweep, provider = sweep_of(), Expecting(DAY * 4, DAY * 4)
    told = promised(sweep, provider.read(START), START)
    journal: list[Event] = []
    never = replace(sweep, tiers=(replace(PATIENT, threshold=0.0),))
    rehearse(never, START, provider, policy_for(PolicyChoice("threshold")), journal=journal)
    journal[0] = replace(journal[0], sweep=sweep)
    made = report_of(State([journal[0], told, *journal[1:]])).promise
    assert (made.durations, made.grid, made.rest) == pytest.approx((0.0, 0.0, -2 / 3))


def test_lost_work_is_a_cause_of_its_own():
    """An attempt that was interrupted while it loaded drew 0.4 kWh at 300: 120 g of the 900 g of running at once."""
    sweep, provider = sweep_of(), Expecting(DAY * 4, DAY * 4)
    told = promised(sweep, provider.read(START), START)
    journal: list[Event] = []
    rehearse(sweep, START, provider, policy_for(sweep.policy), journal=journal)
    stint = Stint((Member("e00", 0, sweep.total_steps),))
    drawn = (segment(0, 1, 0.4, 0),)
    begun: list[Event] = [
        Requested(START, "first/1", stint, "d0", ""),
        Progressed(after(1), "first/1", 1, 0, {}, drawn),
        Paused(after(1), "first/1", (Outcome("e00", "paused", 0),)),
    ]
    observed = next(i for i, event in enumerate(journal) if event.kind == "Observed") + 1
    state = State([journal[0], told, *journal[1:observed], *begun, *journal[observed:]])
    report = report_of(state)
    made = report.promise
    assert (report.wasted_kwh, report.wasted_g) == pytest.approx((0.4, 120.0))
    assert made.came == pytest.approx(2 / 3 - 120 / 900)
    assert (made.durations, made.grid, made.lost, made.rest) == pytest.approx((0.0, 0.0, -120 / 900, 0.0))
    assert "lost work and repeated loading -13.3, deadlines and decisions 0.0" in promises.promise(report)
    assert ("Wasted", "400 Wh, 120 g CO2eq in attempts, or parts of them, that no result kept") in accounts.accounting(
        report
    )
    assert "including 120 g (400 Wh) in lost work" in " ".join(terminal.headline(report))


def test_with_rungs_the_survivors_that_really_were_are_rehearsed():
    sweep = sweep_of(6, steps=8, pack=3, rungs=Rungs((0.25, 0.5), (4, 2)))
    made = report_of(ran(sweep, Expecting(DAY * 8, DAY * 8))).promise
    assert made.came == pytest.approx(made.promised, abs=0.02)
    assert made.durations + made.grid + made.rest == pytest.approx(made.came - made.promised)


def test_of_a_sweep_that_has_not_ended_only_the_promise_is_told():
    whole = ran(sweep_of(), Expecting(DAY * 4, DAY * 4))
    state = State([*_journal(whole)][:3])
    made = report_of(state).promise
    assert made.promised == pytest.approx(2 / 3) and made.came is None and made.durations is None
    assert promises.promise(report_of(state)) == "66.7 % less in 12 h (300 g)"


def _journal(state: State) -> list[Event]:
    sweep, provider = sweep_of(), Expecting(DAY * 4, DAY * 4)
    journal: list[Event] = []
    rehearse(sweep, START, provider, policy_for(sweep.policy), journal=journal)
    return [journal[0], state.promised, *journal[1:]]


def test_a_sweep_that_was_changed_has_no_causes():
    state = ran(sweep_of(), Expecting(DAY * 4, DAY * 4))
    state.apply(Resumed(after(90), 2, state.sweep, ("policy.name: 'planned' before, 'immediate' now",)))
    made = report_of(state).promise
    assert made.came is not None and made.durations is None and made.why == "the sweep was changed while it ran"


def test_without_a_forecast_or_in_an_old_journal_nothing_is_promised():
    assert promised(sweep_of(), grid(100).read(START), START) is None
    sweep = sweep_of()
    state = rehearse(sweep, START, Expecting(DAY * 4, DAY * 4), policy_for(sweep.policy))
    report = report_of(state)
    assert report.promise is None and promises.promise(report) == ""


def test_every_report_says_the_promise_what_came_and_why():
    dull = [300.0] * 9 + [250.0] * 8 + [300.0] * 7
    report = report_of(ran(sweep_of(), Expecting(dull * 4, DAY * 4)))
    said = (
        "66.7 % less in 12 h (300 g); outcome: 16.7 % less in 12 h (750 g). Causes of the difference of -50.0 points: "
        "durations and power 0.0, grid -50.0, deadlines and decisions 0.0"
    )
    assert promises.promise(report) == said
    assert f"promised: {said}" in terminal.headline(report)
    assert said in html.render(report).replace("−", "-")
    assert "Promised by the plan" in markdown.render(report)
    assert codec.loads(Report, codec.dumps(report)) == report


def test_what_lies_beyond_the_observed_hours_is_not_guessed():
    """At once although planned for noon: the grid at noon was never seen."""
    sweep, provider = sweep_of(1), Expecting(DAY * 4, DAY * 4)
    told = promised(sweep, provider.read(START), START)
    journal: list[Event] = []
    rehearse(sweep, START, provider, policy_for(PolicyChoice("immediate")), journal=journal)
    report = report_of(State([journal[0], told, *journal[1:]]))
    assert report.promise.grid is None and report.promise.durations == pytest.approx(0.0)
    assert "the grid's part is included in the rest" in promises.promise(report)
    assert replace(report.promise).rest == pytest.approx(-2 / 3)
