"""Checks for faults that pass the API server's schema, but that the operator refuses, hangs on or misreads silently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.names import RAYJOB_LIMIT, Manifest
from gridsweep.executors.kubernetes.manifests.rayjob import MAX_DELAY, THRESHOLD
from gridsweep.spec.pod import annotation_fault, label_fault, toleration_fault

SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_GO_DURATION = re.compile(r"(\d+(\.\d+)?(h|ms|m|s|us|ns))+")


def problems(manifests: Sequence[Manifest]) -> list[str]:
    """Return every fault that would be refused or would hang, each with its object."""
    found = []
    for manifest in manifests:
        where = f"{manifest['kind']}/{manifest['metadata']['name']}"
        found += [f"{where}: {problem}" for problem in _of_one(manifest)]
    twice = Counter((m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests)
    return found + [f"{kind}/{name}: is there {n} times" for (kind, _, name), n in twice.items() if n > 1]


def pod_templates(manifest: Manifest) -> Iterator[Manifest]:
    """Yield the pod templates of an object."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())):
            yield group["template"]
    elif "template" in spec:
        yield spec["template"]


def _of_one(manifest: Manifest) -> Iterator[str]:
    name = manifest["metadata"]["name"]
    if not _DNS_1123.fullmatch(name) or len(name) > 253:
        yield f"the name {name!r} is not a DNS name"
    yield from _labels(manifest["metadata"])
    if manifest["kind"] == "RayJob":
        yield from _rayjob(name, manifest["spec"])
    for template in pod_templates(manifest):
        yield from _labels(template.get("metadata", {}))
        yield from _gate(template.get("metadata", {}).get("annotations", {}))
        yield from _pod(template["spec"])


def _rayjob(name: str, spec: Mapping[str, Any]) -> Iterator[str]:
    if not _DNS_1035.fullmatch(name) or len(name) > RAYJOB_LIMIT:
        yield f"the name {name!r} is not a DNS-1035 label of at most {RAYJOB_LIMIT} characters"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} is {spec[field]}, and must be above 0"
    for field in ("backoffLimit", "ttlSecondsAfterFinished"):
        if spec.get(field, 0) < 0:
            yield f"{field} is {spec[field]}, and must not be negative"
    if spec.get("submissionMode", "HTTPMode") not in SUBMISSION_MODES:
        yield f"submissionMode {spec['submissionMode']!r} is not one of {', '.join(SUBMISSION_MODES)}"
    shutdown = spec.get("shutdownAfterJobFinishes", False)
    if spec.get("suspend") and not shutdown:
        yield "suspend needs shutdownAfterJobFinishes"
    if spec.get("suspend") and spec.get("clusterSelector"):
        yield "suspend and clusterSelector exclude each other"
    if shutdown and spec.get("deletionStrategy", {}).get("deletionRules"):
        yield "shutdownAfterJobFinishes and deletionRules exclude each other"
    if spec.get("ttlSecondsAfterFinished") and not shutdown:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if not spec.get("entrypoint") and spec.get("submissionMode") != "InteractiveMode":
        yield "there is no entrypoint"


def _labels(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key, value in metadata.get("labels", {}).items():
        if label_fault(key, value):
            yield f"the label {key}: {value!r} is not allowed"
    for key, value in metadata.get("annotations", {}).items():
        if annotation_fault(key, value):
            yield f"the annotation {key}: {value!r} is not allowed"


def _gate(annotations: Mapping[str, str]) -> Iterator[str]:
    delay, threshold = annotations.get(MAX_DELAY), annotations.get(THRESHOLD)
    if delay is not None and not _GO_DURATION.fullmatch(delay):
        yield f"{MAX_DELAY} {delay!r} is not a Go duration; Compute Gardener would take its default"
    if threshold is not None and not re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", threshold):
        yield f"{THRESHOLD} {threshold!r} is not a number; Compute Gardener would take its default"


def _pod(spec: Mapping[str, Any]) -> Iterator[str]:
    if not spec.get("containers"):
        yield "there are no containers"
    volumes = [volume["name"] for volume in spec.get("volumes", ())]
    containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    yield from _repeated("volume", volumes)
    yield from _repeated("container", [container["name"] for container in containers])
    for toleration in spec.get("tolerations", ()):
        if fault := toleration_fault(toleration):
            yield f"the toleration of {toleration.get('key')}: {fault}"
    for container in containers:
        if not container.get("image"):
            yield f"the container {container['name']} has no image"
        mounts = container.get("volumeMounts", ())
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"the container {container['name']} mounts {mount['name']!r}, which is no volume of the pod"
        yield from _repeated("mountPath", [mount["mountPath"] for mount in mounts])
        yield from _repeated("variable", [variable["name"] for variable in container.get("env", ())])
        yield from _repeated("port", [port["name"] for port in container.get("ports", ()) if "name" in port])


def _repeated(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"the {what} {name!r} is there {count} times"
