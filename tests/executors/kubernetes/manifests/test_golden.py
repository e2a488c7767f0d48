"""The published sweep's manifests, as they are read in a review.

After a change that is meant, write them anew and look at the diff:
    GRIDSWEEP_GOLDEN=write python -m pytest tests/executors/kubernetes/manifests/test_golden.py
"""

import os
from pathlib import Path

import pytest

from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.rayjob import MAX_DELAY, THRESHOLD
from gridsweep.executors.kubernetes.manifests.yaml_text import documents

GOLDEN = Path(__file__).parent / "golden"
SHOWN = {  # one job of each tier in full
    "tier1": "r16-a32-lr1e-4-d0p1",
    "tier2": "r32-a64-lr1e-4-d0p05",
    "tier3": "r32-a128-lr1e-4-d0p05",
}


def table(manifests) -> str:
    """A line a RayJob: what differs between them."""
    lines = []
    for job in (m for m in manifests if m["kind"] == "RayJob"):
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
        notes = head["metadata"]["annotations"]
        lines.append(
            f"{job['metadata']['name']:36} {job['metadata']['labels']['gridsweep.io/tier']} "
            f"threshold {notes[THRESHOLD]} delay {notes[MAX_DELAY]} deadline {job['spec']['activeDeadlineSeconds']} "
            f"({notes['gridsweep.io/tier-reason']})"
        )
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def texts(published, served) -> dict[str, str]:
    made = bundle(published, cluster_of(published, "compute-gardener"))
    files = made.texts()
    found = {
        name: files[name]
        for name in ("kustomization.yaml", "base/kustomization.yaml", "base/volume.yaml", "network.yaml")
    }
    for tier, stem in SHOWN.items():
        (name,) = (name for name in files if name.startswith(f"jobs/{stem}-") and tier in files[name])
        found[f"rayjob-{tier}.yaml"] = files[name]
    found["rayjobs.txt"] = table(made.manifests)
    found["serving.yaml"] = documents(served)
    loop = bundle(published, cluster_of(published, "none"), spec="name: published\n")
    found["controller.yaml"] = loop.texts()["controller.yaml"]
    found["controller-kustomization.yaml"] = loop.texts()["kustomization.yaml"]
    return {name.replace("/", "-"): text for name, text in found.items()}


def test_the_published_sweep_renders_as_it_did(texts):
    if os.environ.get("GRIDSWEEP_GOLDEN") == "write":
        for path in GOLDEN.glob("*"):
            path.unlink()
        for name, text in texts.items():
            (GOLDEN / name).write_text(text)
    assert sorted(texts) == sorted(path.name for path in GOLDEN.iterdir())
    for name, text in texts.items():
        assert text == (GOLDEN / name).read_text(), name
