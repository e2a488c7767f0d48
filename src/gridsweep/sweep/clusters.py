"""Where workers run, according to the spec: this machine, a Ray cluster or a Kubernetes cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, get_args

from gridsweep import __version__

Gate = Literal["none", "suspend", "compute-gardener", "kueue"]
GATES: tuple[Gate, ...] = get_args(Gate)


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
    the pod: in the image, or from a ConfigMap on top of an image with its libraries.
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
