"""A week of fifty experiments on live providers, in virtual time: how often they are asked, and what an outage does."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from builders import make_sweep
from gridsweep.accounting.ledger import ledger
from gridsweep.accounting.report import make_report
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.archive import Archive
from gridsweep.grid.fallbacks import Resolver
from gridsweep.grid.registry import means_for, plugin
from gridsweep.loop import drive
from gridsweep.policy.gates import Threshold
from gridsweep.simulation.baseline import baseline
from gridsweep.simulation.simulated import Simulated
from gridsweep.simulation.virtual import Virtual
from gridsweep.state.events import Answered, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.sweep import CarbonSource
from gridsweep.sweep.tiers import Percentile, Tier
from gridsweep.testing.grid.dialect import Grid
from gridsweep.testing.grid.electricity_maps import ElectricityMapsApi
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.grid.uk import CarbonIntensityApi
from gridsweep.testing.grid.watttime import WattTimeApi

BEGIN = datetime(2026, 5, 4, 14, 7, tzinfo=UTC)
HOURS = np.arange(24 * 80)
TRUTH = Trace(
    datetime(2026, 3, 20, tzinfo=UTC), HOUR, 250 + 120 * np.cos(HOURS * 2 * np.pi / 24) + 40 * np.sin(HOURS * 0.071)
)
MARGINAL = Tier("patient", Percentile(15.0), timedelta(days=6), 1)
DIALECTS = {"electricity_maps": ElectricityMapsApi, "uk": CarbonIntensityApi, "watttime": WattTimeApi}


class Week:
    """A sweep of fifty on one provider, driven to its end; `world` keeps the time that the HTTP layer lives by."""

    def __init__(self, name, tmp_path, outages=(), tick=timedelta(minutes=30)):
        dialect = DIALECTS[name]()
        self.transport = GridTransport(dialect, Grid(dialect.zone, TRUTH, lambda: self.world.time), outages=outages)
        references = {}
        for key, secret in dialect.secrets.items():
            file = tmp_path / key
            file.write_text(secret)
            file.chmod(0o600)
            references[key] = f"file:{file}"
        settings = CarbonSource(name, dialect.zone, None, **references)
        means = means_for(
            name,
            tmp_path / "cache",
            transport=self.transport,
            now=lambda: self.world.time,
            monotonic=lambda: (self.world.time - BEGIN).total_seconds(),
            sleep=lambda seconds: None,
        )
        provider = Resolver(plugin(name)(settings, means), Archive(settings, tmp_path))
        self.world = Virtual(BEGIN, provider, Simulated())
        sweep = make_sweep(50, tiers=(MARGINAL,), devices=1, hours=1.5, carbon=settings, tick=tick)
        self.journal = [Submitted(BEGIN, sweep)]
        self.state = drive(State(self.journal), self.journal, self.world, Threshold())

    def most_an_hour(self):
        times = sorted([seen.at for seen in self.transport.seen] + self.transport.refused)
        return max(sum(t <= other < t + HOUR for other in times[i : i + 40]) for i, t in enumerate(times))


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_week_asks_at_most_twelve_times_an_hour_and_once_at_a_time(name, tmp_path):
    week = Week(name, tmp_path, tick=timedelta(minutes=10 if name == "electricity_maps" else 30))
    assert week.state.count("done") == 50
    assert ledger(week.state).makespan > timedelta(days=4)
    assert week.most_an_hour() <= 12
    assert week.transport.most_in_flight == 1
    assert [e for e in week.journal if isinstance(e, Answered)] == []
    made = make_report(week.state, ledger(week.state), baseline(week.state))
    assert made.reduction > 0.05


@pytest.mark.parametrize(
    ("length", "rungs"),
    [
        (timedelta(minutes=5), ["stale"]),
        (timedelta(hours=6), ["stale", "forecast"]),  # its last answer came before it began
        (timedelta(days=5), ["stale", "forecast"]),
    ],
    ids=str,
)
def test_an_outage_of_a_live_provider(length, rungs, tmp_path):
    start = BEGIN + timedelta(hours=9, minutes=20)  # a tick falls into it
    week = Week("electricity_maps", tmp_path, outages=[(start, start + length)])
    assert week.state.count("done") == 50
    assert [e.rung for e in week.journal if isinstance(e, Answered) and e.rung != "live"] == rungs
    assert week.most_an_hour() <= 12
    assert len(week.transport.refused) <= 12 * (length / HOUR + 1)
    deadline = BEGIN + MARGINAL.max_delay
    times = [e.at for e in week.journal if isinstance(e, Requested)]
    assert len(set(times)) == len(times), "one device: nobody stampedes"
    late = [t for t in times if t > deadline]
    assert len(late) <= 50 * 1.5 * HOUR / timedelta(hours=24) * 24
    made = make_report(week.state, ledger(week.state), baseline(week.state))
    assert [gap.freshness for gap in made.outages] == rungs
