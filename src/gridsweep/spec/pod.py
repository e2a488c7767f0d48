"""The value of `executor.kubernetes.pod`: a patch of pods, checked against the fields that Kubernetes knows.

Fields and kinds are those of `pod_fields`. What is deeper than these is left to the API server, which
`gridsweep doctor --kubernetes` asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any  # YAML values

from gridsweep.spec.pod_containers import amounts, init_container, known, mapping, patched_container, secure
from gridsweep.spec.pod_fields import KEY, MAP, POD, TEXTS, check_keys
from gridsweep.spec.values import Value, nearest, shown
from gridsweep.sweep.experiments import number

METADATA = {"labels": TEXTS, "annotations": TEXTS}
ANNOTATIONS = 256 * 1024
"""The most bytes of an object's annotations, with their keys."""
PREFIXES = (
    "gridsweep.io/",
    "ray.io/",
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed",
)
VOLUMES, SCRATCH = ("store", "package", "config", "state"), ("tmp", "shm")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
NO_KEY = "no key that Kubernetes takes: PREFIX/NAME or NAME, of letters, digits and . _ - within"
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


class PodPatch(Value):
    """A mapping with `metadata` and `spec` of a pod, as in a strategic merge patch."""

    def read(self, value: object) -> dict[str, Any]:
        patch = mapping(value, "it")
        _no_directives(patch, "")
        known(patch, "", {"metadata": MAP, "spec": MAP})
        _metadata(mapping(patch.get("metadata") or {}, "metadata"))
        spec = mapping(patch.get("spec") or {}, "spec")
        known(spec, "spec.", POD)
        _placing(spec)
        _networks(spec)
        _containers(spec)
        amounts(spec, "spec", {})
        secure(spec.get("securityContext"), "spec.securityContext")
        texts: dict[str, Any] = _amounts_as_texts(patch)
        return texts

    def schema(self) -> dict[str, Any]:
        texts = {"type": "object", "additionalProperties": {"type": "string"}}
        metadata = {name: {**texts, "description": f"The {name} of pods."} for name in METADATA}
        shown = {"nodeSelector": {**texts, "description": "Labels of the nodes that may run workers."}}
        parts = (("metadata", "Labels and annotations of pods.", metadata), ("spec", "Fields of core/v1.", shown))
        properties = {name: {"type": "object", "description": what, "properties": inner} for name, what, inner in parts}
        return {"type": "object", "additionalProperties": False, "properties": properties}


def _metadata(metadata: Mapping[str, Any]) -> None:
    known(metadata, "metadata.", METADATA)
    for kind in METADATA:
        for key, text in (metadata.get(kind) or {}).items():
            if key.startswith(PREFIXES):
                raise ValueError(f"metadata.{kind}.{key} cannot be changed; gridsweep or KubeRay selects by it")
            if fault := (label_fault if kind == "labels" else annotation_fault)(key, text or ""):
                raise ValueError(f"metadata.{kind}.{key}: {fault}")
    told = (metadata.get("annotations") or {}).items()
    if (size := sum(len(key.encode()) + len((text or "").encode()) for key, text in told)) > ANNOTATIONS:
        raise ValueError(f"metadata.annotations have {size:,} bytes; at most {ANNOTATIONS:,} are taken")


def _placing(spec: Mapping[str, Any]) -> None:
    for key, text in (spec.get("nodeSelector") or {}).items():
        if fault := label_fault(key, text or ""):
            raise ValueError(f"spec.nodeSelector.{key}: {fault}")
    for n, toleration in enumerate(spec.get("tolerations") or ()):
        if fault := toleration_fault(toleration):
            raise ValueError(f"spec.tolerations[{n}]: {fault}")
    for n, volume in enumerate(spec.get("volumes") or ()):
        _volume(volume, f"spec.volumes[{n}]")


def _networks(spec: Mapping[str, Any]) -> None:
    for n, alias in enumerate(spec.get("hostAliases") or ()):
        try:
            ip_address(alias["ip"])
        except ValueError:
            raise ValueError(f"spec.hostAliases[{n}].ip must be an address, not {shown(alias['ip'])}") from None
    config = spec.get("dnsConfig") or {}
    servers = config.get("nameservers") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        raise ValueError("spec.dnsPolicy: None needs spec.dnsConfig.nameservers")
    if len(servers) > 3:
        raise ValueError(f"spec.dnsConfig.nameservers are {len(servers)}; at most 3 are taken")


