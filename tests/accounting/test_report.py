from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import DAYS, RELAXED, START, URGENT, after, make_sweep, rehearsed
from gridsweep.accounting import leaderboard
from gridsweep.accounting.leaderboard import effects
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.carbon.readings import Provenance
from gridsweep.policy.gates import Immediate, OnOff, Threshold
from gridsweep.records import codec
from gridsweep.render import markdown, wording
from gridsweep.simulation.baseline import baseline
from gridsweep.state.events import Ended, Halted, Observed, Ranked, Requested, Resumed, Running, Stopping, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment, LoraParams
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Device, Member, Outcome, Stint
from gridsweep.sweep.sweep import Replay


def report_of(state: State) -> Report:
    return make_report(state, ledger(state), baseline(state))


def found(losses: dict[str, float | None], noise: float | None = None, **changes) -> Report:
    """The report of a sweep that found these losses; None is a failure."""
    sweep = make_sweep(len(losses), **changes)
    sweep = replace(sweep, estimates=replace(sweep.estimates, loss_noise=noise))
    events = [
        Submitted(START, sweep),
        Observed(START, START, sweep.tick * 2, (100.0,) * 9, Provenance("a", "measured")),
    ]
    for hour, (id, loss) in enumerate(losses.items()):
        stint = Stint((Member(id, 0, 6),))
        name, status = f"{stint.id}/1", "failed" if loss is None else "done"
        outcome = Outcome(id, status, 6, "nan" if loss is None else "", loss, loss, 4.0)
        events += [Requested(after(hour), name, stint, "d0", "now"), Running(after(hour), name)]
        events += [Ended(after(hour + 1), name, (outcome,), {"torch": "2"})]
    return report_of(State(events))


def test_the_ranking_is_the_order_of_validation_losses_and_failures_come_last():
    report = found({"e00": 2.0, "e01": None, "e02": 1.5, "e03": 1.75}, baseline="e03")
    assert [(r.place, r.experiment, r.difference) for r in report.rows] == [
        (1, "e02", -0.25),
        (2, "e03", 0.0),
        (3, "e00", 0.25),
        (None, "e01", None),
    ]
    assert report.best.experiment == "e02" and report.counts == {"done": 3, "failed": 1}
    assert report.rows[-1].reason == "nan" and report.facts == {"torch": "2"}


def test_places_closer_than_the_noise_are_tied():
    report = found({"e00": 1.0, "e01": 1.005, "e02": 1.5}, noise=0.01)
    assert [r.tied for r in report.rows] == [True, True, False]
    assert any("moves a loss by up to 0.01" in note for note in report.notes)
    unknown = found({"e00": 1.0, "e01": 1.0})
    assert not any(r.tied for r in unknown.rows) and any("may be chance" in note for note in unknown.notes)


def test_an_effect_is_the_mean_over_pairs_alike_in_all_else():
    points = {(8, 1e-4): 2.0, (16, 1e-4): 1.8, (8, 2e-4): 1.5, (16, 2e-4): 1.2}
    sweep = make_sweep(4)
    experiments = tuple(
        Experiment(e.id, LoraParams(r, 32.0, lr, 0.05), 1, "urgent", "")
        for e, (r, lr) in zip(sweep.experiments, points, strict=True)
    )
    losses = dict(zip((e.id for e in experiments), points.values(), strict=True))
    report = found(losses, noise=0.3, experiments=experiments)
    assert [(e.param, e.low, e.high, e.pairs, e.separable) for e in report.effects] == [
        ("r", 8, 16, 2, False),
        ("lr", 1e-4, 2e-4, 2, True),
    ]
    assert [e.difference for e in report.effects] == pytest.approx([-0.25, -0.55])
    assert effects((), None) == ()


def test_the_figures_are_the_ledgers():
    devices = (Device("d0", idle_power_w=10),)
    state, _ = rehearsed(make_sweep(4, tiers=(URGENT, RELAXED), devices=devices), DAYS, Threshold())
    report, book, (_, base) = report_of(state), ledger(state), baseline(state)
    assert (report.energy_kwh, report.emissions_g) == (book.total.energy_kwh, book.total.emissions_g)
    assert report.emissions_g == sum(r.emissions_g for r in report.rows) + report.idle_g
    assert report.immediate_g == base.total.emissions_g
    assert report.saving_g == base.total.emissions_g - book.total.emissions_g > 0
    assert report.reduction == report.saving_g / report.immediate_g
    assert (report.makespan_h, report.immediate_makespan_h) == (6.0, 4.0)
    assert report.state == "done" and sum(report.energy_sources.values()) == pytest.approx(0.4)


def test_a_row_says_when_and_why_it_started():
    state, _ = rehearsed(make_sweep(1, tiers=(RELAXED,)), [300, 300, 120], Threshold())
    (row,) = report_of(state).rows
    assert (row.wait_h, row.started_at, row.ended_at, row.device) == (2.0, after(2), after(3), "d0")
    assert row.why == "120 g/kWh, at or below relaxed's limit of 150"
    assert (row.mean_intensity, row.emissions_g) == pytest.approx((120, 12))
    assert row.immediate_g == pytest.approx(30)


def test_every_stint_is_a_bar_also_in_the_other_history():
    state, _ = rehearsed(make_sweep(1, hours=2), [100, 300, 100], OnOff(200, 150))
    report = report_of(state)
    assert [(b.start, b.end, b.how) for b in report.bars] == [
        (after(0), after(1), "paused"),
        (after(2), after(3), "ended"),
    ]
    assert [(b.start, b.end, b.how) for b in report.immediate_bars] == [(after(0), after(2), "ended")]
    assert report.intensity == (100, 300, 100) and report.intensity_start == START


