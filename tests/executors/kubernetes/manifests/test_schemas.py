"""Every manifest against the schemas of those who will read it, unknown fields refused."""

import json
import os
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.yaml_text import documents

KUBERNETES = "1.37"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is built


def closed(schema):
    """The schema with no room for unknown fields: an API server would drop them without a word."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for part in schema.values():
            closed(part)
    elif isinstance(schema, list):
        for part in schema:
            closed(part)
    return schema


@pytest.fixture(scope="module")
def rayjob_schema():
    folder = os.environ.get("GRIDSWEEP_CRDS")
    if not folder:
        pytest.skip("GRIDSWEEP_CRDS names no folder with rayjob-v1.openapi-schema.json, the schema of KubeRay's RayJob")
    schema = closed(json.loads((Path(folder) / "rayjob-v1.openapi-schema.json").read_text()))
    return jsonschema.Draft7Validator(schema)


def test_rayjobs_are_what_kuberay_declares(rayjob_schema, rendered):
    jobs = [m for manifests in rendered.values() for m in manifests if m["kind"] == "RayJob"]
    assert len(jobs) == 7 * 21
    for job in jobs[::3]:
        assert [error.message for error in rayjob_schema.iter_errors(job)] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job["spec"].update(enableInTreeAutoscaling=True),  # as the published README prints it
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(gpu=1),
        lambda job: job["spec"].update(activeDeadlineSeconds="1h"),
        lambda job: job["spec"]["rayClusterSpec"].pop("headGroupSpec"),
    ],
)
def test_the_schema_finds_what_is_wrong(rayjob_schema, rendered, spoil):
    job = deepcopy(next(m for m in rendered["bare"] if m["kind"] == "RayJob"))
    spoil(job)
    assert list(rayjob_schema.iter_errors(job))


def test_all_other_objects_are_what_kubernetes_declares(rendered):
    kinds = set()
    for manifests in rendered.values():
        for manifest in manifests:
            if manifest["kind"] != "RayJob":
                kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
                kinds.add(manifest["kind"])
    assert kinds >= {"Namespace", "ConfigMap", "Deployment", "Role", "RoleBinding", "ServiceAccount", "NetworkPolicy"}
    assert kinds >= {"PersistentVolumeClaim", "Service", "PodDisruptionBudget"}


def test_a_rayjobs_pod_is_what_kubernetes_declares(rendered):
    for manifests in rendered.values():
        for job in [m for m in manifests if m["kind"] == "RayJob"][::5]:
            template = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head", **template["metadata"]}}
            kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)


def test_the_text_reads_back_as_the_values(rendered):
    for manifests in rendered.values():
        assert list(yaml.load_all(documents(manifests), Loader=LOADER)) == manifests


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; it reads YAML in its own way")
def test_kubectl_reads_the_same(published, tmp_path):
    made = bundle(published, cluster_of(published, "compute-gardener"))
    for name, text in made.texts().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    read = {}
    for folder in (tmp_path, tmp_path / "base"):
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True, timeout=60)
        read |= {m["metadata"]["name"]: m for m in yaml.load_all(done.stdout, Loader=LOADER)}
    assert read == {m["metadata"]["name"]: m for m in made.manifests}