def _containers(spec: Mapping[str, Any]) -> None:
    added = [volume["name"] for volume in spec.get("volumes") or ()]
    for n, container in enumerate(spec.get("containers") or ()):
        patched_container(container, f"spec.containers[{n}]", added)
    for n, container in enumerate(spec.get("initContainers") or ()):
        init_container(container, f"spec.initContainers[{n}]", added)
    for kind in ("containers", "initContainers"):
        check_keys(kind, spec.get(kind), f"spec.{kind}")


def _volume(volume: Mapping[str, Any], where: str) -> None:
    name, sources = volume["name"], [key for key, value in volume.items() if key != "name" and value is not None]
    if name in VOLUMES or (name in SCRATCH and sources != ["emptyDir"]):
        raise ValueError(f"{where}: {name} cannot be changed; gridsweep's pods depend on it")


def label_fault(key: str, text: object) -> str:
    """Return why Kubernetes would refuse a label; "" if it would not."""
    if not isinstance(text, str) or not LABEL_VALUE.fullmatch(text):
        return f"{shown(text)} is no value of a label: at most 63 letters, digits and . _ - within"
    return "" if KEY.fullmatch(key) else NO_KEY


def annotation_fault(key: str, text: object) -> str:
    """Return why Kubernetes would refuse an annotation; "" if it would not."""
    if not KEY.fullmatch(key.lower()):
        return NO_KEY
    return "" if isinstance(text, str) else "no text; quote numbers"


def toleration_fault(toleration: Mapping[str, Any]) -> str:
    """Return why Kubernetes would refuse a toleration; "" if it would not."""
    operator, effect = toleration.get("operator") or "Equal", toleration.get("effect")
    key, value, seconds = (toleration.get(name) for name in ("key", "value", "tolerationSeconds"))
    if unknown := [name for name in toleration if name not in TOLERATION]:
        return f"{unknown[0]} is unknown; {nearest(str(unknown[0]), TOLERATION)}"
    if operator not in ("Equal", "Exists", "Lt", "Gt"):
        return f"the operator {shown(operator)} is unknown; use Equal or Exists"
    if effect and effect not in EFFECTS:
        return f"the effect {shown(effect)} is unknown; use {', '.join(EFFECTS)}"
    if operator == "Exists" and value:
        return "with the operator Exists there is no value"
    if not key and operator != "Exists":
        return "without a key, the operator must be Exists"
    if key and not (isinstance(key, str) and KEY.fullmatch(key)):
        return f"the key {shown(key)} is {NO_KEY}"
    if value is not None and not (isinstance(value, str) and LABEL_VALUE.fullmatch(value)):
        return f"{shown(value)} is no value of a taint: at most 63 letters, digits and . _ - within; quote numbers"
    if operator in ("Lt", "Gt") and not re.fullmatch(r"-?(0|[1-9]\d*)", str(value), re.ASCII):
        return f"with the operator {operator} the value is a whole number, as text"
    if seconds is not None and (not isinstance(seconds, int) or isinstance(seconds, bool)):
        return "tolerationSeconds must be a whole number"
    return "tolerationSeconds needs the effect NoExecute" if seconds is not None and effect != "NoExecute" else ""


def _no_directives(value: object, where: str) -> None:
    """Raise `ValueError` for a directive such as `$patch`: what is merged how is fixed."""
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if isinstance(key, str) and key.startswith("$"):
            raise ValueError(f"{where}{key} is no field; directives of patches are not supported, null removes a field")
        _no_directives(child, f"{where}{key}." if isinstance(value, Mapping) else f"{where.rstrip('.')}[{key}].")


def _amounts_as_texts(value: Any, within: str = "") -> Any:
    """Return a patch in which the amounts of resources are texts, however they were written."""
    if isinstance(value, Mapping):
        return {
            key: _amounts_as_texts(child, within if within == "amounts" else _part(key)) for key, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [_amounts_as_texts(child, within) for child in value]
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value) if numeric and within == "amounts" else value


def _part(key: object) -> str:
    return "amounts" if key in ("limits", "requests", "sizeLimit") else ""
