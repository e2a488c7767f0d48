"""`gridsweep collect`: from what the gates leave in a cluster to a run folder that every reading verb works on.

The jobs are those that `render` writes; they run their own start program, with the stand-in worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import api_of

from adapter_files import shapes, write_adapter
from builders import until
from gridsweep import load
from gridsweep.accounting.compute_gardener import PREFIX
from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.api import Forbidden, Unreachable
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.names import ATTEMPT, EXPERIMENT
from gridsweep.records.attempts import AttemptFolder
from gridsweep.runs import clusters
from gridsweep.runs.collecting import Collection
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.mending import verify
from gridsweep.runs.run import report
from gridsweep.state.state import State
from gridsweep.testing.kubernetes.operator import Cluster
from gridsweep.testing.kubernetes.processes import Kubelet
from gridsweep.testing.kubernetes.server import ApiServer

SPEC = """\
name: gated
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 40, checkpoint_every: 4}
space: {r: [8, 16, 32], alpha: [16, 32], lr: [1e-4], dropout: [0.1]}
design: grid
devices: 2
tiers: [{name: day, threshold: 200, max_delay: 24h}]
estimates: {duration: 1h, power_w: 15}
rungs: none
policy: immediate
executor: {kubernetes: {gate: GATE, queue: gpus}}
"""
DONE, PREEMPTED, CRASHED, VANISHED, DIVERGED, NEVER = range(6)
NOW = timedelta(0)


class Gated:
    """A sweep that was rendered for a gate and applied, and the cluster in which its jobs are."""

    def __init__(self, tmp: Path, gate: str, monkeypatch: pytest.MonkeyPatch):
        self.tmp, self.volume = tmp, tmp / "volume"
        self.spec = tmp / "gated.yaml"
        self.spec.write_text(SPEC.replace("GATE", gate))
        self.sweep = load(self.spec)
        self.ids = [experiment.id for experiment in self.sweep.experiments]
        self.store = self.volume / "gated"
        self.store.mkdir(parents=True)
        self.server = ApiServer()
        self.cluster = Cluster(self.server, Kubelet(self.volume, tmp / "pods"), grace=10.0)
        wrongs = {"crash": CRASHED, "vanish": VANISHED, "nan": DIVERGED}
        monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", ",".join(f"{what}:{self.ids[n]}" for what, n in wrongs.items()))
        self.apply()

    def apply(self) -> None:
        for made in bundle(self.sweep, cluster_of(self.sweep)).manifests:
            if made["kind"] == "RayJob":
                self.server.put("rayjobs", made)

    def job(self, n: int) -> dict[str, Any] | None:
        jobs = self.server.all("rayjobs")
        return next((job for job in jobs if job["metadata"]["labels"][EXPERIMENT] == self.ids[n]), None)

    def suspend(self, n: int, *, suspend: bool) -> None:
        job = self.job(n)
        assert job
        self.server.change("rayjobs", job["metadata"]["name"], {"spec": {"suspend": suspend}})

    def stage(self, n: int) -> str:
        job = self.job(n)
        return (job.get("status") or {}).get("jobDeploymentStatus", "") if job else "gone"

    def folder(self, n: int, number: int = 1) -> AttemptFolder:
        job = self.job(n)
        assert job
        stint = job["metadata"]["annotations"][ATTEMPT].rpartition("/")[0]
        return AttemptFolder(self.store / "stints" / stint / str(number))

    def preempted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Release a job, and suspend it again after a few steps."""
        monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
        self.suspend(PREEMPTED, suspend=False)
        progress = self.folder(PREEMPTED).path / "progress.jsonl"
        until(lambda: progress.exists() and '"step":6' in progress.read_text(), 60)
        self.suspend(PREEMPTED, suspend=True)
        until(lambda: self.stage(PREEMPTED) == "Suspended", 60)
        monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")

    def collect(self, name: str = "run", **options: Any) -> Collection:
        api = api_of(self.server)
        return clusters.collect(self.sweep, self.tmp / name, api=api, **{"patience": 60, "settle": NOW, **options})

    def state(self, name: str = "run") -> State:
        return RunFolder(self.tmp / name).read()

    def status(self, n: int, name: str = "run") -> tuple[str, str]:
        standing = self.state(name).standings[self.ids[n]]
        return standing.status, standing.why

    def expire(self) -> None:
        """Delete what has ended, as the time to live of finished jobs does."""
        self.cluster.ttl, self.cluster.vanish = 0.0, True
        until(lambda: [self.stage(n) for n in (DONE, PREEMPTED, CRASHED, VANISHED, DIVERGED)] == ["gone"] * 5, 60)


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Gated]:
    made = Gated(tmp_path, gate := getattr(request, "param", "suspend"), monkeypatch)
    made.cluster.intensity = 260.0 if gate == "compute-gardener" else None
    with made.server, made.cluster.running():
        yield made


