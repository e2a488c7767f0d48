"""The patch of a pod's containers: what they may get, and what their work depends on."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any  # YAML values

from gridsweep.spec.pod_fields import (
    AMOUNT,
    CONTAINER,
    DNS_LABEL,
    INIT,
    KEY,
    UNSUPPORTED,
    amount_of,
    check,
    check_keys,
)
from gridsweep.spec.values import nearest, shown

CONTAINERS = ("ray-head", "controller", "reader")
"""The containers of gridsweep's pods, by name: a worker, the loop in the cluster, the reader of the volume."""

OURS = {
    "activeDeadlineSeconds": "executor.kubernetes.run_deadline", "args": "", "command": "", "hostIPC": "",
    "hostNetwork": "", "hostPID": "", "image": "executor.kubernetes.image", "lifecycle": "", "ports": "",
    "restartPolicy": "", "terminationGracePeriodSeconds": "",
}  # fmt: skip
"""Fields that the pods' work depends on, with the key that sets them, if there is one."""
VARIABLES = ("HOME", "USER", "HF_HOME", "HF_TOKEN", "PYTHONPATH", "RAY_JOB_STOP_WAIT_TIME_S")
PATHS = ("/", "/store", "/tmp", "/dev/shm", "/opt/gridsweep", "/config", "/state")
OWN = {
    "ray-head": ("store", "tmp", "shm"),
    "controller": ("config", "state", "store", "tmp"),
    "reader": ("store", "tmp"),
}
"""The volumes of each container's pod that may be mounted once more; those of the patch are a worker's."""
SOURCES = ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef")
NEEDS = {
    "configMapKeyRef": ("name", "key"), "secretKeyRef": ("name", "key"), "fieldRef": ("fieldPath",),
    "resourceFieldRef": ("resource",), "fileKeyRef": ("volumeName", "path", "key"), "configMapRef": ("name",),
    "secretRef": ("name",),
}  # fmt: skip
"""What a source of variables names."""
BULK_SOURCES = ("configMapRef", "secretRef")
AMOUNTS = {
    "cpu": "set executor.kubernetes.cpu",
    "memory": "set executor.kubernetes.memory",
    "nvidia.com/gpu": "a worker trains on one GPU",
}
"""What a worker's container requests, with the key that sets it."""
RESOURCES_OF_PODS = re.compile(r"cpu|memory|ephemeral-storage|hugepages-\d+[KMGT]?i?")
VARIABLE = re.compile(r"[ -<>-~]+")
"""A variable's name: any printable ASCII but `=`."""


def patched_container(container: Mapping[str, Any], where: str, added: Sequence[str]) -> None:
    """Raise `ValueError` for a patch of a container that would take away what its work depends on."""
    name = container.get("name")
    if not isinstance(name, str) or name not in CONTAINERS:
        raise ValueError(f"{where}.name must be one of {', '.join(CONTAINERS)}, not {shown(name)}")
    known(container, f"{where}.", CONTAINER)
    secure(container.get("securityContext"), f"{where}.securityContext")
    _variables(container, where)
    _mounts(container, where, (*OWN[name], *(added if name == CONTAINERS[0] else ())))
    for n, variable in enumerate(container.get("env") or ()):
        key = variable["name"]
        if key.startswith("GRIDSWEEP_") or key in VARIABLES:
            raise ValueError(f"{where}.env[{n}]: {key} cannot be changed; gridsweep's pods depend on it")
    amounts(container, where, AMOUNTS if name == CONTAINERS[0] else {})


def amounts(container: Mapping[str, Any], where: str, fixed: Mapping[str, str]) -> None:
    """Raise `ValueError` for a limit or request that is no quantity, or that is fixed; null removes one."""
    told = mapping(container.get("resources") or {}, f"{where}.resources")
    for kind in ("limits", "requests"):
        for key, amount in mapping(told.get(kind) or {}, f"{where}.resources.{kind}").items():
            if key in fixed:
                raise ValueError(f"{where}.resources.{kind}.{key} cannot be changed; {fixed[key]}")
            if not isinstance(key, str) or not (
                RESOURCES_OF_PODS.fullmatch(key) or ("/" in key and KEY.fullmatch(key))
            ):
                known = "cpu, memory, ephemeral-storage, hugepages-SIZE or DOMAIN/NAME"
                raise ValueError(f"{where}.resources.{kind}.{key} is no resource: {known}")
            check(amount, AMOUNT, f"{where}.resources.{kind}.{key}")
            if amount is not None and "/" in key and amount_of(str(amount)) % 1:
                raise ValueError(f"{where}.resources.{kind}.{key} must be a whole number, not {shown(amount)}")
    limits = told.get("limits") or {}
    for key, amount in (told.get("requests") or {}).items():
        limit = limits.get(key)
        if amount is not None and limit is not None and amount_of(str(amount)) > amount_of(str(limit)):
            raise ValueError(f"{where}.resources.requests.{key} is above its limit")
        whole = "/" in key or key.startswith("hugepages-")
        if whole and amount is not None and limit is not None and amount_of(str(amount)) != amount_of(str(limit)):
            raise ValueError(f"{where}.resources.requests.{key} must equal its limit")


