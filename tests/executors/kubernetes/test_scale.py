"""A thousand RayJobs."""

from __future__ import annotations

import time
from pathlib import Path

from bench import CLUSTER, api_of
from test_scenarios import BEGIN

from gridsweep.executors.kubernetes.executor import Kubernetes
from gridsweep.executors.kubernetes.manifests.names import RAYJOB_LIMIT
from gridsweep.executors.kubernetes.volume import Mounted
from gridsweep.state.events import Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint
from gridsweep.testing.executor_contract import sweep_of
from gridsweep.testing.kubernetes.server import ApiServer

MANY = 1000


def test_a_thousand_rayjobs_are_submitted_in_twenty_seconds(tmp_path: Path):
    with ApiServer() as server:
        sweep = sweep_of(MANY, devices=MANY)
        state = State([Submitted(BEGIN, sweep)])
        for number, experiment in enumerate(sweep.experiments):
            stint = Stint((Member(experiment.id, 0, 6),))
            state.apply(Requested(BEGIN, f"{stint.id}/1", stint, f"d{number}", "a test"))
        api = api_of(server)
        executor = Kubernetes(CLUSTER, api, Mounted(tmp_path), watch=False)
        begun = time.monotonic()
        executor.act(state)
        seconds = time.monotonic() - begun
        looked = time.monotonic()
        for event in executor.observe(state, BEGIN):
            state.apply(event)
        executor.act(state)
        again = time.monotonic() - looked
        print(f"{MANY} RayJobs submitted in {seconds:.1f} s; looked at and acted upon again in {again:.1f} s")
        names = {job["metadata"]["name"] for job in server.all("rayjobs")}
        assert len(names) == MANY and max(map(len, names)) <= RAYJOB_LIMIT
        assert server.count("create", "rayjobs") == MANY
        assert seconds <= 20
        api.close()
