"""The published set-up, from `render` to the table: 21 jobs, three tiers, held by Compute Gardener on a recorded grid.

Only the number of steps is smaller. Time is virtual, and the workers' own; the files are read through the reader pod.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import api_of

from builders import PROJECT, until
from gridsweep import load
from gridsweep.carbon.traces import HOUR
from gridsweep.executors.border import read_lines
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, EXPERIMENT, STORE
from gridsweep.grid.registry import provider_for
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, AttemptFolder, EnergyLine
from gridsweep.runs import clusters
from gridsweep.runs.collecting import Collection
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.mending import verify
from gridsweep.runs.run import report
from gridsweep.serving.adapters import models
from gridsweep.testing.kubernetes.operator import Cluster
from gridsweep.testing.kubernetes.processes import Kubelet
from gridsweep.testing.kubernetes.server import ApiServer
from gridsweep.testing.kubernetes.virtual import VirtualKubelet, VirtualWork

BEGIN = datetime(2025, 6, 2, 16, tzinfo=UTC)
HALF = timedelta(minutes=30)
STEPS = 6
CLUSTER_TIME = timedelta(hours=30)


class Nodes(VirtualKubelet):
    """Workers in virtual time, each in the next folder if its first one was used; reader pods are real."""

    def __init__(self, cluster: PublishedSweep, readers: Kubelet):
        super().__init__(cluster.volume, lambda: cluster.time, timedelta(minutes=90) / STEPS)
        self.readers = readers

    def start(self, pod: dict[str, Any], entrypoint: str = "") -> Any:
        if not entrypoint:
            return self.readers.start(pod)
        told = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
        task = codec.loads(Assignment, told["GRIDSWEEP_ASSIGNMENT"].replace("$$(", "$("))
        store = Path(told["GRIDSWEEP_STORE"].replace(STORE, str(self.volume), 1))
        folder, (part,) = AttemptFolder(store / "stints" / task.attempt), task.members
        while (folder.path / "worker.json").exists():
            saved = folder.checkpoint(part.experiment) or part.checkpoint
            part = replace(part, from_step=saved.step, checkpoint=saved)
            stint, _, number = task.attempt.rpartition("/")
            task = replace(task, attempt=f"{stint}/{int(number) + 1}", members=(part,))
            folder = AttemptFolder(store / "stints" / task.attempt)
        return VirtualWork(folder, task, self.now, self.step)


class PublishedSweep:
    def __init__(self, tmp: Path):
        self.tmp, self.volume, self.time = tmp, tmp / "volume", BEGIN
        text = (PROJECT / "examples/published.yaml").read_text()
        (tmp / "published.yaml").write_text(text.replace("epochs: 3", f"steps: {STEPS}"))
        self.sweep = load(tmp / "published.yaml")
        (self.volume / "published").mkdir(parents=True)
        self.trace = provider_for(self.sweep.carbon).past(BEGIN, BEGIN + 30 * 24 * HOUR).history
        self.server = ApiServer()
        self.cluster = Cluster(self.server, Nodes(self, Kubelet(self.volume, tmp / "pods")), gpus=2)
        self.cluster.clock = lambda: (self.time - BEGIN).total_seconds()
        self.cluster.ttl = CLUSTER_TIME.total_seconds()
        for made in bundle(self.sweep, cluster_of(self.sweep, "compute-gardener")).manifests:
            if made["kind"] == "RayJob":
                self.server.put("rayjobs", made)
                created = {"creationTimestamp": f"{BEGIN:%Y-%m-%dT%H:%M:%SZ}"}
                self.server.change("rayjobs", made["metadata"]["name"], {"metadata": created})

    def pass_time(self) -> None:
        self.time += HALF
        self.cluster.intensity = self.trace.at(self.time)
        for _ in range(4):
            self.cluster.tick()

    def jobs(self, *stages: str) -> list[dict[str, Any]]:
        jobs = self.server.all("rayjobs")
        return [job for job in jobs if (job.get("status") or {}).get("jobDeploymentStatus", "") in stages]

    def suspend(self, job: dict[str, Any], *, suspend: bool) -> None:
        self.server.change("rayjobs", job["metadata"]["name"], {"spec": {"suspend": suspend}})

    def collect(self) -> Collection:
        """Collect while virtual time stands still; the reader pod is started and taken down by real ticks."""
        stop = threading.Event()

        def tick() -> None:
            while not stop.wait(0.02):
                self.cluster.tick()

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            return clusters.collect(
                self.sweep,
                self.tmp / "run",
                gate="compute-gardener",
                api=api_of(self.server),
                patience=60,
                settle=timedelta(0),
            )
        finally:
            until(lambda: self.server.find("pods", "published-collect") is None)
            stop.set()
            thread.join()


@pytest.fixture
def published(tmp_path: Path) -> Iterator[PublishedSweep]:
    made = PublishedSweep(tmp_path)
    with made.server:
        yield made


def test_the_published_table_comes_from_its_own_set_up(published):
    never, preempted, failed = (job["metadata"]["labels"][EXPERIMENT] for job in published.jobs("")[4:7])
    by_id = {job["metadata"]["labels"][EXPERIMENT]: job for job in published.jobs("")}
    published.suspend(by_id[never], suspend=True)
    hours, pending = 0, {preempted, failed}
    while len(published.jobs("Complete", "Failed")) < 20:
        published.pass_time()
        hours += 1
        assert hours < 1000
        for job in published.jobs("Running"):
            id = job["metadata"]["labels"][EXPERIMENT]
            attempt = job["metadata"]["annotations"][ATTEMPT]
            progress = published.volume / "published/stints" / attempt / "progress.jsonl"
            if id not in pending or not progress.exists() or '"step":3' not in progress.read_text():
                continue
            pending.remove(id)
            if id == failed:
                published.cluster.evict(attempt)
                continue
            published.suspend(job, suspend=True)
            for _ in range(4):
                published.cluster.tick()
            published.suspend(job, suspend=False)
        if hours % 40 == 0:
            published.collect()
    published.collect()
    published.cluster.ttl, published.cluster.vanish = 0.0, True
    for _ in range(3):
        published.pass_time()
    assert len(published.server.all("rayjobs")) == 1, "all but the job that never began have expired"
    made = published.collect()
    assert made.counts == {"done": 19, "waiting": 2}
    (warning,) = made.warnings  # of the virtual clock, which the files' times do not follow
    assert "21 of 21 attempts began before their files were written" in warning

    found, state = report(published.tmp / "run"), RunFolder(published.tmp / "run").read()
    assert state.submitted_at == BEGIN and found.policy == "gate compute-gardener"
    rows = {row.experiment: row for row in found.rows}
    assert len([row for row in rows.values() if row.loss is not None and row.emissions_g]) == 19
    for id, row in rows.items():
        drawn = (
            line
            for attempt in state.standings[id].attempts
            for line in read_lines(EnergyLine, published.volume / "published/stints" / attempt / "energy.jsonl")[0]
        )
        emitted = sum(line.kwh * published.trace.mean(line.start, line.start + seconds(line)) for line in drawn)
        assert row.emissions_g == pytest.approx(emitted, rel=1e-6), "its own energy at its own hours"
    assert len(state.standings[preempted].attempts) == 2 and state.standings[preempted].status == "done"
    assert "its pod was evicted" in state.standings[failed].why
    assert state.standings[never].why == "held by Kubernetes: its RayJob is suspended"
    held = {id: seen for id, seen in found.gardened.items() if seen.initial_intensity is not None}
    assert held and all(
        seen.threshold == published.sweep.tier(published.sweep.experiment(id).tier).threshold
        and seen.initial_intensity > seen.threshold
        for id, seen in held.items()
    )
    assert all(seen.bind_intensity <= seen.threshold for id, seen in held.items() if id in rows and id != never)
    assert found.immediate_g is not None and found.saving_g is not None
    assert len(models(published.tmp / "run")) == 19
    assert verify(published.tmp / "run").faults == ()


def seconds(line: EnergyLine) -> timedelta:
    return timedelta(seconds=line.seconds)
