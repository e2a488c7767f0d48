"""Packs, rungs, and what is expected after them."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import RELAXED, START, URGENT, after, make_sweep, starts
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.policy.gates import Immediate, Threshold
from gridsweep.policy.planner.planned import Planned
from gridsweep.schedule.pace import GUESSED, STATED
from gridsweep.schedule.step import EARLY
from gridsweep.schedule.worklist import (
    PROBES,
    ahead,
    deadline_for,
    makespan_of,
    remaining,
    stages_at_once,
    submitted,
    waiting,
)
from gridsweep.selection.rung_decisions import ranked
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.simulation.simulated import Simulated
from gridsweep.spec import loads
from gridsweep.state.events import Added, Ended, Ranked, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import EARLIER, Rungs
from gridsweep.sweep.stints import Checkpoint, Member, Outcome, Stint
from gridsweep.sweep.sweep import Estimates
from gridsweep.sweep.tiers import Tier

PATIENT = Tier("patient", 100.0, timedelta(days=4), 1)
PUBLISHED = EARLIER
HOURS = np.arange(24 * 60)
SUN = 300 + 200 * np.cos(HOURS * 2 * np.pi / 24)


def rungs(n=21, **options):
    options = {"devices": 2, "steps": 80, "hours": 1.5, "pack": 21, "rungs": PUBLISHED, "tiers": (PATIENT,), **options}
    return make_sweep(n, **options)


def fresh(sweep):
    return State([Submitted(START, sweep)])


def driven(sweep, policy=None, levels=SUN, **options):
    journal = []
    trace = TraceProvider(Trace(START - timedelta(days=40), HOUR, levels), "X", "a test")
    return rehearse(sweep, START, trace, policy or Immediate(), Simulated(**options), journal), journal


# packs


def test_without_packs_or_rungs_each_experiment_is_a_stint_to_the_end():
    works = waiting(fresh(make_sweep(3)))
    assert [(w.members, w.from_step, w.to_step, w.duration) for w in works] == [
        ((f"e0{i}",), 0, 6, HOUR) for i in range(3)
    ]


def test_what_was_submitted_leaves_out_later_additions_whenever_it_is_first_asked_for():
    whole = make_sweep(5)
    sweep = make_sweep(3)
    late = Added(START + HOUR, 6, whole.experiments[3:], "proposed")
    asked_early, asked_late = fresh(sweep), fresh(sweep)
    before = submitted(asked_early)
    asked_early.apply(late), asked_late.apply(late)
    assert len(before) == 3 and submitted(asked_early) == submitted(asked_late) == before


def test_all_devices_get_an_even_share_of_what_is_on_its_way_to_a_rung():
    works = waiting(fresh(rungs()))
    assert [len(w.members) for w in works] == [10, 11]
    assert {(w.from_step, w.to_step) for w in works} == {(0, 10)}
    assert sorted(id for w in works for id in w.members) == [f"e{i:02}" for i in range(21)]
    assert [w.duration / HOUR for w in works] == pytest.approx([10 * 1.5 / 8, 11 * 1.5 / 8])


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4))
def test_no_pack_is_larger_than_it_may_be_and_none_is_much_smaller_than_another(n, pack, devices):
    works = waiting(fresh(rungs(n, pack=pack, devices=devices, rungs=None)))
    sizes = [len(w.members) for w in works]
    assert sum(sizes) == n and max(sizes) <= pack
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == 1 or max(sizes) <= max(1, -(-n // devices))


def test_what_is_left_of_a_rung_stays_together_once_a_part_of_it_runs():
    state = fresh(rungs())
    work = waiting(state)[0]
    stint = Stint(tuple(Member(id, 0, 10) for id in work.members))
    state.apply(Requested(START, f"{stint.id}/1", stint, "d0", ""))
    assert [len(w.members) for w in waiting(state)] == [11]


def test_a_pack_of_several_tiers_has_the_strictest_limit_and_the_least_patience():
    (work,) = waiting(fresh(make_sweep(4, tiers=(URGENT, RELAXED), pack=4)))
    assert (work.tier.threshold, work.tier.rank) == (RELAXED.threshold, URGENT.rank)
    assert work.latest_start == after(4)


def test_the_estimates_say_what_packing_saves_and_judging_costs():
    sweep = rungs(estimates=Estimates(1.5 * HOUR, 100, packed=((1, 1.0), (11, 0.5)), evaluation=0.04))
    assert [sweep.estimates.share(k) for k in (1, 6, 11, 21)] == pytest.approx([1.0, 0.75, 0.5, 0.5])
    assert sweep.span(11, 0, 10) / HOUR == pytest.approx(11 * 0.5 * (1 / 8 + 0.04) * 1.5)
    assert sweep.span(3, 40, 80) / HOUR == pytest.approx(3 * 0.9 * 0.5 * 1.5)


# rungs


def test_a_whole_sweep_goes_through_its_rungs_and_ends_with_three():
    state, journal = driven(rungs())
    decided = [event for event in journal if isinstance(event, Ranked)]
    assert [(r.step, len(r.kept), len(r.stopped)) for r in decided] == [(10, 11, 10), (20, 6, 5), (40, 3, 3)]
    assert (state.count("done"), state.count("stopped")) == (3, 18)
    work = sum(m.to_step - m.from_step for a in state.attempts.values() for m in a.stint.members)
    assert work / (21 * 80) == pytest.approx(1 / 3)


def test_nobody_goes_on_before_all_have_reached_the_rung():
    state, _ = driven(rungs(pack=2))
    first_end = max(a.ended_at for a in state.attempts.values() if a.stint.members[0].to_step == 10)
    assert min(a.requested_at for a in state.attempts.values() if a.stint.members[0].from_step == 10) >= first_end


def reached(losses, step=10, keep=(2,), **options):
    """All experiments of a sweep at a rung, with these losses."""
    sweep = rungs(len(losses), rungs=Rungs((step / 80,), keep, **options))
    state = fresh(sweep)
    ids = [e.id for e in sweep.experiments]
    stint = Stint(tuple(Member(id, 0, step) for id in ids))
    outcomes = []
    for id, loss in zip(ids, losses, strict=True):
        if loss is None:
            outcomes.append(Outcome(id, "failed", step, reason="diverged"))
            continue
        samples = Losses((loss - 0.01, loss + 0.01), (1.0, 1.0))
        saved = Checkpoint(id, step, "", "")
        outcomes.append(Outcome(id, "reached", step, train_loss=loss, checkpoint=saved, losses=samples))
    for event in (
        Requested(START, f"{stint.id}/1", stint, "d0", ""),
        Running(START, f"{stint.id}/1"),
        Ended(after(1), f"{stint.id}/1", tuple(outcomes)),
    ):
        state.apply(event)
    return state


def test_the_best_by_the_averaged_weights_go_on():
    state = reached([3.0, 1.0, 2.0, 4.0])
    (event,) = ranked(state, after(1))
    assert (set(event.kept), set(event.stopped)) == ({"e01", "e02"}, {"e00", "e03"})
    assert event.by == "averaged" and event.disagreed == 0
    state.apply(event)
    assert {id: s.status for id, s in state.standings.items()} == {
        "e00": "stopped", "e01": "waiting", "e02": "waiting", "e03": "stopped",
    }  # fmt: skip
    assert state.standings["e00"].ended_at == after(1)
    assert "2 of 4 continue" in state.standings["e00"].reason
    assert [(w.members, w.from_step, w.to_step) for w in waiting(state)] == [(("e01",), 10, 80), (("e02",), 10, 80)]


def test_who_diverged_is_out_before_and_the_baseline_stays():
    state = reached([3.0, 1.0, None, 2.0], keep=(1,), keep_always=("e00",))
    (event,) = ranked(state, after(1))
    assert set(event.kept) == {"e00", "e01"} and event.stopped == ("e03",)
    assert ranked(reached([None, None]), after(1)) == []


def test_where_all_but_few_diverged_the_rung_stops_nobody():
    (event,) = ranked(reached([None, 1.0, None]), after(1))
    assert event.kept == ("e01",) and event.stopped == ()


def test_a_sweep_of_which_all_diverged_ends():
    assert reached([None, None]).finished


# what comes after


def test_later_stints_are_expected_and_deadlines_leave_room_for_them():
    state = fresh(rungs(finish_by=24 * HOUR))
    later = ahead(state)
    assert [(w.from_step, w.to_step) for w in later] == [(10, 20)] * 2 + [(20, 40)] * 2 + [(40, 80)] * 2
    spans = [makespan_of([w for w in later if w.to_step == stage], state.sweep.devices) for stage in (20, 40, 80)]
    assert deadline_for(state) == after(24) - sum(spans, timedelta(0))
    last = [w for w in later if w.to_step == 80]
    assert max(w.latest_start + w.duration for w in last) == after(24)
    assert not any(w.experiment in state.standings for w in later)


def test_after_the_last_rung_nothing_is_ahead():
    state, _ = driven(rungs())
    assert ahead(state) == [] and ahead(fresh(make_sweep(3))) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 21), st.integers(1, 3), st.sampled_from([1, 2, 6, 21]), st.integers(0, 12), st.integers(0, 9999))
def test_a_deadline_holds_through_all_rungs_wherever_running_at_once_holds_it(n, devices, pack, slack, seed):
    levels = np.random.default_rng(seed).uniform(20, 600, len(HOURS)).round()
    keep = tuple(k for k in (11, 6, 3) if k < n) or (2,)
    sweep = rungs(n, devices=devices, pack=pack, rungs=Rungs((1 / 8, 1 / 4, 1 / 2)[: len(keep)], keep))
    atonce, _ = driven(sweep, levels=levels)
    least = max(s.ended_at for s in atonce.standings.values()) - START
    finish_by = least * 1.02 + timedelta(minutes=15 + 30 * slack)
    planned, _ = driven(rungs(n, devices=devices, pack=pack, rungs=sweep.rungs, finish_by=finish_by),
                        Planned(min_saving=0), levels)  # fmt: skip
    assert max(s.ended_at for s in planned.standings.values()) <= START + finish_by


def test_the_planner_puts_all_rungs_into_clean_hours():
    sweep = rungs(finish_by=24 * HOUR)
    planned, _ = driven(sweep, Planned())
    atonce, _ = driven(sweep)
    assert ledger(planned).total.emissions_g < 0.5 * ledger(atonce).total.emissions_g
    assert min(starts(planned).values()) > 7


def test_gates_work_with_packs_too():
    state, _ = driven(rungs(), Threshold())
    assert state.count("done") == 3


# the other history


def test_the_baseline_replays_packs_and_rungs_at_once_with_the_same_energy():
    state, _ = driven(rungs(), Planned())
    other, book = baseline(state)
    assert book.total.energy_kwh == pytest.approx(ledger(state).total.energy_kwh)
    atonce, _ = driven(rungs())
    assert book.makespan == pytest.approx(ledger(atonce).makespan, abs=timedelta(seconds=2))
    assert book.total.emissions_g == pytest.approx(ledger(atonce).total.emissions_g)
    assert other.count("done") == 3


# a stint that shows how long stints take


def first_latest(state, now=START):
    return (remaining(state, now)[0].latest_start - START) / HOUR


def many(guess=False, finish_by=60 * HOUR, **options):
    """Twenty experiments of an hour on two devices: ten hours of work."""
    options = {"devices": 2, "tiers": (PATIENT,), "finish_by": finish_by, **options}
    sweep = make_sweep(20, **options)
    return fresh(replace(sweep, estimates=replace(sweep.estimates, guess=guess)))


def test_one_stint_starts_while_the_deadline_still_holds_in_the_worst_case():
    """One hour alone, then nineteen on two devices: 11 h, or three times that at worst."""
    state = many()
    assert first_latest(state) == pytest.approx(60 - 11 * STATED)
    others = {work.latest_start for work in remaining(state, START)[1:]}
    assert others == {after(59)}
    state.paces = [1.0]
    state._changed("pace")
    assert 60 - 11 * STATED < first_latest(state) < 59
    state.paces = [1.0] * PROBES
    state._changed("pace")
    assert first_latest(state) == pytest.approx(59)


def test_the_journal_tells_why_the_first_one_starts_early():
    sweep = many().sweep
    _, journal = driven(replace(sweep, finish_by=40 * HOUR), Planned(min_saving=0))
    first, *others = [event for event in journal if isinstance(event, Requested)]
    assert first.why == EARLY and first.due and after(0) < first.at <= after(40 - 11 * STATED)
    assert all(event.at > first.at for event in others)


def test_where_the_deadline_is_near_it_starts_at_once():
    assert first_latest(many(finish_by=11 * STATED * HOUR)) == first_latest(many(finish_by=14 * HOUR)) == 0


def test_a_guess_is_tried_at_once_with_or_without_a_deadline():
    far = 2 * 11 * GUESSED * HOUR
    assert first_latest(many(guess=True, finish_by=far)) == first_latest(many(guess=True, finish_by=None)) == 0
    assert first_latest(many(finish_by=None)) == PATIENT.max_delay / HOUR


def test_while_a_stint_runs_as_estimated_none_is_started_to_show_anything():
    state = many(finish_by=14 * HOUR)
    stint = Stint((Member("e00", 0, 6),))
    state.apply(Requested(START, f"{stint.id}/1", stint, "d0", ""))
    state.apply(Running(START, f"{stint.id}/1"))
    assert first_latest(state, after(1)) > 12
    assert first_latest(state, after(1.5)) == 0  # it takes longer than estimated: the other device finds out too


def test_no_stint_is_tried_that_is_much_of_the_work():
    sweep = make_sweep(4, devices=2, tiers=(PATIENT,), finish_by=5 * HOUR)
    assert first_latest(fresh(sweep)) == pytest.approx(4)


def test_experiments_that_a_stint_cannot_hold_together_are_packed_among_themselves():
    sweep = loads(
        "model: org/model\ndataset: {id: org/data, train_samples: 1000}\nestimates: {duration: 90m, power_w: 425}\n"
        "tiers: [{name: only, threshold: p40, max_delay: 24h}]\ndevices: 2\nrungs: default\n"
        "space: {lr: [1e-5, 3e-5, 1e-4, 3e-4], weight_decay: [0, 0.1], batch_size: [2, 4]}\n"
    )
    works = [work.members for work in stages_at_once(sweep, START)[0]]
    sizes = {id: sweep.experiment(id).params.value("batch_size") for members in works for id in members}
    assert sorted(map(len, works)) == [8, 8]  # one stint a device, with both decays in each
    assert [{sizes[id] for id in members} for members in works] in ([{2}, {4}], [{4}, {2}])
