"""The volume: its required size, and its claim."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gridsweep.executors.kubernetes.manifests.names import PREFIX, Manifest, labels, metadata
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.sweep import Sweep

FALLBACK_PARAMETERS = 8e9
NOMINAL = 1.25
"""Upper bound on the ratio of actual to nominal parameters: 7.6 for Qwen2.5-7B, 8.5 for Gemma-7B."""
LORA_PER_RANK = 3.4e6
"""Weights per unit of rank of an adapter on all seven projections, for a 7B base.

Qwen2.5-7B has 2.52 million (28 layers x 90,112); the larger number leaves room for models deeper than typical.
Other sizes scale by the power 2/3: a base grows with layers x width^2, an adapter with layers x width.
"""
ADAPTER_BYTES = 4  # PEFT stores the adapter of a bf16 base in fp32
CHECKPOINT_BYTES = 12  # the adapter and AdamW's two moments, in fp32
KEPT_CHECKPOINTS = 2
OTHER_BYTES = 2e9  # the dataset's cache, logs, energy, progress
HEADROOM = 1.2
GIB = 1 << 30
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
_BUNDLED = {"tiny-qwen2": 2e6}


@dataclass(frozen=True, slots=True)
class VolumeSize:
    """The contents of the volume, in bytes, and an explanation of the size."""

    base: float
    adapters: float
    checkpoints: float
    why: str

    @property
    def bytes(self) -> float:
        return (self.base + self.adapters + self.checkpoints + OTHER_BYTES) * HEADROOM

    @property
    def quantity(self) -> str:
        return f"{math.ceil(self.bytes / GIB)}Gi"


def parameters(model: str) -> tuple[float, bool]:
    """Return the weights of a base model by its name (the largest `7B` or `135M`), and whether the name has one."""
    if model in _BUNDLED:
        return _BUNDLED[model], True
    found = [float(n) * (1e9 if unit in "bB" else 1e6) for n, unit in _SIZE.findall(model.rpartition("/")[2])]
    return (max(found) * NOMINAL, True) if found else (FALLBACK_PARAMETERS * NOMINAL, False)


def base_bytes(model: str) -> float:
    """Return the bytes of a base model in bf16."""
    return parameters(model)[0] * 2


def lora_parameters(model: str, r: int) -> float:
    """Return the weights of an adapter of rank `r`."""
    scale: float = (parameters(model)[0] / NOMINAL / 7e9) ** (2 / 3)
    return LORA_PER_RANK * r * scale


def _joining(sweep: Sweep) -> int:
    """Return how many experiments may be added during the sweep."""
    repeats = sweep.repeats.finalists * (sweep.repeats.seeds - 1) if sweep.repeats else 0
    return repeats + (sweep.propose.most if sweep.propose else 0)


def volume_size(sweep: Sweep, *, loop: bool) -> VolumeSize:
    """Return the size of the volume. `loop`: gridsweep's loop runs the sweep, and removes what is no longer needed.

    Without the loop every experiment keeps its last checkpoints. With it only running experiments do, and adapters are
    stored twice: in the attempt, and published.
    """
    model = sweep.model.id
    each = sorted((lora_parameters(model, e.params.r) for e in sweep.experiments), reverse=True)
    if loop:  # added experiments may all have the largest rank
        each = each[:1] * _joining(sweep) + each
    working = len(sweep.devices) * (sweep.pack if loop else 1)
    writing = sum(each[:working])  # the draft of a checkpoint, in addition to the kept ones
    kept = KEPT_CHECKPOINTS * sum(each[:working] if loop else each)
    size = (
        base_bytes(model),
        sum(each) * ADAPTER_BYTES * (2 if loop else 1),
        (kept + writing) * CHECKPOINT_BYTES,
    )
    known = parameters(model)[1]
    why = (
        f"base {size[0] / GIB:.1f} GiB ({'by its name' if known else 'unknown, taken as 8B'}, bf16), "
        f"{len(each)} adapters {size[1] / GIB:.1f} GiB, checkpoints {size[2] / GIB:.1f} GiB "
        f"({KEPT_CHECKPOINTS} kept {'on each device' if loop else 'of each experiment'}), "
        f"others {OTHER_BYTES / GIB:.1f} GiB, and 20 % more"
    )
    return VolumeSize(*size, why)


def volume_claim(sweep: Sweep, cluster: KubernetesCluster, *, loop: bool) -> Manifest:
    """Return the volume claim for base models, attempts and adapters; it outlives the sweep and may be shared."""
    size = volume_size(sweep, loop=loop)
    made = claim_of(cluster, cluster.volume, cluster.volume_size or size.quantity, cluster.access_mode, sweep)
    if cluster.volume_size is None:
        made["metadata"]["annotations"] = {f"{PREFIX}size": size.why}
    return made


def claim_of(cluster: KubernetesCluster, name: str, size: str, access_mode: str, sweep: Sweep) -> Manifest:
    spec: Manifest = {"accessModes": [access_mode], "resources": {"requests": {"storage": size}}}
    if cluster.storage_class:
        spec["storageClassName"] = cluster.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(cluster.namespace, name, labels(sweep.name, "store")),
        "spec": spec,
    }
