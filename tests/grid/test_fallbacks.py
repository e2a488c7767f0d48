"""The rungs: in order, honest about themselves, and without a stampede."""

import os
from datetime import UTC, datetime, timedelta
from math import isnan

import numpy as np
import pytest

from builders import URGENT, make_sweep
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import make_report
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace, floor_to
from gridsweep.errors import UnreachableError
from gridsweep.grid.archive import Archive
from gridsweep.grid.fallbacks import FRESH, STALE, Resolver
from gridsweep.loop import drive
from gridsweep.policy.gates import Immediate, Threshold
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import Answered, Observed, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.sweep.tiers import Percentile, Tier

BEGIN = datetime(2024, 6, 10, tzinfo=UTC)
DAY = [
    300,
    290,
    280,
    270,
    260,
    250,
    220,
    180,
    140,
    110,
    90,
    80,
    80,
    90,
    110,
    140,
    180,
    230,
    280,
    310,
    320,
    315,
    310,
    305,
]
TRUTH = Trace(BEGIN - timedelta(days=40), HOUR, [float(v) for v in DAY] * 110)
SETTINGS = CarbonSource("test", "X", None)
AVERAGE = Provenance("the yearly average of X", "static", provider="static", zone="X")


class Service:
    """A live source over a known truth, which fails while it is down and counts how often it was asked."""

    keys = frozenset[str]()
    live = True

    def __init__(self, past=timedelta(days=28), told=None):
        self.past_shown = past
        self.told = told
        self.down: list[tuple[datetime, datetime]] = []
        self.asked: list[datetime] = []

    def read(self, now):
        self.asked.append(now)
        if any(start <= now < end for start, end in self.down):
            raise UnreachableError("the service is down")
        history = TRUTH.between(now - self.past_shown, now + timedelta(microseconds=1))
        return Reading(
            history, self.told(now) if self.told else None, Provenance("a service", provider="test", zone="X")
        )

    def past(self, start, end):
        return Reading(TRUTH.between(start, end), None, Provenance("a service", provider="test", zone="X"))

    def zones(self):
        return []


def resolver(service, **options):
    return Resolver(service, Archive(SETTINGS, None), **options)


def test_rungs_are_taken_in_order_as_an_outage_goes_on():
    service = Service()
    reads = resolver(service, average=AVERAGE, level=222.0)
    assert reads.read(BEGIN).freshness == "live"
    assert reads.read(BEGIN + FRESH / 2).freshness == "cached"
    service.down = [(BEGIN + FRESH, BEGIN + timedelta(days=90))]
    assert reads.read(BEGIN + FRESH).freshness == "stale"
    assert reads.read(BEGIN + STALE).freshness == "stale"
    assert reads.read(BEGIN + STALE + timedelta(minutes=1)).freshness == "forecast"
    assert reads.read(BEGIN + timedelta(days=5)).freshness == "forecast"
    assert reads.read(BEGIN + timedelta(days=61)).freshness == "static", "the history has grown too old"


def test_without_an_average_the_last_rung_is_none_and_the_present_is_unknown():
    service = Service()
    service.down = [(BEGIN, BEGIN + timedelta(days=1))]
    reading = resolver(service).read(BEGIN)
    assert (reading.freshness, reading.lost, reading.why) == ("none", True, "the service is down")
    assert isnan(reading.history.at(BEGIN)) and reading.forecast is None


def test_an_average_stands_in_for_the_present_and_says_so():
    service = Service()
    service.down = [(BEGIN, BEGIN + timedelta(days=1))]
    reading = resolver(service, average=AVERAGE, level=222.0).read(BEGIN)
    assert reading.lost and reading.history.at(BEGIN) == 222.0
    assert reading.provenance.quality == "static"


@pytest.mark.parametrize(("hours", "quality"), [(2, "stale"), (5, "stale"), (9, "forecast"), (30, "forecast")])
def test_a_present_nobody_told_is_expected_and_marked(hours, quality):
    service = Service()
    reads = resolver(service)
    reads.read(BEGIN)
    now = BEGIN + hours * HOUR
    service.down = [(BEGIN + HOUR, BEGIN + timedelta(days=9))]
    reading = reads.read(now)
    assert reading.provenance.quality == quality
    assert reading.history.at(now) == pytest.approx(TRUTH.at(now), rel=0.02), "a day that repeats is expected to"
    assert reading.stretches[0].provenance.quality == "measured"


