"""The spec's patch of pods, merged as `kubectl patch --type strategic` merges.

Mappings are merged by key, and null removes a key. Lists whose elements have a name are merged by it. Tolerations are
added, where Kubernetes would replace the list: the one for GPU nodes is needed. Other lists are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.names import Manifest
from gridsweep.executors.kubernetes.manifests.pods import container_security
from gridsweep.spec.pod_fields import KEYS

ADDED = ("tolerations", "envFrom")
EVERYWHERE = ("imagePullSecrets", "priorityClassName", "tolerations", "dnsConfig", "dnsPolicy", "hostAliases")
"""Fields of a pod that hold for all pods; the others are for workers."""
WORKER = "ray-head"


def patched(template: Manifest, patch: Mapping[str, Any]) -> Manifest:
    """Return a pod's template (`metadata` and `spec`) with the spec's patch.

    Of the containers, those that the pod has are patched. A pod that is not a worker's gets `EVERYWHERE` only.
    """
    if not patch:
        return template
    there = {container["name"] for container in template["spec"]["containers"]}
    spec = dict(patch.get("spec") or {})
    if WORKER not in there:
        spec = {name: value for name, value in spec.items() if name in (*EVERYWHERE, "containers")}
    if spec.get("containers"):
        spec["containers"] = [container for container in spec["containers"] if container["name"] in there]
    merged: Manifest = _merged(template, {"metadata": patch.get("metadata") or {}, "spec": spec})
    asked = {container["name"]: container.get("resources") or {} for container in spec.get("containers", ())}
    for container in merged["spec"]["containers"]:
        _evened(container, asked.get(container["name"], {}))
    for container in merged["spec"].get("initContainers", ()):
        container.setdefault("securityContext", container_security())
        container.setdefault("resources", {"limits": {"cpu": "1", "memory": "1Gi"}})
    return merged


def _evened(container: Manifest, asked: Mapping[str, Any]) -> None:
    """Let requests equal limits where the patch names one of them, and a reference take the place of a value."""
    for one, other in (("limits", "requests"), ("requests", "limits")):
        for name, amount in (asked.get(one) or {}).items():
            if name in (asked.get(other) or {}):
                continue
            if amount is None:
                container["resources"].get(other, {}).pop(name, None)
            else:
                container["resources"].setdefault(other, {})[name] = amount
    for variable in container.get("env", ()):
        if "valueFrom" in variable:
            variable.pop("value", None)


def _merged(old: Any, new: Any, name: str = "") -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        both = {key: _merged(old.get(key), value, key) for key, value in new.items() if value is not None}
        return {**{key: value for key, value in old.items() if key not in new}, **both}
    if isinstance(new, Sequence) and not isinstance(new, str):
        had = list(old or ())
        if name in ADDED:
            return [*had, *(deepcopy(each) for each in new if each not in had)]
        if fields := KEYS.get(name):
            return _joined(had, new, fields)
    if isinstance(new, Mapping):
        return _merged({}, new)
    return deepcopy(new)


def _joined(had: Sequence[Manifest], new: Sequence[Manifest], fields: Sequence[str]) -> list[Manifest]:
    """Return a list with the new elements, each merged into the one with the same fields, if that is there."""

    def key(element: Manifest) -> tuple[Any, ...]:
        return tuple(element.get(field) for field in fields)

    there = {key(each) for each in had}
    joined = []
    for each in had:
        for one in new:
            if key(one) == key(each):
                each = _merged(each, one)
        joined.append(each)
    return [*joined, *(_merged({}, one) for one in new if key(one) not in there)]
