"""Settling: revised hours give a second set of figures, and the first stays."""

import pytest

from builders import RELAXED, START, URGENT, after, grid, make_sweep
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import SpecError
from gridsweep.policy.gates import Threshold
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.render import accounts
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import summarize
from gridsweep.runs.settling import settle
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.state.events import Settled, Submitted

LEVELS = [300.0] * 3 + [100.0] * 40
REVISED = [330.0] * 3 + [120.0] * 40


class Revised:
    """A provider that has thought better of it."""

    def __init__(self, levels):
        self.trace = Trace(START, HOUR, levels)

    def past(self, start, end):
        return Reading(self.trace.between(start, end), None, Provenance("revised data", "measured"))


@pytest.fixture
def swept(tmp_path):
    return kept(tmp_path, URGENT)


def kept(tmp_path, tier):
    """A folder with a sweep that has run: it waited three hours for a clean grid."""
    place = RunFolder(tmp_path / "run")
    events = []
    rehearse(make_sweep(2, tiers=(tier,)), START, grid(*LEVELS), Threshold(), journal=events)
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        journal.extend(events)
        journal.close()
    return place


def test_both_figures_are_kept(swept):
    before = summarize(swept.read())
    assert before.settlement is None
    made = settle(swept.path, Revised(REVISED), after(99))
    assert (made.emissions_g, made.saving_g) == (before.emissions_g, before.saving_g)
    settled = made.settlement
    assert settled.emissions_g == pytest.approx(2 * 0.1 * 120)
    assert settled.immediate_g == pytest.approx(0.1 * (330 + 330))
    assert settled.saving_g == pytest.approx(0.1 * (660 - 240))
    assert (settled.revised, settled.slots, settled.largest) == (6, 6, 30.0)
    assert summarize(swept.read()).settlement == settled, "it is in the journal"
    assert "revised data" in accounts.settled(made)[0]


def test_the_latest_settlement_counts(swept):
    settle(swept.path, Revised(REVISED), after(99))
    made = settle(swept.path, Revised(LEVELS), after(200))
    assert made.settlement.at == after(200)
    assert made.settlement.revised == 0
    assert made.settlement.reduction == pytest.approx(made.reduction)


def test_hours_that_are_still_missing_leave_the_settled_saving_unknown(swept):
    made = settle(swept.path, Revised([float("nan"), *REVISED[1:]]), after(99))
    assert made.settlement.saving_g is None
    assert made.saving_g is not None


def test_nothing_is_settled_before_anything_has_ended(tmp_path):
    place = RunFolder(tmp_path / "run")
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        journal.extend([Submitted(START, make_sweep(1))])
        journal.close()
    with pytest.raises(SpecError, match="no experiment has ended yet"):
        settle(place.path, Revised(REVISED), after(99))


def test_a_settlement_of_another_kind_than_the_sweeps_own_is_still_a_second_figure(swept):
    state = swept.read()
    marginal = Provenance("a marginal signal", kind="marginal")
    state.apply(Settled(after(99), START, HOUR, tuple(REVISED), marginal))
    assert state.settled.provenances == [marginal]
    assert state.history.at(START) == 300.0


def test_hours_after_the_end_count_for_what_was_possible(tmp_path):
    swept = kept(tmp_path, RELAXED)  # it ended after five hours, and could have waited for twelve
    before = summarize(swept.read()).certificate
    assert before.share == pytest.approx(1.0) and before.until == after(6)
    levels = [300.0] * 3 + [100.0] * 3 + [10.0] * 40
    made = settle(swept.path, Revised(levels), after(99))
    assert made.certificate.until == after(13)
    assert made.certificate.share == pytest.approx(400 / 580)
    assert (made.settlement.slots, made.settlement.revised) == (6, 0)


def test_hours_that_have_not_come_yet_are_not_asked_for(tmp_path):
    made = settle(kept(tmp_path, RELAXED).path, Revised(LEVELS), after(7.5))
    assert made.certificate.until == after(7)
