"""A day without the API server, as the whole loop sees it: patience with workers that are out of sight."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from bench import CLUSTER  # noqa: F401  (the double's import path)
from test_scenarios import BEGIN, Stage

from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.loop import drive
from gridsweep.policy.gates import Immediate
from gridsweep.simulation.virtual import Observations
from gridsweep.state.events import Held, Lost, Pausing, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.testing.executor_contract import sweep_of
from gridsweep.testing.kubernetes.server import ApiServer

STEPS = 40


class OutOfSight:
    """A virtual world whose API server is away from the fifth to the twenty-ninth hour."""

    def __init__(self, stage: Stage):
        self.stage, self.executor = stage, stage.executor
        self.provider = Observations(Trace(BEGIN, HOUR, [100.0] * 96), Provenance("a test"))

    def now(self):
        return self.stage.time

    def clock(self, state):
        return ()

    def silences(self, state):
        return None

    def wait(self, until, state):
        self.stage.time += min(until - self.stage.time, timedelta(minutes=20))
        self.stage.server.is_down = 5 * HOUR < self.stage.time - BEGIN < 29 * HOUR
        for _ in range(3):
            self.stage.cluster.tick()


def test_a_day_without_the_api_server_restarts_nothing(tmp_path: Path):
    with ApiServer() as server:
        stage = Stage(server, tmp_path)
        # A step takes an hour here: the estimate says so, and ten steps' silence would be too long.
        journal = [Submitted(BEGIN, sweep_of(2, steps=STEPS), patience=timedelta(minutes=90))]
        state = drive(State(journal), journal, OutOfSight(stage), Immediate())
        stage.close()
    assert [s.status for s in state.standings.values()] == ["done", "done"]
    assert len(stage.kubelet.started) == 2 == server.count("create", "rayjobs")
    assert not any(isinstance(e, Lost | Pausing) for e in journal)
    assert sum(isinstance(e, Requested) for e in journal) == 2
    assert any("has not answered since" in e.why for e in journal if isinstance(e, Held))
    assert sum(segment.kwh for a in state.attempts.values() for segment in a.energy) == pytest.approx(2 * STEPS * 0.1)


def test_what_the_grid_holds_for_days_is_not_silent(tmp_path: Path):
    with ApiServer() as server:
        stage = Stage(server, tmp_path)
        world = OutOfSight(stage)
        stage.cluster.hold = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        wait = world.wait

        def free_after_two_days(until, state):
            wait(until, state)
            if stage.time - BEGIN > 50 * HOUR:
                stage.cluster.hold = ""

        world.wait = free_after_two_days
        journal = [Submitted(BEGIN, sweep_of(1, steps=6), patience=timedelta(minutes=90))]
        state = drive(State(journal), journal, world, Immediate())
        stage.close()
    assert state.standings["e00"].status == "done"
    assert len(stage.kubelet.started) == 1
    assert not any(isinstance(e, Lost | Pausing) for e in journal)
