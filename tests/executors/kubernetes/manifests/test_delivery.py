"""The programs in a worker's pod, run for real, with the stand-in worker; and the sources a ConfigMap brings."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builders import make_sweep
from gridsweep import __version__
from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.delivery import (
    CONFIGMAP_LIMIT,
    ENTRYPOINT,
    SOURCE_PARTS,
    STOP,
    assignment_of,
    config_map,
    worker_sources,
)
from gridsweep.records import codec
from gridsweep.records.attempts import AttemptFolder
from gridsweep.sweep.experiments import Model

ANNOTATION_LIMIT = 262_144  # of what kubectl's client-side apply copies into an annotation


@pytest.fixture
def pod(tmp_path):
    """A pod's environment, and how its entrypoint is started."""
    work = assignment_of(make_sweep(1, steps=40), "e00")
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "python").symlink_to(sys.executable)

    class Pod:
        store = tmp_path / "store"
        home = store / "stints" / work.attempt.partition("/")[0]
        environment = {  # noqa: RUF012
            **os.environ,
            "PATH": f"{bin}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "HOME": str(tmp_path),
            "GRIDSWEEP_ASSIGNMENT": codec.dumps(work, indent=1),
            "GRIDSWEEP_STORE": str(store),
            "GRIDSWEEP_AGAIN": "1",
            "GRIDSWEEP_WORKER": "gridsweep.testing",
        }

        def start(self, **more):
            command = ["sh", "-c", ENTRYPOINT]
            environment = {**self.environment, **more}
            return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

        def run(self, **more):
            process = self.start(**more)
            _, said = process.communicate(timeout=60)
            return process.returncode, said

        def stop(self):
            subprocess.run(["sh", "-c", STOP], env=self.environment, check=False, timeout=60)

        def folder(self, number):
            return AttemptFolder(self.home / str(number))

        def interrupted(self):
            """An attempt that was stopped at some step, as a pod is taken down."""
            process = self.start(GRIDSWEEP_STEP_SECONDS="0.1")
            until(lambda: '"step":6' in read(self.folder(1).path / "progress.jsonl"))
            self.stop()
            process.communicate(timeout=60)
            return self.folder(1)

    return Pod()


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_started_pod_works_through_its_assignment(pod):
    assert pod.run()[0] == 0
    folder = pod.folder(1)
    assert folder.assignment() == codec.loads(type(folder.assignment()), pod.environment["GRIDSWEEP_ASSIGNMENT"])
    assert [outcome.status for outcome in folder.result().outcomes] == ["done"]
    assert (folder.path / "log.txt").exists()


def test_the_worker_holds_the_lock_of_its_folder(pod):
    process = pod.start(GRIDSWEEP_STEP_SECONDS="0.1")
    until((pod.folder(1).path / "worker.json").exists)
    assert pod.folder(1).alive()
    pod.stop()
    process.communicate(timeout=60)
    assert not pod.folder(1).alive()


def test_a_pod_that_is_taken_down_leaves_a_checkpoint_and_a_result(pod):
    folder = pod.interrupted()
    (outcome,) = folder.result().outcomes
    assert outcome.status == "paused"
    assert outcome.checkpoint.step > 0


def test_a_resumed_job_goes_on_from_its_checkpoint_in_a_new_folder(pod):
    saved = pod.interrupted().result().outcomes[0].checkpoint
    assert pod.run()[0] == 0
    (part,) = pod.folder(2).assignment().members
    assert (part.from_step, part.checkpoint) == (saved.step, saved)
    assert [outcome.status for outcome in pod.folder(2).result().outcomes] == ["done"]


def test_finished_work_is_not_done_again(pod):
    pod.run()
    assert pod.run()[0] == 0
    assert not pod.folder(2).path.exists()


def test_where_the_loop_drives_a_used_folder_is_refused(pod):
    pod.interrupted()
    code, said = pod.run(GRIDSWEEP_AGAIN="0")
    assert code == 1
    assert "has been worked in" in said
    assert not pod.folder(2).path.exists()


