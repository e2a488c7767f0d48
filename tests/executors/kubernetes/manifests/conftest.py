"""What the tests of manifests share: the published sweep, and everything that can be made of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import PROJECT
from gridsweep import Sweep, load
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.delivery import worker_sources
from gridsweep.executors.kubernetes.manifests.names import Manifest
from gridsweep.executors.kubernetes.manifests.serving import serving

EXAMPLE = PROJECT / "examples" / "published.yaml"


@pytest.fixture(scope="session")
def published() -> Sweep:
    return load(EXAMPLE)


@pytest.fixture(scope="session")
def served(published: Sweep) -> list[Manifest]:
    """The server of two of its adapters."""
    best = [e for e in published.experiments if e.params.r == 32][:2]
    adapters = {f"best{i}": f"/store/published/experiments/{e.id}/adapter" for i, e in enumerate(best)}
    cluster = replace(cluster_of(published, "compute-gardener"), hugging_face_secret="hugging-face")
    return serving(published.model.id, None, adapters, [32, 32], cluster)


@pytest.fixture(scope="session")
def rendered(published: Sweep, served: list[Manifest]) -> dict[str, list[Manifest]]:
    """Every kind of rendering, by what it is."""
    cluster = replace(cluster_of(published, "compute-gardener"), hugging_face_secret="hugging-face", queue="gpus")
    made = {"serving": served}
    for gate in ("suspend", "compute-gardener", "kueue"):
        for worker in ("image", "configmap"):
            here = replace(cluster, gate=gate, worker=worker)
            made[f"{gate} {worker}"] = bundle(published, here, worker_sources=worker_sources()).manifests
    loop = replace(cluster, gate="none", storage_class="fast")
    made["none"] = bundle(published, loop, spec=EXAMPLE.read_text(), namespace=True).manifests
    bare = replace(cluster, gate="suspend", runtime_class=None, node_selector={}, volume_size="1Ti")
    made["bare"] = bundle(published, bare).manifests
    return made