def test_what_met_an_unknown_grid_is_said_and_no_saving_is_stated():
    state, _ = rehearsed(make_sweep(2), [100, float("nan"), 100], Immediate())
    report = report_of(state)
    assert report.unknown_kwh == pytest.approx(0.1) and report.energy_kwh == pytest.approx(0.2)
    assert report.emissions_g == pytest.approx(10)
    assert (report.saving_g, report.reduction) == (None, None)
    assert any("used at unknown intensity" in note for note in report.notes)
    assert report.intensity[1] is None


def test_before_anything_ran_there_is_nothing_to_compare():
    report = report_of(State([Submitted(START, make_sweep())]))
    assert (report.immediate_g, report.saving_g, report.best, report.state) == (None, None, None, "waiting")
    assert report.counts == {"waiting": 3} and report.makespan_h == 0


@pytest.mark.parametrize(
    ("event", "says"),
    [(Stopping(START, "enough"), "stopped: enough"), (Halted(START, "alike"), "halted: alike")],
)
def test_a_stopped_or_halted_sweep_says_so(event, says):
    assert report_of(State([Submitted(START, make_sweep()), event])).state == says


def test_a_report_tells_what_a_reader_must_know():
    sweep = make_sweep(1, replay=Replay(START, 60.0))
    state = State([Submitted(START, sweep), Resumed(after(1), 2, sweep, ("tiers[0].threshold: 250.0 before, 99 now",))])
    state.apply(Observed(START, START, sweep.tick, (1.0,), Provenance("a formula", "synthetic")))
    notes = "\n".join(report_of(state).notes)
    assert "synthetic: a formula, not a measurement" in notes
    assert "The clock is replayed: the energy is charged to hours of the replayed grid" in notes
    assert "Changed on 2024-06-10 01:00 UTC: tiers[0].threshold: 250.0 before, 99 now." in notes


def test_a_report_comes_back_from_its_json():
    state, _ = rehearsed(make_sweep(3), DAYS, Threshold())
    report = report_of(state)
    assert codec.loads(Report, codec.dumps(report)) == report


def judged(*values: float) -> Losses:
    return Losses(values, (3.0,) * len(values))


def with_rung(at_rung: dict[str, Losses], at_end: dict[str, Losses]) -> Report:
    """A sweep whose rung at step 3 stopped whoever has no losses at the end; e00 is the baseline."""
    sweep = make_sweep(len(at_rung), rungs=Rungs((0.5,), (len(at_end),)), pack=len(at_rung), baseline="e00")
    first = Stint(tuple(Member(id, 0, 3) for id in at_rung))
    last = Stint(tuple(Member(id, 3, 6) for id in at_end))
    reached = tuple(Outcome(id, "reached", 3, losses=losses) for id, losses in at_rung.items())
    done = tuple(
        Outcome(id, "done", 6, validation_loss=losses.mean, losses=losses, judged=losses)
        for id, losses in at_end.items()
    )
    stopped = tuple(id for id in at_rung if id not in at_end)
    events = [
        Submitted(START, sweep),
        Observed(START, START, sweep.tick * 2, (100.0,) * 9, Provenance("a", "measured")),
    ]
    for hour, stint, outcomes in ((0, first, reached), (2, last, done)):
        name = f"{stint.id}/1"
        events += [Requested(after(hour), name, stint, "d0", "now"), Running(after(hour), name)]
        events += [Ended(after(hour + 1), name, outcomes)]
        if outcomes is reached:
            events += [Ranked(after(1), 3, stopped, "stopped at step 3", tuple(at_end))]
    return report_of(State(events))


GOOD, LATER, BAD = judged(1.0, 1.1, 0.9, 1.0), judged(1.2, 1.29, 1.1, 1.21), judged(2.0, 2.1, 1.95, 2.0)


def test_a_baseline_that_stopped_is_compared_with_the_best_where_it_stopped():
    report = with_rung({"e00": BAD, "e01": GOOD, "e02": LATER}, {"e01": GOOD, "e02": LATER})
    assert (report.baseline, report.reference, report.best.experiment) == ("e00", "e01", "e01")
    assert report.parted.step == 3 and report.parted.low < report.parted.difference < report.parted.high < 0
    assert "against the baseline at step 3, where the baseline stopped" in wording.winner(report)
    assert [row.difference for row in report.rows[:2]] == [0.0, pytest.approx(0.2)]
    assert "| vs best |" in markdown.render(report)


def test_one_that_was_better_at_a_rung_than_at_its_end_is_said_to_overfit():
    report = with_rung({"e00": GOOD, "e01": BAD}, {"e00": LATER, "e01": GOOD})
    (note,) = [note for note in report.notes if "overfits" in note]
    assert note.startswith("e00 overfits: its loss was lower at step 3 than at its end, by 0.2000 (")


@given(
    st.lists(st.one_of(st.sampled_from([1.0, 1.1, 1.3, float("nan")]), st.floats(0, 9)), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.1, 0.2, 0.5]),
)
def test_places_by_noise_are_those_of_every_pair(losses, noise):
    means = {f"e{n}": loss for n, loss in enumerate(losses)}
    for place in leaderboard._by_noise(means, noise):
        loss = means[place.experiment]
        assert place.first == 1 + sum(loss - other > noise for other in losses)
        assert place.last == len(losses) - sum(other - loss > noise for other in losses)