def _variables(container: Mapping[str, Any], where: str) -> None:
    """Raise `ValueError` for a container's variable without a name, or without exactly one source."""
    check_keys("env", container.get("env"), f"{where}.env")
    for n, variable in enumerate(container.get("env") or ()):
        key, value, place = variable.get("name"), variable.get("value"), f"{where}.env[{n}]"
        if not isinstance(key, str) or not VARIABLE.fullmatch(key):
            raise ValueError(f"{place}.name must be a variable's name, not {shown(key)}")
        if not isinstance(value, str | None):
            raise ValueError(f"{place}: {key} needs a value, as text, or valueFrom; quote numbers")
        if unknown := variable.keys() - {"name", "value", "valueFrom"}:
            raise ValueError(f"{place}.{min(map(str, unknown))} is unknown; a variable has name, value and valueFrom")
        if value and variable.get("valueFrom") is not None:
            raise ValueError(f"{place}: {key} needs a value or valueFrom, not both")
        if variable.get("valueFrom") is not None:
            _one_source(mapping(variable["valueFrom"], f"{place}.valueFrom"), SOURCES, f"{place}.valueFrom")
    for n, bulk in enumerate(container.get("envFrom") or ()):
        sources = {key: value for key, value in bulk.items() if key != "prefix"}
        _one_source(sources, BULK_SOURCES, f"{where}.envFrom[{n}]")


def _one_source(found: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if len(found) != 1 or next(iter(found)) not in known or not isinstance(next(iter(found.values())), Mapping):
        raise ValueError(f"{where} needs exactly one of {', '.join(known)}, a mapping")
    ((kind, source),) = found.items()
    if missing := [name for name in NEEDS.get(kind, ()) if not isinstance(source.get(name), str)]:
        raise ValueError(f"{where}.{kind} needs {' and '.join(missing)}, as text")


def _mounts(container: Mapping[str, Any], where: str, volumes: Sequence[str], taken: Sequence[str] = PATHS) -> None:
    """Raise `ValueError` for a mount of no volume, or over a path that is taken."""
    for kind in ("volumeMounts", "volumeDevices"):
        check_keys(kind, container.get(kind), f"{where}.{kind}")
    for n, mounted in enumerate(container.get("volumeMounts") or ()):
        path, name = str(mounted.get("mountPath") or ""), mounted.get("name")
        unclear = not path.startswith("/") or ":" in path or ".." in path.split("/")
        if unclear or posixpath.normpath("/" + path.lstrip("/")) in taken:
            raise ValueError(f"{where}.volumeMounts[{n}] needs a volume's name and a path that gridsweep does not use")
        if name not in volumes:
            raise ValueError(f"{where}.volumeMounts[{n}]: {shown(name)} is no volume of its pod: {', '.join(volumes)}")
        sub = mounted.get("subPath") or ""
        if mounted.get("subPath") and mounted.get("subPathExpr"):
            raise ValueError(f"{where}.volumeMounts[{n}] has subPath and subPathExpr; give one of them")
        for one in (sub, mounted.get("subPathExpr") or ""):
            if one.startswith("/") or ".." in one.split("/"):
                raise ValueError(
                    f"{where}.volumeMounts[{n}]: {shown(one)} must be a path within the volume, without .."
                )
    for n, device in enumerate(container.get("volumeDevices") or ()):
        if device.get("name") not in volumes or not str(device.get("devicePath") or "").startswith("/"):
            raise ValueError(f"{where}.volumeDevices[{n}] needs a volume of its pod and a path")


def init_container(container: Mapping[str, Any], where: str, added: Sequence[str]) -> None:
    name, image = container.get("name"), container.get("image")
    if not isinstance(name, str) or not DNS_LABEL.fullmatch(name) or name in CONTAINERS:
        raise ValueError(f"{where} needs a name of its own and an image")
    if not isinstance(image, str) or not image or image != image.strip():
        raise ValueError(f"{where} needs a name of its own and an image")
    known(container, f"{where}.", INIT, ours={})
    if container.get("restartPolicy") != "Always":
        for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(field) is not None:
                raise ValueError(f"{where}.{field} needs restartPolicy: Always")
    _variables(container, where)
    _mounts(container, where, (*OWN["ray-head"], *added), taken=())
    amounts(container, where, {})
    secure(container.get("securityContext"), f"{where}.securityContext")


def secure(context: Mapping[str, Any] | None, where: str) -> None:
    """Raise `ValueError` for the user root where pods keep `runAsNonRoot`: the kubelet would not start them."""
    if context and context.get("runAsUser") == 0 and context.get("runAsNonRoot") is not False:
        raise ValueError(f"{where}.runAsUser is 0, and pods run as no root; with it, set runAsNonRoot: false")


def mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping, not {shown(value)}")
    return dict(value)


def known(
    fields: Mapping[str, Any], where: str, kinds: Mapping[str, Any], ours: Mapping[str, str] | None = None
) -> None:
    """Raise `ValueError` for a field that a pod lacks, that gridsweep sets (`ours`), or of another kind."""
    ours = OURS if ours is None else ours
    for name, value in fields.items():
        if name in ours:
            instead = f"; set {ours[name]} instead" if ours[name] else "; gridsweep's pods depend on it"
            raise ValueError(f"{where}{name} cannot be changed{instead}")
        if name in UNSUPPORTED and name not in kinds:
            raise ValueError(f"{where}{name} is not supported")
        if name not in kinds:
            raise ValueError(
                f"{where}{name} is unknown; {nearest(str(name), [key for key in kinds if key not in ours])}"
            )
        check(value, kinds[name], f"{where}{name}")
        if name not in ("containers", "initContainers"):
            check_keys(name, value, f"{where}{name}")
