"""Edges of the space are told where they matter; marks of a tie and places agree; one summary, one scope."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import DAYS, START, after, make_sweep, rehearsed
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import Report, make_report
from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.policy.gates import Threshold
from gridsweep.render import html, markdown, terminal, wording
from gridsweep.render.figures import energy, grams
from gridsweep.simulation.baseline import baseline
from gridsweep.state.events import Ended, Event, Lost, Observed, Progressed, Requested, Running, Segment, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment, LoraParams
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Member, Outcome, Stint


def report_of(state: State) -> Report:
    return make_report(state, ledger(state), baseline(state))


def judged(mean: float, wobble: float = 0.001) -> Losses:
    """Losses of this mean on eight samples; `wobble` moves each sample by itself."""
    return Losses(tuple(mean + wobble * (-1) ** n + 0.1 * (n - 3.5) for n in range(8)), (3.0,) * 8)


def ended(points: dict[tuple[int, float], float], noise: float | None = None, wobble: float | None = None) -> Report:
    """A sweep over (r, lr) that ended with these losses; with `wobble` they are known sample by sample."""
    sweep = make_sweep(len(points))
    experiments = tuple(
        Experiment(e.id, LoraParams(r, 32.0, lr, 0.1), 42, "urgent", "a test")
        for e, (r, lr) in zip(sweep.experiments, points, strict=True)
    )
    sweep = replace(sweep, experiments=experiments, estimates=replace(sweep.estimates, loss_noise=noise))
    events: list[Event] = [
        Submitted(START, sweep),
        Observed(START, START, HOUR, (100.0,) * 24, Provenance("a", "measured")),
    ]
    for hour, (experiment, loss) in enumerate(zip(experiments, points.values(), strict=True)):
        stint = Stint((Member(experiment.id, 0, 6),))
        name = f"{stint.id}/1"
        losses = None if wobble is None else judged(loss, wobble * (1 if hour % 3 else -1))
        outcome = Outcome(experiment.id, "done", 6, validation_loss=loss, losses=losses)
        drawn = (Segment(after(hour), after(hour + 1), 0.1, "x", 6),)
        events += [
            Requested(after(hour), name, stint, "d0", "now"),
            Running(after(hour), name),
            Progressed(after(hour + 1), name, 1, 6, {}, drawn),
            Ended(after(hour + 1), name, (outcome,)),
        ]
    return report_of(State(events))


def edges_of(report: Report) -> list[str]:
    return [note.partition(": ")[2].split(" ")[0] for note in report.notes if "edge of the space" in note]


# Edges

LR_MATTERS = {(8, 1e-4): 2.0, (8, 2e-4): 1.5, (16, 1e-4): 1.998, (16, 2e-4): 1.499}
"""Doubling lr lowers the loss by 0.5, doubling r by 0.0015."""


def test_an_edge_is_told_only_of_an_axis_that_matters_beyond_the_stated_noise():
    assert edges_of(ended(LR_MATTERS, noise=0.01)) == ["lr"]
    assert edges_of(ended(LR_MATTERS, noise=0.001)) == ["r", "lr"]
    assert edges_of(ended(LR_MATTERS, noise=0.6)) == []


def test_without_a_stated_noise_the_samples_decide():
    assert edges_of(ended(LR_MATTERS, wobble=0.02)) == ["lr"]
    assert edges_of(ended(LR_MATTERS)) == []  # nobody knows the noise: nothing says that an axis matters


def test_an_edge_that_is_worse_on_average_is_none():
    """The winner sits at r 16, which is worse in every other pair."""
    points = {(8, 1e-4): 1.4, (16, 1e-4): 1.9, (8, 2e-4): 1.35, (16, 2e-4): 1.3}
    assert "r" not in edges_of(ended(points, noise=0.01))


def test_an_edge_nobody_can_compare_is_not_told():
    assert edges_of(ended({(8, 1e-4): 2.0, (16, 2e-4): 1.5}, noise=0.01)) == []


# Places


@pytest.mark.parametrize("wobble", [None, 0.0001, 0.004, 0.05])
@pytest.mark.parametrize("noise", [None, 0.002, 0.01, 0.2])
def test_marks_of_a_tie_and_places_agree(noise, wobble):
    points = {(2**n, 1e-4): loss for n, loss in enumerate((1.0, 1.003, 1.008, 1.012, 1.2, 1.5))}
    report = ended(points, noise, wobble)
    for row in report.rows:
        assert (row.first is None) == (row.last is None) == (noise is None and wobble is None)
        if row.first is not None:
            assert row.first <= row.place <= row.last
        assert row.tied == (row.first == 1)


def test_places_count_the_stated_noise():
    """Paired differences tell them apart, but another seed would turn them round."""
    points = {(8, 1e-4): 1.0, (16, 1e-4): 1.004, (32, 1e-4): 1.5}
    assert [wording.places_of(row) for row in ended(points, 0.01, 0.0001).rows] == ["1 to 2", "1 to 2", "3"]
    assert [wording.places_of(row) for row in ended(points, 0.001, 0.0001).rows] == ["1", "2", "3"]
    assert [wording.places_of(row) for row in ended(points, 0.01).rows] == ["1 to 2", "1 to 2", "3"]


# Scope


def halfway() -> Report:
    """Three experiments of four have ended, one runs and has drawn as much as the others."""
    events = rehearsed(make_sweep(4), DAYS, Threshold())[1]
    last = max(i for i, event in enumerate(events) if isinstance(event, Progressed))
    return report_of(State(events[: last + 1]))


def test_a_summary_of_a_run_that_has_not_ended_speaks_of_the_experiments_that_have():
    report = halfway()
    assert report.ended.experiments == 3 and report.ended.emissions_g < report.emissions_g
    assert report.ended.emissions_g == pytest.approx(report.immediate_g - report.saving_g)
    lines = {line.partition(":")[0]: line for line in terminal.headline(report)}
    assert f"emitted:  {grams(report.ended.emissions_g)} with {energy(report.ended.energy_kwh)}" in lines["emitted"]
    rest = report.emissions_g - report.ended.emissions_g
    assert f"The others have emitted {grams(rest)} so far" in lines["scope"]
    page = html.render(report)
    assert f"<dd>{html.pretty(grams(report.ended.emissions_g))} <small>" in page
    assert f"- Emissions: {grams(report.ended.emissions_g)} CO2eq" in markdown.render(report)
    assert wording.makespan(report).startswith("5 h, 3 h")


def test_of_a_run_that_has_ended_it_speaks_of_all():
    state, _ = rehearsed(make_sweep(4), DAYS, Threshold())
    report = report_of(state)
    assert report.ended.emissions_g == pytest.approx(report.emissions_g)
    assert report.ended.makespan_h == report.makespan_h and wording.scope(report) == ""


def test_nothing_is_said_of_savings_where_nothing_was_trained():
    """Three attempts that died while loading: `lost: 0.0168 mg, 200.0 %`."""
    stint = Stint((Member("e00", 0, 6),))
    events: list[Event] = [Submitted(START, make_sweep(1)), Observed(START, START, HOUR, (100.0,) * 9, Provenance("a"))]
    for i in range(3):
        name = f"{stint.id}/{i + 1}"
        drawn = (Segment(after(i), after(i + 0.5), 0.1, "x", 0),)
        events += [
            Requested(after(i), name, stint, "d0", ""),
            Progressed(after(i + 0.5), name, 1, 0, {}, drawn),
            Lost(after(i + 0.5), name, "killed"),
        ]
    report = report_of(State(events))
    assert report.counts == {"failed": 1} and report.emissions_g == pytest.approx(30)
    assert (report.saving_g, report.reduction, report.immediate_g) == (None, None, None)
    assert not any(line.startswith(("saved", "lost", "at once")) for line in terminal.headline(report))
    assert "No experiment was trained, so there is no comparison" in html.render(report)
