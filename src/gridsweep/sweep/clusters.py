"""Where workers run, according to the spec: this machine, a Ray cluster or a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args  # a part of a Kubernetes object

from gridsweep import __version__
from gridsweep.sweep.tiers import Percentile

Gate = Literal["none", "suspend", "compute-gardener", "kueue"]
GATES: tuple[Gate, ...] = get_args(Gate)

NUMBERS_ONLY = "compute-gardener"
"""The gate that takes limits in gCO2eq/kWh, and no percentiles."""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A Ray cluster, by the address of its Jobs API.

    `shared` is a folder that this machine and the cluster's nodes see under the same path; without it, inputs and
    checkpoints are copied with each attempt. `resource` is the node resource one stint uses: `GPU`, or a custom one.
    `token` names the location of the cluster's token (`env:NAME` or `file:PATH`).
    """

    address: str = "http://127.0.0.1:8265"
    shared: str | None = None
    resource: str = "GPU"
    token: str | None = None


@dataclass(frozen=True, slots=True)
class KubernetesCluster:
    """A Kubernetes cluster with the KubeRay operator, and the settings of its pods.

    `gate` names what holds attempts back: only the loop (`none`) or, for manifests applied by hand and for external
    schedulers, `suspend`, `compute-gardener` or `kueue` (with `queue`). `volume` is the claim that holds base models,
    attempts and adapters; its size is computed if `volume_size` is None. `worker` says how the worker's code gets into
    the pod: in the image, or from a ConfigMap on top of an image with its libraries. `secret` names the Secret whose
    keys are the variables that the spec refers to. `pod` patches pods, as a strategic merge patch. `ttl` is how long
    the pod of a finished attempt stays, with its GPU, and `ephemeral_storage` is requested only if it is given.
    """

    namespace: str = "gridsweep"
    image: str = f"ghcr.io/gridsweep/worker:{__version__}"
    gate: Gate = "none"
    queue: str | None = None
    context: str | None = None
    volume: str = "gridsweep-store"
    volume_size: str | None = None
    storage_class: str | None = None
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    runtime_class: str | None = "nvidia"
    node_selector: dict[str, str] = field(default_factory=lambda: {"nvidia.com/gpu.present": "true"})
    cpu: str = "4"
    memory: str = "24Gi"
    hugging_face_secret: str | None = None
    worker: Literal["image", "configmap"] = "image"
    run_deadline: timedelta = timedelta(hours=24)
    secret: str | None = None
    ttl: timedelta = timedelta(minutes=1)
    ephemeral_storage: str | None = None
    pod: dict[str, Any] = field(default_factory=dict)


def gate_faults(
    gate: Gate, queue: str | None, thresholds: Sequence[object]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what a gate lacks, whatever brought it: the place in the spec, and what to do. `thresholds` by tier."""
    if gate == "kueue" and queue is None:
        yield (
            ("executor", "kubernetes", "queue"),
            "missing; gate: kueue needs the name of a local queue: here, or by `--queue`",
        )
    for i, limit in enumerate(thresholds):
        if gate == NUMBERS_ONLY and isinstance(limit, Percentile):
            what = f"must be a number, not {limit}: gate {gate} does not support percentiles"
            yield ("tiers", i, "threshold"), f"{what}; write a limit in gCO2eq/kWh, or choose gate: none or suspend"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker on this machine may take of it, at most: memory and largest file in GB, files open at once.

    None is no limit of ours. Memory is what the process has asked of the system for its data, not a GPU's.
    """

    memory_gb: float | None = None
    file_gb: float | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutorChoice:
    """The executor that starts the workers, with the settings of its cluster, or the limits of its processes."""

    name: Literal["local", "ray", "kubernetes"] = "local"
    ray: RayCluster | None = None
    kubernetes: KubernetesCluster | None = None
    local: Limits = Limits()


LOCAL = ExecutorChoice()
