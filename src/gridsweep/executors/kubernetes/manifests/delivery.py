"""Delivery of work into a worker's pod: the assignment, the start program and the stop program.

The assignment travels inside the RayJob, in a variable of the container: creating a RayJob needs no access to the
volume. The start program is `executors/kubernetes/start.py`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from importlib import resources

from gridsweep.errors import SpecError
from gridsweep.executors.assigning import assigned
from gridsweep.executors.kubernetes.manifests.names import Manifest, labels, metadata, object_name
from gridsweep.records.attempts import Assignment
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.constants import ENCODING
from gridsweep.sweep.experiments import is_local
from gridsweep.sweep.stints import Device, Member, Stint
from gridsweep.sweep.sweep import Sweep

START = ("python", "-P", "-m", "gridsweep.executors.kubernetes.start")
ENTRYPOINT = f"exec {' '.join(START)}"

STOP = """\
read -r pid folder < "$HOME/worker" || exit 0
kill -TERM "$pid" || exit 0
while kill -0 "$pid" && [ ! -e "$folder/result.json" ]; do sleep 1; done
"""
"""The preStop program of a pod: asks the worker to stop, and waits until its result is written."""

GRACE_SECONDS = 120
STOP_WAIT_SECONDS = 110
"""Seconds Ray gives a stopped job before killing it; the default of 3 s is too short for a checkpoint."""

PACKAGE = "/opt/gridsweep"
CONFIGMAP_LIMIT = 1 << 20
WORKER_SOURCES = (
    "__init__.py",
    "energy/__init__.py",
    "energy/meters.py",
    "energy/modelled.py",
    "energy/nvml.py",
    "energy/power_limits.py",
    "energy/rapl.py",
    "errors.py",
    "executors/__init__.py",
    "executors/kubernetes/__init__.py",
    "executors/kubernetes/start.py",
    "records/__init__.py",
    "records/attempts.py",
    "records/bounded.py",
    "records/codec.py",
    "records/disk.py",
    "records/files.py",
    "records/process.py",
    "sweep/__init__.py",
    "sweep/constants.py",
    "sweep/experiments.py",
    "sweep/losses.py",
    "sweep/stints.py",
    "train/__init__.py",
    "train/__main__.py",
    "train/architecture.py",
    "train/cache.py",
    "train/card_folders.py",
    "train/chat_format.py",
    "train/checkpoint.py",
    "train/constants.py",
    "train/conversations.py",
    "train/data.py",
    "train/data_files.py",
    "train/device.py",
    "train/diary.py",
    "train/encoding.py",
    "train/exactness.py",
    "train/first_encoding.py",
    "train/first_reading.py",
    "train/footprint.py",
    "train/forms.py",
    "train/four_bit.py",
    "train/hub.py",
    "train/kinds.py",
    "train/lean/__init__.py",
    "train/lean/attention.py",
    "train/lean/autograd.py",
    "train/lean/base.py",
    "train/lean/engine.py",
    "train/lean/files.py",
    "train/lean/fitting.py",
    "train/lean/group.py",
    "train/lean/head.py",
    "train/lean/initial.py",
    "train/lean/layers.py",
    "train/lean/linear.py",
    "train/lean/loss.py",
    "train/lean/masks.py",
    "train/lean/measure.py",
    "train/lean/memory.py",
    "train/lean/noise.py",
    "train/lean/packing.py",
    "train/lean/roster.py",
    "train/lean/stack.py",
    "train/lean/targets.py",
    "train/lean/variants.py",
    "train/learning_rate.py",
    "train/loading.py",
    "train/machine_memory.py",
    "train/miniature.py",
    "train/model.py",
    "train/overlap.py",
    "train/peak.py",
    "train/plain.py",
    "train/plain_format.py",
    "train/pretrained.py",
    "train/room.py",
    "train/rows.py",
    "train/samples.py",
    "train/smollm2.py",
    "train/spans.py",
    "train/stdlib.py",
    "train/tokenizer_files.py",
    "train/turns.py",
    "train/wording.py",
    "train/worker.py",
)
"""The files of the package that a worker needs, without the tiny base model, which is too large for a ConfigMap."""

SOURCE_PARTS = {
    "worker": tuple(path for path in WORKER_SOURCES if not path.startswith("train/")),
    "worker-lean": tuple(path for path in WORKER_SOURCES if path.startswith("train/lean/")),
    "worker-train": tuple(
        path for path in WORKER_SOURCES if path.startswith("train/") and not path.startswith("train/lean/")
    ),
}
"""The ConfigMaps that hold the files, by the end of their names."""


def assignment_of(sweep: Sweep, id: str, at: datetime | None = None) -> Assignment:
    """Return the assignment of one whole experiment, as its stint's first attempt, for rendering without the loop.

    `at` is the date for chat templates that write one: all jobs get the same.
    """
    experiment = sweep.experiment(id)
    whole = Member(id, 0, sweep.total_of(experiment))
    named = {device.name: device for device in sweep.devices}
    device: Device = named.get(experiment.device or "", sweep.devices[0])
    made = assigned(sweep, f"{Stint((whole,)).id}/1", device, [whole])
    return replace(made, encoding=ENCODING, submitted=at)


def check_reachable(sweep: Sweep, cluster: KubernetesCluster) -> None:
    """Raise `SpecError` if a pod could not find the model or the data."""
    read = (("model", sweep.model.id), ("dataset", sweep.dataset.id), ("validation", sweep.dataset.validation or ""))
    for what, id in read:
        if is_local(id):
            raise SpecError(f"the {what} {id} lies on this machine, where no pod can read it; name a Hugging Face id")
    if sweep.model.id == "tiny-qwen2" and cluster.worker == "configmap":
        raise SpecError("tiny-qwen2 comes with the worker's image only; set executor.kubernetes.worker: image")


def worker_sources() -> dict[str, str]:
    """Return the source files of this package that a worker needs, by path."""
    package = resources.files("gridsweep")
    return {path: package.joinpath(*path.split("/")).read_text(encoding="utf-8") for path in WORKER_SOURCES}


def sources(sweep: Sweep, cluster: KubernetesCluster, texts: dict[str, str]) -> tuple[Manifest, ...]:
    """Return the worker's sources as ConfigMaps, each small enough for `kubectl apply`, which keeps a copy of 256 KiB.

    Keys have `.` in place of `/`. Raise `SpecError` if one is over 1 MiB.
    """
    return tuple(
        config_map(
            cluster,
            object_name(sweep.name, name),
            labels(sweep.name, "worker"),
            {key_of(path): texts[path] for path in paths if path in texts},
        )
        for name, paths in SOURCE_PARTS.items()
    )


def config_map(cluster: KubernetesCluster, name: str, labels: dict[str, str], data: dict[str, str]) -> Manifest:
    """Return a ConfigMap. Raise `SpecError` if it is larger than the 1 MiB that Kubernetes stores."""
    size = sum(len(key) + len(text.encode()) for key, text in data.items())
    if size > CONFIGMAP_LIMIT:
        raise SpecError(
            f"the files for the ConfigMap {name} take {size / 1024:.0f} KiB; Kubernetes stores at most 1024"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(cluster.namespace, name, labels),
        "data": data,
    }


def sources_volume(sweep: str) -> Manifest:
    """Return the volume that joins the ConfigMaps of the worker's sources into one package."""
    joined = [
        {
            "configMap": {
                "name": object_name(sweep, name),
                "items": [{"key": key_of(path), "path": f"gridsweep/{path}"} for path in paths],
            }
        }
        for name, paths in SOURCE_PARTS.items()
    ]
    return {"name": "package", "projected": {"sources": joined}}


def key_of(path: str) -> str:
    return path.replace("/", ".")
