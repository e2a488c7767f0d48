"""`gridsweep collect` with `gate: none`: a copy of the folder of a loop that runs in the cluster."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import api_of, drive_sweep

from builders import real_sweep, until
from gridsweep.errors import JournalError, SpecError
from gridsweep.executors.kubernetes.manifests.checks import problems
from gridsweep.executors.kubernetes.manifests.names import labels
from gridsweep.executors.kubernetes.shelves import journal_reader
from gridsweep.records import chain
from gridsweep.runs import clusters, copying
from gridsweep.runs.collecting import Collection
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.mending import verify
from gridsweep.runs.run import report
from gridsweep.sweep.clusters import ExecutorChoice, KubernetesCluster
from gridsweep.sweep.sweep import Sweep
from gridsweep.testing.kubernetes.operator import Cluster
from gridsweep.testing.kubernetes.processes import Kubelet, Object, Work
from gridsweep.testing.kubernetes.server import ApiServer

NAME = "contract"
CLUSTER = KubernetesCluster(gate="none")
LOOP = {
    "kind": "Pod",
    "metadata": {"name": "contract-controller-1", "labels": labels(NAME, "controller")},
    "spec": {"containers": []},
    "status": {"phase": "Running"},
}


class TwoVolumes(Kubelet):
    """Mounts the journal's volume as well."""

    def __init__(self, volume: Path, scratch: Path, journal: Path):
        super().__init__(volume, scratch)
        self.journal = journal

    def start(self, pod: Object, entrypoint: str = "") -> Work:
        for variable in pod["spec"]["containers"][0]["env"]:
            if variable.get("value") == "/state":
                variable["value"] = str(self.journal)
        return super().start(pod, entrypoint)


class Loop:
    """A loop in the cluster, whose journal no laptop can read."""

    def __init__(self, tmp: Path):
        self.tmp, self.journal, self.store = tmp, tmp / "journal", tmp / "volume" / NAME
        self.store.mkdir(parents=True)
        self.server = ApiServer()
        self.cluster = Cluster(self.server, TwoVolumes(tmp / "volume", tmp / "pods", self.journal), grace=2.0)
        choice = ExecutorChoice("kubernetes", kubernetes=CLUSTER)
        self.sweep: Sweep = real_sweep(2, steps=12, name=NAME, executor=choice)

    def drive(self) -> None:
        drive_sweep(self.sweep, self.journal / "run", self.server, self.store)

    def collect(self, name: str = "copy", **options: Any) -> Collection:
        return clusters.collect(self.sweep, self.tmp / name, api=api_of(self.server), patience=60, **options)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    made = Loop(tmp_path)
    with made.server, made.cluster.running():
        yield made


def test_the_copy_is_the_loops_folder(loop):
    loop.drive()
    made = loop.collect()
    assert (made.kind, made.gate, made.counts, made.warnings) == ("copy", "none", {"done": 2}, ())
    ours, theirs = RunFolder(loop.tmp / "copy"), RunFolder(loop.journal / "run")
    assert chain.head(ours.journal) == chain.head(theirs.journal)
    assert verify(ours.path).faults == () and verify(ours.path).adapters == 2
    rows = [[(row.experiment, row.loss) for row in report(folder.path).rows] for folder in (ours, theirs)]
    assert rows[0] == rows[1]
    again = loop.collect()
    assert again.events == 0
    until(lambda: not [pod for pod in loop.server.all("pods") if "reader" in pod["metadata"]["name"]])


def test_a_loop_that_writes_meanwhile_is_copied_as_it_was(loop, monkeypatch):
    monkeypatch.setattr(copying, "PAUSE_SECONDS", 0.05)
    loop.server.put("pods", LOOP)
    thread = threading.Thread(target=loop.drive)
    thread.start()
    try:
        until(lambda: RunFolder(loop.journal / "run").submitted(), 60)
        seen = [loop.collect().events for _ in range(3)]
    finally:
        thread.join()
    assert seen[0] > 0
    assert loop.collect().counts == {"done": 2}
    assert verify(loop.tmp / "copy").faults == ()
    readers = [made for _, _, key, made in loop.server.history if key[2] == "contract-journal-reader"]
    term = readers[0]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= LOOP["metadata"]["labels"].items()


@pytest.mark.parametrize("beside", [True, False])
def test_the_reader_of_the_journal_may_only_read_it(beside):
    made = journal_reader(CLUSTER, NAME, "r", "a-secret", beside=beside)
    assert problems([made]) == []
    (container,) = made["spec"]["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["state"] == {"name": "state", "mountPath": "/state", "readOnly": True}
    assert made["spec"]["volumes"][0] == {
        "name": "state", "persistentVolumeClaim": {"claimName": "contract-journal"},
    }  # fmt: skip
    assert ("affinity" in made["spec"]) == beside
    assert made["spec"]["automountServiceAccountToken"] is False and "a-secret" not in json.dumps(
        made["spec"]["containers"]
    )


def test_damage_is_told_and_nothing_is_copied(loop, monkeypatch):
    monkeypatch.setattr(copying, "PAUSE_SECONDS", 0.0)
    loop.drive()
    journal = loop.journal / "run/state/journal.db"
    head = chain.head(journal)
    chain.write_head(journal, head[0] + 3, head[1])
    with pytest.raises(JournalError, match="3 rows are missing"):
        loop.collect()
    assert RunFolder(loop.tmp / "copy").empty()


def test_a_copy_of_another_run_is_kept(loop):
    loop.drive()
    loop.collect()
    shutil.rmtree(loop.journal)
    shutil.rmtree(loop.store)
    loop.store.mkdir()
    loop.drive()
    with pytest.raises(SpecError, match="a copy of another run of the sweep"):
        loop.collect()


def test_volumes_that_are_mounted_here(loop):
    loop.drive()
    with pytest.raises(SpecError, match="--journal"):
        clusters.collect(loop.sweep, loop.tmp / "copy", store=loop.store)
    made = clusters.collect(loop.sweep, loop.tmp / "copy", store=loop.store, journal=loop.journal)
    assert made.counts == {"done": 2} and verify(loop.tmp / "copy").faults == ()


def test_a_copy_drives_nothing(loop, gridsweep: Callable[..., Any]):
    loop.drive()
    loop.collect()
    code, out, _ = gridsweep("status", "copy")
    assert code == 0 and "read from the namespace gridsweep" in out
    for verb in (["run"], ["stop"], ["pause"], ["repair"], ["report", "--settle"]):
        code, out, err = gridsweep(*verb, "copy")
        assert code == 2 and "is a copy: the loop lives in the namespace gridsweep" in err, (verb, out, err)
        assert "kubectl -n gridsweep exec" in err
    with pytest.raises(SpecError, match="copy holds a copy of a loop's folder"):
        clusters.collect(loop.sweep, Path("copy"), gate="suspend", store=loop.store)