def through(gated: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sweep go through everything that can happen to it."""
    gated.preempted(monkeypatch)
    for n in (DONE, PREEMPTED, CRASHED, VANISHED, DIVERGED):
        gated.suspend(n, suspend=False)
    until(lambda: all(gated.stage(n) in ("Complete", "Failed") for n in range(5)), 120)


def whole(gated: Gated, name: str = "run") -> None:
    """Check what became of each experiment, whatever was collected when."""
    state = gated.state(name)
    found = {n: state.standings[id] for n, id in enumerate(gated.ids)}
    assert [found[n].status for n in (DONE, PREEMPTED, DIVERGED)] == ["done", "done", "failed"]
    assert [found[n].status for n in (CRASHED, VANISHED, NEVER)] == ["waiting"] * 3
    assert "the stand-in was told to crash" in found[CRASHED].why
    assert found[VANISHED].reason and found[VANISHED].why
    assert len(found[PREEMPTED].attempts) == 2 and found[NEVER].attempts == []
    first, second = (state.attempts[id] for id in found[PREEMPTED].attempts)
    assert first.end == "paused" and first.ended_at <= second.requested_at
    assert second.first_step == first.kept_step >= 4
    begun = json.loads((gated.store / "stints" / first.id / "worker.json").read_text())["started_at"]
    assert first.requested_at.isoformat() == begun.replace("Z", "+00:00"), "times are the workers' own"


def test_a_gated_sweep_becomes_a_run_folder(gated, monkeypatch):
    made = gated.collect()
    assert (made.counts, made.attempts) == ({"waiting": 6}, 0)
    assert gated.status(NEVER) == ("waiting", "held by Kubernetes: its RayJob is suspended")
    gated.preempted(monkeypatch)
    gated.collect()
    assert gated.status(PREEMPTED) == ("waiting", "held by Kubernetes: its RayJob is suspended")
    assert gated.state().standings[gated.ids[PREEMPTED]].step >= 4
    for n in (DONE, PREEMPTED, CRASHED, VANISHED, DIVERGED):
        gated.suspend(n, suspend=False)
    until(lambda: all(gated.stage(n) in ("Complete", "Failed") for n in range(5)), 120)
    gated.collect()
    whole(gated)
    gated.expire()
    gated.collect()
    whole(gated)
    assert gated.status(NEVER)[1] == "held by Kubernetes: its RayJob is suspended"
    assert verify(gated.tmp / "run").faults == ()
    until(lambda: gated.server.find("pods", "gated-reader") is None)  # it goes with the collection


def test_all_of_it_at_once_after_the_jobs_are_gone(gated, monkeypatch):
    through(gated, monkeypatch)
    gated.collect("before")
    gated.expire()
    gated.server.remove("rayjobs", gated.job(NEVER)["metadata"]["name"])
    made = gated.collect("late")
    whole(gated, "late")
    assert gated.status(NEVER, "late")[1] == "it has no RayJob: not applied, or deleted"
    assert "when the jobs were applied" in made.unknown[0]
    assert made.next == f"gridsweep report {gated.tmp / 'late'}"
    rows = [
        [(r.experiment, r.loss, r.energy_kwh) for r in report(gated.tmp / name).rows] for name in ("before", "late")
    ]
    assert rows[0] == rows[1]


def test_a_second_collection_of_the_same_changes_nothing(gated, monkeypatch):
    through(gated, monkeypatch)
    gated.collect()
    journal = (gated.tmp / "run/state/journal.head").read_text()
    again = gated.collect()
    assert again.events == 0 and (gated.tmp / "run/state/journal.head").read_text() == journal


def test_a_volume_that_is_mounted_here_needs_no_cluster(gated, monkeypatch):
    through(gated, monkeypatch)
    listed = sorted(str(path) for path in gated.volume.rglob("*"))
    for root, name in ((gated.volume, "volume-root"), (gated.store, "store")):
        made = clusters.collect(gated.sweep, gated.tmp / name, store=root)
        state = gated.state(name)
        assert state.standings[gated.ids[DONE]].status == "done"
        assert "no cluster was asked" in gated.status(NEVER, name)[1]
        assert made.counts["running"] == 1, "without a cluster a worker without a result may be alive"
        made = clusters.collect(gated.sweep, gated.tmp / name, store=root, ended=True)
        assert "running" not in made.counts
        whole(gated, name)
    assert sorted(str(path) for path in gated.volume.rglob("*")) == listed, "the volume is only read"


def test_a_running_job_is_followed(gated, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    gated.suspend(DONE, suspend=False)
    until(lambda: (gated.folder(DONE).path / "energy.jsonl").exists(), 60)
    assert gated.collect().counts == {"running": 1, "waiting": 5}
    (attempt,) = gated.state().active.values()
    assert attempt.held == ""
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")
    until(lambda: gated.stage(DONE) == "Complete", 60)
    assert gated.collect().counts == {"done": 1, "waiting": 5}


def test_a_worker_that_says_what_cannot_be_is_lost_by_the_same_border(gated):
    gated.suspend(DONE, suspend=False)
    until(lambda: gated.stage(DONE) == "Complete", 60)
    energy = gated.folder(DONE).path / "energy.jsonl"
    energy.write_text(re.sub(r'"kwh":[^,]+', '"kwh":5000.0', energy.read_text()))
    gated.collect()
    standing = gated.state().standings[gated.ids[DONE]]
    assert standing.status == "waiting" and "kW are plausible" in standing.reason


@pytest.mark.parametrize("gated", ["compute-gardener"], indirect=True)
def test_compute_gardeners_figures_stand_beside_ours(gated):
    until(lambda: len(gated.server.all("pods")) == 6, 60)
    held = "Current carbon intensity"
    until(lambda: all(held in json.dumps(pod.get("status", {})) for pod in gated.server.all("pods")), 60)
    assert gated.collect().counts == {"waiting": 6}
    assert gated.status(DONE)[1] == (
        "held by Compute Gardener: Current carbon intensity (260.00) exceeds threshold (200.00)"
    )
    gated.cluster.ttl = 3600.0
    gated.cluster.intensity = 180.0
    until(lambda: all(gated.stage(n) in ("Complete", "Failed") for n in range(6)), 120)
    gated.collect()
    gated.expire()
    assert gated.collect().unknown == ()
    found = report(gated.tmp / "run")
    assert found.policy == "gate compute-gardener"
    seen = found.gardened[gated.ids[DONE]]
    assert (seen.initial_intensity, seen.bind_intensity, seen.threshold) == (260.0, 180.0, 200.0)
    assert PREFIX not in json.dumps(found.facts)


@pytest.mark.parametrize("gated", ["kueue"], indirect=True)
def test_more_jobs_at_once_than_the_spec_has_devices(gated, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.05")
    until(lambda: all(gated.stage(n) in ("Complete", "Failed") for n in range(6)), 120)
    gated.collect()
    state = gated.state()
    for one in state.attempts.values():
        for other in state.attempts.values():
            apart = one.ended_at <= other.requested_at or other.ended_at <= one.requested_at
            assert one is other or apart or one.device != other.device
    assert len(state.sweep.devices) > 2 and any("devices" in note for note in report(gated.tmp / "run").notes)


def test_nothing_is_made_where_nothing_is_found(gated):
    for job in gated.server.all("rayjobs"):
        gated.server.remove("rayjobs", job["metadata"]["name"])
    with pytest.raises(SpecError, match="nothing of the sweep gated was found in the namespace gridsweep"):
        gated.collect()
    assert RunFolder(gated.tmp / "run").empty() and not (gated.tmp / "run/state/origin.json").exists()


def test_another_spec_than_the_rendered_one_is_refused(gated):
    gated.suspend(DONE, suspend=False)
    until(lambda: gated.stage(DONE) == "Complete", 60)
    gated.spec.write_text(gated.spec.read_text().replace("checkpoint_every: 4", "checkpoint_every: 5"))
    gated.sweep = load(gated.spec)
    with pytest.raises(SpecError, match=r"made from another spec: recipe differ; collect with the spec"):
        gated.collect()


def test_missing_rights_are_all_named(gated):
    for right in (("list", "rayjobs"), ("get", "pods/proxy")):
        gated.server.forbid(*right)
    with pytest.raises(Forbidden, match=r"list rayjobs\.ray\.io, get pods/proxy"):
        gated.collect()


def test_a_reader_that_never_starts_ends_the_collection(gated):
    gated.suspend(DONE, suspend=False)
    until(lambda: gated.stage(DONE) == "Complete", 60)
    gated.server.fail(plural="pods/proxy", code=503, times=1_000)
    with pytest.raises(Unreachable, match="the pod gated-collect, which reads the volume to us"):
        gated.collect(patience=2)


def test_the_verbs_work_on_the_folder_and_none_drives_it(gated, gridsweep: Callable[..., Any], monkeypatch):
    through(gated, monkeypatch)
    with gated.folder(DONE).saving_adapter(gated.ids[DONE], 40) as draft:
        write_adapter(draft, shapes(8), r=8)
    config = {
        "clusters": [{"name": "c", "cluster": {"server": gated.server.url}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    (gated.tmp / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(gated.tmp / "config"))
    code, out, err = gridsweep("collect", "gated.yaml", "--settle", "1s", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["kind"], told["gate"], told["attempt_count"]) == ("collected", "suspend", 6)
    gated.expire()
    monkeypatch.delenv("KUBECONFIG")
    for verb in (["status"], ["report"], ["models"], ["best"], ["verify"]):
        code, out, err = gridsweep(*verb, "runs/gated")
        assert code == 0 and out, (verb, err)
    assert "gridsweep collect gated.yaml" in gridsweep("status", "runs/gated")[1]
    assert gridsweep("logs", gated.ids[DONE], "runs/gated")[0] == 0
    assert gridsweep("explain", gated.ids[NEVER], "runs/gated")[0] == 0
    assert gridsweep("export", gated.ids[DONE], "runs/gated", "--to", "taken")[0] == 0
    rows = json.loads(gridsweep("report", "runs/gated", "--json")[1])["experiments"]
    joined = [row for row in rows if row["validation_loss"] is not None and row["emissions_g"] is not None]
    assert len(joined) == 2, "loss and carbon stand in one row an experiment"
    drives = (["run", "gated.yaml"], ["run", "runs/gated"], ["run", "gated.yaml", "--detach"], ["stop", "runs/gated"])
    for verb in (*drives, ["pause", "runs/gated"], ["cancel", gated.ids[NEVER], "runs/gated"]):
        code, out, err = gridsweep(*verb)
        assert code == 2 and "was collected from the namespace gridsweep" in err, (verb, out, err)
        assert "kubectl" in err and "gridsweep collect gated.yaml" in err