def test_a_second_worker_is_kept_away(pod):
    pod.folder(1).prepare(
        codec.loads(type(assignment_of(make_sweep(1), "e00")), pod.environment["GRIDSWEEP_ASSIGNMENT"])
    )
    lock = pod.folder(1).lock()
    code, said = pod.run()
    os.close(lock)
    assert code == 1
    assert "a worker lives in" in said


def test_stopping_a_pod_without_a_worker_takes_no_time(pod):
    began = time.monotonic()
    pod.stop()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("paths", SOURCE_PARTS.values(), ids=SOURCE_PARTS)
def test_each_part_of_the_sources_fits_a_configmap_and_kubectl(paths):
    texts = worker_sources()
    size = sum(len(texts[path].encode()) + len(path) for path in paths)
    assert 0 < size < ANNOTATION_LIMIT < CONFIGMAP_LIMIT


def test_the_parts_of_the_sources_are_all_of_them():
    assert sorted(path for paths in SOURCE_PARTS.values() for path in paths) == sorted(worker_sources())


def test_the_sources_are_all_a_worker_imports(tmp_path):
    for name, text in worker_sources().items():
        path = tmp_path / "gridsweep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    modules = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in worker_sources()]
    lines = [f"import gridsweep.{module}" for module in modules if not module.startswith("__")]
    script = "\n".join([*lines, "import gridsweep; print(gridsweep.__file__)"])
    there = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=there, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "gridsweep" / "__init__.py")


def test_the_sources_import_nothing_of_the_package_that_is_not_among_them():
    there = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in worker_sources()}
    for name, text in worker_sources().items():
        used = re.findall(r"^\s*(?:from|import) gridsweep\.([\w.]+)", text, re.M)
        lazy = name.endswith("__init__.py")  # a folder's front imports what it hands on when it is asked for
        assert set(used) <= there or lazy, name


def test_the_mounted_files_are_those_of_the_package(published):
    cluster = replace(cluster_of(published, "compute-gardener"), worker="configmap")
    made = bundle(published, cluster, worker_sources=worker_sources()).manifests
    held = {m["metadata"]["name"]: m["data"] for m in made if m["kind"] == "ConfigMap"}
    job = next(m for m in made if m["kind"] == "RayJob")
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = (v["projected"]["sources"] for v in pod["volumes"] if "projected" in v)
    parts = [source["configMap"] for source in volume]
    placed = {item["path"]: held[part["name"]][item["key"]] for part in parts for item in part["items"]}
    assert placed == {f"gridsweep/{path}": text for path, text in worker_sources().items()}


def test_what_no_pod_could_read_is_refused(published):
    for model, worker in (("/home/me/model", "image"), ("tiny-qwen2", "configmap")):
        cluster = replace(cluster_of(published, "compute-gardener"), worker=worker)
        with pytest.raises(SpecError, match=r"lies on this machine|tiny-qwen2 comes"):
            bundle(replace(published, model=Model(model)), cluster, worker_sources=worker_sources())


def test_a_configmap_too_large_is_refused(published):
    with pytest.raises(SpecError, match="1024"):
        config_map(cluster_of(published, "compute-gardener"), "x", {}, {"a": "b" * (CONFIGMAP_LIMIT + 1)})


def test_an_image_of_another_version_says_so_first(pod, tmp_path):
    """As 0.1.0 was: no `__version__`, and none of the modules that the start imports."""
    old = tmp_path / "old" / "gridsweep"
    old.mkdir(parents=True)
    (old / "__init__.py").write_text("")
    code, said = pod.run(PYTHONPATH=str(old.parent))
    assert code == 1
    assert "No module named 'gridsweep.executors'" in said  # which the loop tells with the image
    code, said = pod.run(GRIDSWEEP_VERSION="9.9")
    assert (code, said.strip()) == (
        1, f"the image holds gridsweep {__version__}, this needs 9.9; use an image of that version"
    )  # fmt: skip
