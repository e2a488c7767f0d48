"""The volume: how large it must be, and its claim."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gridsweep.executors.kubernetes.manifests.names import PREFIX, Manifest, labels, metadata
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.sweep import Sweep

FALLBACK_PARAMETERS = 8e9
NOMINAL = 1.25
"""Real parameters to those in a name, at most: 7.6 for Qwen2.5-7B, 8.5 for Gemma-7B."""
LORA_PER_RANK = 3.4e6
"""Weights an adapter on all seven projections has for each unit of its rank, of a base called 7B.

Qwen2.5-7B has 2.52 million (28 layers x 90,112); the larger number leaves room for shapes deeper than their size says.
Other sizes scale by the power 2/3: a base grows with layers x width^2, an adapter with layers x width.
"""
ADAPTER_BYTES = 4  # PEFT keeps the adapter of a bf16 base in fp32
CHECKPOINT_BYTES = 12  # and AdamW two moments beside it
KEPT_CHECKPOINTS = 2
OTHER_BYTES = 2e9  # the data set's cache, logs, energy, progress
HEADROOM = 1.2
GIB = 1 << 30
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
_BUNDLED = {"tiny-qwen2": 2e6}


@dataclass(frozen=True, slots=True)
class VolumeSize:
    """What fills the volume, in bytes, and why that much."""

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
    """The weights of a base model by its name, and whether the name tells: the largest `7B` or `135M` in it."""
    if model in _BUNDLED:
        return _BUNDLED[model], True
    found = [float(n) * (1e9 if unit in "bB" else 1e6) for n, unit in _SIZE.findall(model.rpartition("/")[2])]
    return (max(found) * NOMINAL, True) if found else (FALLBACK_PARAMETERS * NOMINAL, False)


def base_bytes(model: str) -> float:
    """What a base model takes in bf16."""
    return parameters(model)[0] * 2


def lora_parameters(model: str, r: int) -> float:
    """The weights of an adapter of rank `r`."""
    scale: float = (parameters(model)[0] / NOMINAL / 7e9) ** (2 / 3)
    return LORA_PER_RANK * r * scale


def _joining(sweep: Sweep) -> int:
    """How many experiments may join on the way."""
    repeats = sweep.repeats.finalists * (sweep.repeats.seeds - 1) if sweep.repeats else 0
    return repeats + (sweep.propose.most if sweep.propose else 0)


def volume_size(sweep: Sweep, *, loop: bool) -> VolumeSize:
    """How much the volume must hold. `loop` says that gridsweep's loop drives, and removes what is done with.

    Without it every experiment keeps its last checkpoints; with it only those that run do, and adapters are there
    twice, in the attempt and published.
    """
    model = sweep.model.id
    each = sorted((lora_parameters(model, e.params.r) for e in sweep.experiments), reverse=True)
    if loop:  # the largest may join
        each = each[:1] * _joining(sweep) + each
    working = len(sweep.devices) * (sweep.pack if loop else 1)
    writing = sum(each[:working])  # the draft of a checkpoint, beside those that are kept
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
    """The claim that holds base models, attempts and adapters; it outlives the sweep, and sweeps may share it."""
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