def test_the_providers_own_forecast_fills_before_ours():
    def told(now):
        return Forecast(
            now, floor_to(now, HOUR), HOUR, TRUTH.between(now, now + 48 * HOUR).values[None, :] * 0 + 77, "told"
        )

    service = Service(told=told)
    reads = resolver(service)
    reads.read(BEGIN)
    service.down = [(BEGIN + HOUR, BEGIN + timedelta(days=9))]
    reading = reads.read(BEGIN + 3 * HOUR)
    assert (reading.history.at(BEGIN + 3 * HOUR), reading.provenance.title) == (77, "told")


def test_a_provider_that_is_known_to_err_is_blended_with_ours():
    def told(now):
        start = floor_to(now, HOUR)
        return Forecast(now, start, HOUR, TRUTH.between(start, now + 48 * HOUR).values[None, :] * 3, "told")

    reads = resolver(Service(told=told))
    first = reads.read(BEGIN).forecast
    assert first.mean.at(BEGIN + 5 * HOUR) == pytest.approx(3 * TRUTH.at(BEGIN + 5 * HOUR)), "nobody knows better yet"
    for hour in range(0, 24 * 12, 6):
        reads.read(BEGIN + hour * HOUR)
    now = BEGIN + 12 * 24 * HOUR
    assert reads.read(now).forecast.mean.at(now + 5 * HOUR) == pytest.approx(TRUTH.at(now + 5 * HOUR), rel=0.01)


def test_what_a_provider_told_before_outlives_the_process(tmp_path):
    def told(now):
        return Forecast(now, floor_to(now, HOUR), HOUR, np.array([[1.0, 2.0, np.nan]]), "told")

    for day in range(3):
        Resolver(Service(told=told), Archive(SETTINGS, tmp_path)).read(BEGIN + timedelta(days=day))
    kept = Archive(SETTINGS, tmp_path).earlier
    assert [each.issued_at for each in kept] == [BEGIN + timedelta(days=day) for day in range(3)]
    np.testing.assert_equal(kept[0].mean.values, [1.0, 2.0, np.nan])


def test_when_the_service_is_back_what_was_missed_is_observed():
    service = Service()
    reads = resolver(service)
    reads.read(BEGIN)
    service.down = [(BEGIN + HOUR, BEGIN + 20 * HOUR)]
    reads.read(BEGIN + 10 * HOUR)
    reading = reads.read(BEGIN + 21 * HOUR)
    assert reading.freshness == "live" and len(reading.stretches) == 1
    assert reading.history.values.tolist()[-22:] == TRUTH.between(BEGIN, BEGIN + 22 * HOUR).values.tolist()


def test_a_service_that_fails_is_left_alone_for_a_while():
    service = Service()
    service.down = [(BEGIN, BEGIN + timedelta(days=9))]
    reads = resolver(service)
    for seconds in range(0, 3600, 30):
        reads.read(BEGIN + timedelta(seconds=seconds))
    assert len(service.asked) <= 31


def test_a_short_history_grows_with_use(tmp_path):
    service = Service(past=timedelta(hours=23))
    reads = Resolver(service, Archive(SETTINGS, tmp_path))
    for hour in range(0, 30 * 24, 12):
        reads.read(BEGIN + hour * HOUR)
    again = Resolver(service, Archive(SETTINGS, tmp_path))
    now = BEGIN + 30 * 24 * HOUR
    service.down = [(now, now + HOUR)]
    reading = again.read(now)
    assert reading.history.known(now - timedelta(days=28), now) == timedelta(days=28)


def test_a_damaged_archive_costs_history_and_no_answer(tmp_path):
    reads = Resolver(Service(), Archive(SETTINGS, tmp_path))
    reads.read(BEGIN)
    (file,) = (tmp_path / "grid").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    service = Service()
    service.down = [(BEGIN, BEGIN + HOUR)]
    assert Resolver(service, Archive(SETTINGS, tmp_path)).read(BEGIN).freshness == "none"
    assert Resolver(Service(), Archive(SETTINGS, tmp_path)).read(BEGIN).freshness == "live"


def test_a_crash_while_the_archive_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    reads = Resolver(Service(), Archive(SETTINGS, tmp_path))
    reads.read(BEGIN)
    (file,) = (tmp_path / "grid").iterdir()
    before = file.read_bytes()

    def interrupted(handle):
        raise KeyboardInterrupt

    with monkeypatch.context() as disk, pytest.raises(KeyboardInterrupt):
        disk.setattr(os, "fsync", interrupted)
        reads.read(BEGIN + HOUR)
    assert file.read_bytes() == before and list((tmp_path / "grid").iterdir()) == [file]
    assert Archive(SETTINGS, tmp_path).fetched_at == BEGIN
    reads.read(BEGIN + 2 * HOUR)
    assert Archive(SETTINGS, tmp_path).fetched_at == BEGIN + 2 * HOUR


