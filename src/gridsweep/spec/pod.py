"""The value of `executor.kubernetes.pod`: a patch of pods, checked against the fields that Kubernetes knows.

Fields and kinds are those of PodTemplateSpec in core/v1 (Kubernetes 1.36). What is deeper than the fields named here is
left to the API server, which `gridsweep doctor --kubernetes` asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # YAML values

from gridsweep.spec.values import Value, nearest, shown

CONTAINERS = ("ray-head", "controller", "reader")
"""The containers of gridsweep's pods, by name: a worker, the loop in the cluster, the reader of the volume."""

_TEXT, _FLAG, _WHOLE, _MAP, _TEXTS, _LIST = "text", "true or false", "a whole number", "a mapping", "texts", "a list"
METADATA = {"labels": _TEXTS, "annotations": _TEXTS}
POD = {
    "activeDeadlineSeconds": _WHOLE, "affinity": _MAP, "automountServiceAccountToken": _FLAG, "containers": _LIST,
    "dnsConfig": _MAP, "dnsPolicy": _TEXT, "hostAliases": _LIST, "hostUsers": _FLAG, "imagePullSecrets": _LIST,
    "initContainers": _LIST, "nodeName": _TEXT, "nodeSelector": _TEXTS, "overhead": _MAP, "preemptionPolicy": _TEXT,
    "priority": _WHOLE, "priorityClassName": _TEXT, "resourceClaims": _LIST, "resources": _MAP,
    "runtimeClassName": _TEXT, "schedulerName": _TEXT, "schedulingGates": _LIST, "securityContext": _MAP,
    "serviceAccountName": _TEXT, "shareProcessNamespace": _FLAG, "tolerations": _LIST,
    "topologySpreadConstraints": _LIST, "volumes": _LIST,
}  # fmt: skip
CONTAINER = {
    "name": _TEXT, "env": _LIST, "envFrom": _LIST, "imagePullPolicy": _TEXT, "livenessProbe": _MAP,
    "readinessProbe": _MAP, "resizePolicy": _LIST, "resources": _MAP, "securityContext": _MAP, "startupProbe": _MAP,
    "volumeDevices": _LIST, "volumeMounts": _LIST,
}  # fmt: skip
OURS = {
    "activeDeadlineSeconds": "executor.kubernetes.run_deadline", "args": "", "command": "", "hostIPC": "",
    "hostNetwork": "", "hostPID": "", "image": "executor.kubernetes.image", "lifecycle": "", "ports": "",
    "restartPolicy": "", "terminationGracePeriodSeconds": "",
}  # fmt: skip
"""Fields that the pods' work depends on, with the key that sets them, if there is one."""


class PodPatch(Value):
    """A mapping with `metadata` and `spec` of a pod, as in a strategic merge patch."""

    def read(self, value: object) -> dict[str, Any]:
        patch = _mapping(value, "it")
        _known(patch, "", {"metadata": _MAP, "spec": _MAP})
        _known(_mapping(patch.get("metadata") or {}, "metadata"), "metadata.", METADATA)
        spec = _mapping(patch.get("spec") or {}, "spec")
        _known(spec, "spec.", POD)
        for kind in ("containers", "initContainers"):
            for n, container in enumerate(spec.get(kind) or ()):
                where = f"spec.{kind}[{n}]"
                _known(_mapping(container, where), f"{where}.", CONTAINER if kind == "containers" else None)
                name = container.get("name")
                if kind == "containers" and name not in CONTAINERS:
                    raise ValueError(f"{where}.name must be one of {', '.join(CONTAINERS)}, not {shown(name)}")
        return patch

    def schema(self) -> dict[str, Any]:
        texts = {"type": "object", "additionalProperties": {"type": "string"}}
        metadata = {name: {**texts, "description": f"The {name} of pods."} for name in METADATA}
        shown = {"nodeSelector": {**texts, "description": "Labels of the nodes that may run workers."}}
        parts = (("metadata", "Labels and annotations of pods.", metadata), ("spec", "Fields of core/v1.", shown))
        properties = {name: {"type": "object", "description": what, "properties": inner} for name, what, inner in parts}
        return {"type": "object", "additionalProperties": False, "properties": properties}


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping, not {shown(value)}")
    return dict(value)


def _known(fields: Mapping[str, Any], where: str, kinds: Mapping[str, str] | None) -> None:
    """Raise `ValueError` for a field that a pod lacks, that gridsweep sets, or of another kind; None knows any."""
    for name, value in fields.items():
        if name in OURS and kinds is not None:
            instead = f"; set {OURS[name]} instead" if OURS[name] else "; gridsweep's pods depend on it"
            raise ValueError(f"{where}{name} cannot be changed{instead}")
        if kinds is None:
            continue
        if name not in kinds:
            raise ValueError(f"{where}{name} is unknown; {nearest(name, [key for key in kinds if key not in OURS])}")
        if value is not None and not _is(value, kinds[name]):  # null removes a field
            what = "a mapping of texts; quote numbers and true or false" if kinds[name] == _TEXTS else kinds[name]
            raise ValueError(f"{where}{name} must be {what}, not {shown(value)}")


def _is(value: object, kind: str) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "true or false":
            return isinstance(value, bool)
        case "a whole number":
            return isinstance(value, int) and not isinstance(value, bool)
        case "a list":
            return isinstance(value, list | tuple)
        case "a mapping":
            return isinstance(value, Mapping)
    return isinstance(value, Mapping) and all(isinstance(text, str | None) for text in value.values())
