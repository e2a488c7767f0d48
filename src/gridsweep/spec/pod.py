"""The value of `executor.kubernetes.pod`: a patch of pods, checked against the fields that Kubernetes knows.

Fields and kinds are those of PodTemplateSpec in core/v1 (Kubernetes 1.36). What is deeper than the fields named here is
left to the API server, which `gridsweep doctor --kubernetes` asks.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
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
PREFIXES = (
    "gridsweep.io/",
    "ray.io/",
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed",
)
VARIABLES = ("HOME", "USER", "HF_HOME", "HF_TOKEN", "PYTHONPATH", "RAY_JOB_STOP_WAIT_TIME_S")
PATHS = ("/", "/store", "/tmp", "/dev/shm", "/opt/gridsweep", "/config", "/state")
VOLUMES, SCRATCH = ("store", "package", "config", "state"), ("tmp", "shm")
OWN = {
    "ray-head": ("store", "tmp", "shm"),
    "controller": ("config", "state", "store", "tmp"),
    "reader": ("store", "tmp"),
}
"""The volumes of each container's pod that may be mounted once more; those of the patch are a worker's."""
SOURCES = ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef")
BULK_SOURCES = ("configMapRef", "secretRef")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
AMOUNTS = {
    "cpu": "set executor.kubernetes.cpu",
    "memory": "set executor.kubernetes.memory",
    "nvidia.com/gpu": "a worker trains on one GPU",
}
"""What a worker's container requests, with the key that sets it."""
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
DNS_LABEL = re.compile(r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?", re.ASCII)
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class PodPatch(Value):
    """A mapping with `metadata` and `spec` of a pod, as in a strategic merge patch."""

    def read(self, value: object) -> dict[str, Any]:
        patch = _mapping(value, "it")
        _no_directives(patch, "")
        _known(patch, "", {"metadata": _MAP, "spec": _MAP})
        _metadata(_mapping(patch.get("metadata") or {}, "metadata"))
        spec = _mapping(patch.get("spec") or {}, "spec")
        _known(spec, "spec.", POD)
        for name, elements in spec.items():
            if POD[name] == _LIST:
                _elements(elements, f"spec.{name}")
        _placing(spec)
        _containers(spec)
        return patch

    def schema(self) -> dict[str, Any]:
        texts = {"type": "object", "additionalProperties": {"type": "string"}}
        metadata = {name: {**texts, "description": f"The {name} of pods."} for name in METADATA}
        shown = {"nodeSelector": {**texts, "description": "Labels of the nodes that may run workers."}}
        parts = (("metadata", "Labels and annotations of pods.", metadata), ("spec", "Fields of core/v1.", shown))
        properties = {name: {"type": "object", "description": what, "properties": inner} for name, what, inner in parts}
        return {"type": "object", "additionalProperties": False, "properties": properties}


def _metadata(metadata: Mapping[str, Any]) -> None:
    _known(metadata, "metadata.", METADATA)
    for kind in METADATA:
        for key, text in (metadata.get(kind) or {}).items():
            if key.startswith(PREFIXES):
                raise ValueError(f"metadata.{kind}.{key} cannot be changed; gridsweep or KubeRay selects by it")
            if fault := (label_fault if kind == "labels" else annotation_fault)(key, text or ""):
                raise ValueError(f"metadata.{kind}.{key}: {fault}")


def _placing(spec: Mapping[str, Any]) -> None:
    for key, text in (spec.get("nodeSelector") or {}).items():
        if fault := label_fault(key, text or ""):
            raise ValueError(f"spec.nodeSelector.{key}: {fault}")
    for n, toleration in enumerate(spec.get("tolerations") or ()):
        if fault := toleration_fault(toleration):
            raise ValueError(f"spec.tolerations[{n}]: {fault}")
    for n, volume in enumerate(spec.get("volumes") or ()):
        _volume(volume, f"spec.volumes[{n}]")


def _containers(spec: Mapping[str, Any]) -> None:
    added = [volume["name"] for volume in spec.get("volumes") or ()]
    for n, container in enumerate(spec.get("containers") or ()):
        _container(container, f"spec.containers[{n}]", added)
    for n, container in enumerate(spec.get("initContainers") or ()):
        name, image = container.get("name"), container.get("image")
        if not isinstance(name, str) or not DNS_LABEL.fullmatch(name) or name in CONTAINERS:
            raise ValueError(f"spec.initContainers[{n}] needs a name of its own and an image")
        if not isinstance(image, str) or not image.strip():
            raise ValueError(f"spec.initContainers[{n}] needs a name of its own and an image")
        _variables(container, f"spec.initContainers[{n}]")
        _mounts(container, f"spec.initContainers[{n}]", (*OWN["ray-head"], *added), taken=())
        _amounts(container, f"spec.initContainers[{n}]", {})


def label_fault(key: str, text: object) -> str:
    """Return why Kubernetes would refuse a label; "" if it would not."""
    if not isinstance(text, str) or not LABEL.fullmatch(text):
        return f"{shown(text)} is no value of a label: at most 63 letters, digits and . _ - within"
    return annotation_fault(key, text)


def annotation_fault(key: str, text: object) -> str:
    """Return why Kubernetes would refuse an annotation; "" if it would not."""
    if not KEY.fullmatch(key):
        return "no key that Kubernetes takes: PREFIX/NAME or NAME, of letters, digits and . _ - within"
    return "" if isinstance(text, str) else "no text; quote numbers"


def toleration_fault(toleration: Mapping[str, Any]) -> str:
    """Return why Kubernetes would refuse a toleration; "" if it would not."""
    operator, effect = toleration.get("operator") or "Equal", toleration.get("effect")
    if unknown := [key for key in toleration if key not in TOLERATION]:
        return f"{unknown[0]} is unknown; {nearest(unknown[0], TOLERATION)}"
    if operator not in ("Equal", "Exists", "Lt", "Gt"):
        return f"the operator {shown(operator)} is unknown; use Equal or Exists"
    if effect and effect not in EFFECTS:
        return f"the effect {shown(effect)} is unknown; use {', '.join(EFFECTS)}"
    if operator == "Exists" and toleration.get("value"):
        return "with the operator Exists there is no value"
    if not toleration.get("key") and operator != "Exists":
        return "without a key, the operator must be Exists"
    return ""


def _container(container: Mapping[str, Any], where: str, added: Sequence[str]) -> None:
    """Raise `ValueError` for a patch of a container that would take away what its work depends on."""
    _known(container, f"{where}.", CONTAINER)
    name = container.get("name")
    if name not in CONTAINERS:
        raise ValueError(f"{where}.name must be one of {', '.join(CONTAINERS)}, not {shown(name)}")
    _variables(container, where)
    _mounts(container, where, (*OWN[name], *(added if name == CONTAINERS[0] else ())))
    for n, variable in enumerate(container.get("env") or ()):
        key = variable["name"]
        if key.startswith("GRIDSWEEP_") or key in VARIABLES:
            raise ValueError(f"{where}.env[{n}]: {key} cannot be changed; gridsweep's pods depend on it")
    _amounts(container, where, AMOUNTS if name == CONTAINERS[0] else {})


def _amounts(container: Mapping[str, Any], where: str, fixed: Mapping[str, str]) -> None:
    """Raise `ValueError` for a limit or request that is no quantity, or that is fixed; null removes one."""
    amounts = _mapping(container.get("resources") or {}, f"{where}.resources")
    for kind in ("limits", "requests"):
        for key, amount in _mapping(amounts.get(kind) or {}, f"{where}.resources.{kind}").items():
            if key in fixed:
                raise ValueError(f"{where}.resources.{kind}.{key} cannot be changed; {fixed[key]}")
            if amount is not None and (isinstance(amount, bool) or not QUANTITY.fullmatch(str(amount))):
                raise ValueError(f"{where}.resources.{kind}.{key} must be a quantity such as 4, 500m or 24Gi")


def _variables(container: Mapping[str, Any], where: str) -> None:
    """Raise `ValueError` for a container's variable without a name, or without exactly one source."""
    for kind in ("env", "envFrom"):
        _elements(container.get(kind), f"{where}.{kind}")
    for n, variable in enumerate(container.get("env") or ()):
        key, value, place = variable.get("name"), variable.get("value"), f"{where}.env[{n}]"
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
            raise ValueError(f"{place}.name must be a variable's name, not {shown(key)}")
        if ("value" in variable) == ("valueFrom" in variable) or not isinstance(value, str | None):
            raise ValueError(f"{place}: {key} needs a value, as text, or valueFrom; quote numbers")
        if "valueFrom" in variable:
            _one_source(_mapping(variable["valueFrom"], f"{place}.valueFrom"), SOURCES, f"{place}.valueFrom")
    for n, bulk in enumerate(container.get("envFrom") or ()):
        sources = {key: value for key, value in bulk.items() if key != "prefix"}
        _one_source(sources, BULK_SOURCES, f"{where}.envFrom[{n}]")


def _one_source(found: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if len(found) != 1 or next(iter(found)) not in known or not isinstance(next(iter(found.values())), Mapping):
        raise ValueError(f"{where} needs exactly one of {', '.join(known)}, a mapping")


def _mounts(container: Mapping[str, Any], where: str, volumes: Sequence[str], taken: Sequence[str] = PATHS) -> None:
    """Raise `ValueError` for a mount of no volume, or over a path that is taken."""
    for kind in ("volumeMounts", "volumeDevices"):
        _elements(container.get(kind), f"{where}.{kind}")
    for n, mounted in enumerate(container.get("volumeMounts") or ()):
        path, name = str(mounted.get("mountPath") or ""), mounted.get("name")
        unclear = not path.startswith("/") or ":" in path or ".." in path.split("/")
        if unclear or posixpath.normpath("/" + path.lstrip("/")) in taken:
            raise ValueError(f"{where}.volumeMounts[{n}] needs a volume's name and a path that gridsweep does not use")
        if name not in volumes:
            raise ValueError(f"{where}.volumeMounts[{n}]: {shown(name)} is no volume of its pod: {', '.join(volumes)}")
    for n, device in enumerate(container.get("volumeDevices") or ()):
        if device.get("name") not in volumes or not str(device.get("devicePath") or "").startswith("/"):
            raise ValueError(f"{where}.volumeDevices[{n}] needs a volume of its pod and a path")


def _volume(volume: Mapping[str, Any], where: str) -> None:
    name, sources = volume.get("name"), [key for key, value in volume.items() if key != "name" and value is not None]
    if not isinstance(name, str) or not DNS_LABEL.fullmatch(name) or len(sources) != 1 or len(volume) != 2:
        raise ValueError(f"{where} needs a name and one source")
    if name in VOLUMES or (name in SCRATCH and sources != ["emptyDir"]):
        raise ValueError(f"{where}: {name} cannot be changed; gridsweep's pods depend on it")


def _elements(value: object, where: str) -> None:
    """Raise `ValueError` if a list is none, or one of its elements is no mapping."""
    if value is not None and (not isinstance(value, list | tuple) or not all(isinstance(e, Mapping) for e in value)):
        raise ValueError(f"{where} must be a list of mappings")


def _no_directives(value: object, where: str) -> None:
    """Raise `ValueError` for a directive such as `$patch`: what is merged how is fixed."""
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if isinstance(key, str) and key.startswith("$"):
            raise ValueError(f"{where}{key} is no field; directives of patches are not supported, null removes a field")
        _no_directives(child, f"{where}{key}." if isinstance(value, Mapping) else f"{where.rstrip('.')}[{key}].")


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
        if value is None and kinds[name] == _LIST:
            raise ValueError(f"{where}{name} must be a list, not nothing")
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
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
        case "a list":
            return isinstance(value, list | tuple)
        case "a mapping":
            return isinstance(value, Mapping)
    return isinstance(value, Mapping) and all(isinstance(text, str | None) for text in value.values())