# whole sweeps through outages

TIERS = (Tier("urgent", 150.0, 24 * HOUR, 1), Tier("patient", Percentile(25.0), 48 * HOUR, 2))


def swept(service, policy, tiers=TIERS, days=8, n=50, past=None, average=False, **carbon):
    sweep = make_sweep(
        n,
        tiers=tiers,
        devices=2,
        hours=1.5,
        tick=timedelta(minutes=30),
        carbon=CarbonSource("test", "X", None, **carbon),
    )
    submitted = Submitted(BEGIN, sweep)
    journal = [submitted]
    reads = resolver(service, average=AVERAGE, level=222.0) if average else resolver(service)
    state = drive(State([submitted]), journal, Virtual(BEGIN, reads, Simulated()), policy)
    return state, journal


@pytest.mark.parametrize("length", [timedelta(minutes=5), timedelta(hours=6), timedelta(days=5)], ids=str)
@pytest.mark.parametrize("begins", [3, 13])
def test_an_outage_stampedes_nobody_and_everything_starts_by_its_deadline(length, begins):
    calm, _ = swept(Service(), Threshold())
    service = Service()
    start = BEGIN + begins * HOUR + timedelta(minutes=1)
    service.down = [(start, start + length)]
    state, journal = swept(service, Threshold())
    assert all(s.status == "done" for s in state.standings.values())
    for standing in state.standings.values():
        tier = state.sweep.tier(standing.experiment.tier)
        assert standing.attempts
        started = state.attempts[standing.attempts[0]].requested_at
        others = sum(a.requested_at < BEGIN + tier.max_delay for a in state.attempts.values())
        assert started <= BEGIN + tier.max_delay + others * 1.5 * HOUR

    def released(of, until):
        return sum(a.requested_at < until for a in of.attempts.values())

    assert released(state, start + length) <= released(calm, start + length) + 2, "no more than the plan would have"
    begun = {}
    for event in journal:
        if isinstance(event, Requested):
            begun[event.at] = begun.get(event.at, 0) + 1
    assert max(begun.values()) <= len(state.sweep.devices)
    rungs = [event.rung for event in journal if isinstance(event, Answered)]
    expected = {
        timedelta(minutes=5): [],
        timedelta(hours=6): ["stale", "live"],
        timedelta(days=5): ["stale", "forecast"],
    }
    assert rungs[: len(expected[length])] == expected[length]
    made = make_report(state, ledger(state), baseline(state))
    assert [gap.freshness for gap in made.outages] == [rung for rung in rungs if rung != "live"]


@pytest.mark.parametrize(("how", "when"), [("run", 0.0), ("wait_until_deadline", 4.0)])
def test_with_nothing_known_the_sweep_says_what_to_do(how, when):
    service = Service()
    service.down = [(BEGIN, BEGIN + timedelta(days=30))]
    state, _ = swept(service, Immediate(), tiers=(URGENT,), n=3, on_signal_loss=how)
    first = min(a.requested_at for a in state.attempts.values())
    assert first == BEGIN + when * HOUR - (timedelta(minutes=0) if when else timedelta(0))
    made = make_report(state, ledger(state), baseline(state))
    assert made.saving_g is None and made.unknown_kwh == pytest.approx(made.energy_kwh)


def test_waiting_for_the_signal_outlasts_the_deadline():
    service = Service()
    back = BEGIN + timedelta(days=3)
    service.down = [(BEGIN, back)]
    state, _ = swept(service, Immediate(), tiers=(URGENT,), n=2, on_signal_loss="wait")
    assert min(a.requested_at for a in state.attempts.values()) >= back


def test_no_saving_is_claimed_on_a_yearly_average():
    service = Service()
    service.down = [(BEGIN, BEGIN + timedelta(days=30))]
    state, journal = swept(service, Immediate(), tiers=(URGENT,), n=2, average=True)
    made = make_report(state, ledger(state), baseline(state))
    assert made.saving_g is None and made.emissions_g > 0
    assert any("yearly average" in note for note in made.notes)
    assert {e.provenance.quality for e in journal if isinstance(e, Observed)} == {"static"}
