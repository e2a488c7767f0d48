"""The fields of a pod that Kubernetes knows, with their kinds: a table of PodTemplateSpec in core/v1 (Kubernetes 1.36).

A kind is a word such as `TEXT`, a tuple of the words that are taken, a `range`, a pattern with what it is called, the
`Fields` of a mapping, or a list of one kind. `check` compares a value with a kind, and names the place of a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # YAML values, and kinds, which are nested

from gridsweep.spec.values import Value, Word, nearest, shown

TEXT, FLAG, WHOLE, MAP, TEXTS, LIST = "text", "true or false", "a whole number", "a mapping", "texts", "a list"

DNS_LABEL = re.compile(r"(?=.{1,63}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = r"(?=[^/]{1,253}(/|$))[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
KEY = re.compile(rf"({_SUBDOMAIN}/)?[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?")
QUANTITY = r"\+?(\d+(\.\d*)?|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?"
_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3}
_SUFFIXES |= {letter: 1000.0**n for n, letter in enumerate("MGTPE", start=2)}
_SUFFIXES |= {f"{letter}i": 1024.0**n for n, letter in enumerate("KMGTPE", start=1)}


@dataclass(frozen=True, slots=True)
class Shape:
    """Text that matches a pattern as a whole; `what` describes it. With `numbers`, a number is taken as its text."""

    pattern: re.Pattern[str]
    what: str
    numbers: bool = False


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping with known fields; those that it `needs` may not be absent, and of `one` exactly one is there."""

    kinds: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    one: tuple[str, ...] = ()


NAME = Shape(re.compile(_SUBDOMAIN), "a name of lower-case letters, digits, '-' and '.'")
LABEL = Shape(DNS_LABEL, "a name of lower-case letters, digits and '-'")
QUALIFIED = Shape(KEY, "PREFIX/NAME or NAME, of letters, digits and . _ - within")
AMOUNT = Shape(re.compile(QUANTITY, re.ASCII), "a quantity such as 4, 500m or 24Gi", numbers=True)
PATH = Shape(re.compile(r"/.*"), "an absolute path")
_MEDIUM = Shape(re.compile(r"|Memory|HugePages(-\d+[KMGT]i)?"), "Memory, HugePages or HugePages-SIZE")
_MODE = range(0o1000)
_ID = range(2**31)
_ITEMS = [Fields({"key": TEXT, "path": TEXT, "mode": _MODE}, ("key", "path"))]

SOURCES = {
    "awsElasticBlockStore": MAP, "azureDisk": MAP, "azureFile": MAP, "cephfs": MAP, "cinder": MAP,
    "configMap": Fields({"name": NAME, "items": _ITEMS, "defaultMode": _MODE, "optional": FLAG}, ("name",)),
    "csi": Fields(
        {"driver": TEXT, "readOnly": FLAG, "fsType": TEXT, "volumeAttributes": TEXTS, "nodePublishSecretRef": MAP},
        ("driver",),
    ),
    "downwardAPI": Fields({"items": LIST, "defaultMode": _MODE}),
    "emptyDir": Fields({"medium": _MEDIUM, "sizeLimit": AMOUNT}),
    "ephemeral": Fields({"volumeClaimTemplate": MAP}, ("volumeClaimTemplate",)),
    "fc": MAP, "flexVolume": MAP, "flocker": MAP, "gcePersistentDisk": MAP, "gitRepo": MAP, "glusterfs": MAP,
    "hostPath": Fields({"path": TEXT, "type": TEXT}, ("path",)),
    "image": Fields({"reference": TEXT, "pullPolicy": ("Always", "IfNotPresent", "Never")}, ("reference",)),
    "iscsi": MAP,
    "nfs": Fields({"server": TEXT, "path": PATH, "readOnly": FLAG}, ("server", "path")),
    "persistentVolumeClaim": Fields({"claimName": NAME, "readOnly": FLAG}, ("claimName",)),
    "photonPersistentDisk": MAP, "portworxVolume": MAP,
    "projected": Fields({"sources": LIST, "defaultMode": _MODE}, ("sources",)),
    "quobyte": MAP, "rbd": MAP, "scaleIO": MAP,
    "secret": Fields({"secretName": NAME, "items": _ITEMS, "defaultMode": _MODE, "optional": FLAG}, ("secretName",)),
    "storageos": MAP, "vsphereVolume": MAP,
}  # fmt: skip
"""What a volume may be made from."""
VOLUME = Fields({"name": LABEL, **SOURCES}, ("name",), tuple(SOURCES))
_SECURITY = {
    "appArmorProfile": MAP, "runAsGroup": _ID, "runAsNonRoot": FLAG, "runAsUser": _ID, "seLinuxOptions": MAP,
    "seccompProfile": MAP, "windowsOptions": MAP,
}  # fmt: skip
_POD_SECURITY = Fields({
    **_SECURITY, "fsGroup": _ID, "fsGroupChangePolicy": ("OnRootMismatch", "Always"),
    "seLinuxChangePolicy": ("MountOption", "Recursive"), "supplementalGroups": [_ID],
    "supplementalGroupsPolicy": ("Merge", "Strict"),
    "sysctls": [Fields({"name": TEXT, "value": TEXT}, ("name", "value"))],
})  # fmt: skip
_CONTAINER_SECURITY = Fields({
    **_SECURITY, "allowPrivilegeEscalation": FLAG, "capabilities": Fields({"add": [TEXT], "drop": [TEXT]}),
    "privileged": FLAG, "procMount": ("Default", "Unmasked"), "readOnlyRootFilesystem": FLAG,
})  # fmt: skip
_CLAIM = Fields({"name": TEXT, "request": TEXT}, ("name",))
RESOURCES = Fields({"limits": MAP, "requests": MAP, "claims": [_CLAIM]})
_HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")
_SECONDS = range(2**31)
PROBE = Fields({
    **dict.fromkeys(_HANDLERS, MAP), "failureThreshold": _SECONDS, "initialDelaySeconds": _SECONDS,
    "periodSeconds": _SECONDS, "successThreshold": _SECONDS, "terminationGracePeriodSeconds": _SECONDS,
    "timeoutSeconds": _SECONDS,
}, one=_HANDLERS)  # fmt: skip
MOUNT = Fields({
    "name": TEXT, "mountPath": TEXT, "mountPropagation": ("None", "HostToContainer", "Bidirectional"),
    "readOnly": FLAG, "recursiveReadOnly": ("Disabled", "IfPossible", "Enabled"), "subPath": TEXT,
    "subPathExpr": TEXT,
}, ("name", "mountPath"))  # fmt: skip
DEVICE = Fields({"name": TEXT, "devicePath": PATH}, ("name", "devicePath"))
CONTAINER = {
    "name": TEXT, "env": [MAP], "envFrom": [MAP], "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "livenessProbe": PROBE, "readinessProbe": PROBE,
    "resizePolicy": [Fields(
        {"resourceName": ("cpu", "memory"), "restartPolicy": ("NotRequired", "RestartContainer")},
        ("resourceName", "restartPolicy"),
    )],
    "resources": RESOURCES, "securityContext": _CONTAINER_SECURITY, "startupProbe": PROBE, "volumeDevices": [DEVICE],
    "volumeMounts": [MOUNT],
}  # fmt: skip
INIT = {
    **CONTAINER, "args": [TEXT], "command": [TEXT], "image": TEXT, "lifecycle": MAP, "ports": [MAP],
    "restartPolicy": ("Always",), "terminationMessagePath": TEXT,
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"), "workingDir": TEXT,
}  # fmt: skip
_SPREAD = Fields({
    "labelSelector": MAP, "matchLabelKeys": [TEXT], "maxSkew": range(1, 2**31), "minDomains": range(1, 2**31),
    "nodeAffinityPolicy": ("Honor", "Ignore"), "nodeTaintsPolicy": ("Honor", "Ignore"), "topologyKey": QUALIFIED,
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
}, ("maxSkew", "topologyKey", "whenUnsatisfiable"))  # fmt: skip
POD = {
    "activeDeadlineSeconds": WHOLE,
    "affinity": Fields({"nodeAffinity": MAP, "podAffinity": MAP, "podAntiAffinity": MAP}),
    "automountServiceAccountToken": FLAG, "containers": [MAP],
    "dnsConfig": Fields({
        "nameservers": [TEXT], "searches": [TEXT], "options": [Fields({"name": TEXT, "value": TEXT}, ("name",))],
    }),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "hostAliases": [Fields({"ip": TEXT, "hostnames": [NAME]}, ("ip",))], "hostUsers": FLAG,
    "imagePullSecrets": [Fields({"name": NAME}, ("name",))], "initContainers": [MAP], "nodeName": NAME,
    "nodeSelector": TEXTS, "overhead": MAP, "preemptionPolicy": ("Never", "PreemptLowerPriority"), "priority": WHOLE,
    "priorityClassName": NAME,
    "resourceClaims": [Fields(
        {"name": LABEL, "resourceClaimName": NAME, "resourceClaimTemplateName": NAME}, ("name",),
        ("resourceClaimName", "resourceClaimTemplateName"),
    )],
    "resources": RESOURCES, "runtimeClassName": NAME, "schedulerName": TEXT,
    "schedulingGates": [Fields({"name": QUALIFIED}, ("name",))], "securityContext": _POD_SECURITY,
    "serviceAccountName": NAME, "shareProcessNamespace": FLAG, "tolerations": [MAP],
    "topologySpreadConstraints": [_SPREAD], "volumes": [VOLUME],
}  # fmt: skip
UNSUPPORTED = (
    "enableServiceLinks", "ephemeralContainers", "hostname", "hostnameOverride", "os", "readinessGates",
    "restartPolicyRules", "serviceAccount", "setHostnameAsFQDN", "stdin", "stdinOnce", "subdomain",
    "terminationMessagePath", "terminationMessagePolicy", "tty", "workingDir", "workloadRef",
)  # fmt: skip
"""Fields of pods and containers that Kubernetes knows, and that a patch may not set."""
KEYS = {
    "containers": ("name",), "initContainers": ("name",), "env": ("name",), "volumes": ("name",),
    "imagePullSecrets": ("name",), "volumeMounts": ("mountPath",), "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",), "resourceClaims": ("name",), "schedulingGates": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}  # fmt: skip
"""Lists that are merged, with the fields that name an element: the keys of the lists in core/v1."""
REPEATED = ("hostAliases",)
"""Lists in which elements of one key may stand side by side."""


def amount_of(text: str) -> float:
    """Return the value of a quantity. Raise `ValueError` for other text."""
    if not re.fullmatch(QUANTITY, text, re.ASCII):
        raise ValueError(f"{shown(text)} is no quantity")
    found = re.fullmatch(r"(.*?)([numk]|[KMGTPE]i?)?", text)
    assert found is not None, "a quantity is a number with a suffix"
    return float(found[1]) * _SUFFIXES[found[2] or ""]


@dataclass(frozen=True)
class Quantity(Value):
    """A quantity of Kubernetes, as text or as a number, above 0 and at least `least`, which is a quantity too."""

    least: str = "0"

    def read(self, value: object) -> str:
        text = Word(QUANTITY, AMOUNT.what, numbers=True).read(value)
        if amount_of(text) <= 0 or amount_of(text) < amount_of(self.least):
            bound = f"at least {self.least}" if amount_of(self.least) else "above 0"
            raise ValueError(f"must be {bound}, not {shown(value)}")
        return text

    def schema(self) -> dict[str, Any]:
        bound = float(amount_of(self.least))
        own = {"minimum": bound} if bound else {"exclusiveMinimum": 0}
        return {**Word(QUANTITY, AMOUNT.what, numbers=True).schema(), **own}


def check(value: object, kind: Any, where: str) -> None:
    """Raise `ValueError` if a value is not of a kind; null, which removes a field, is of all kinds but lists."""
    if value is None:
        if kind == LIST or isinstance(kind, list):
            raise ValueError(f"{where} must be a list, not nothing")
    elif isinstance(kind, Fields):
        _check_fields(value, kind, where)
    elif isinstance(kind, list):
        _check_list(value, kind[0], where)
    elif fault := _fault(value, kind):
        raise ValueError(f"{where} must be {fault}, not {shown(value)}")


def _check_fields(value: object, kind: Fields, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a mapping, not {shown(value)}")
    for name, child in value.items():
        if name not in kind.kinds:
            raise ValueError(f"{where}.{name} is unknown; {nearest(str(name), list(kind.kinds))}")
        check(child, kind.kinds[name], f"{where}.{name}")
    if missing := [name for name in kind.needs if value.get(name) is None]:
        raise ValueError(f"{where} needs {' and '.join(missing)}")
    if kind.one and sum(value.get(name) is not None for name in kind.one) != 1:
        some = kind.one if len(kind.one) < 6 else (*kind.one[:3], "...")
        raise ValueError(f"{where} needs exactly one of {', '.join(some)}")


def _check_list(value: object, kind: Any, where: str) -> None:
    mappings = kind == MAP or isinstance(kind, Fields)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} must be a list{' of mappings' if mappings else ''}, not {shown(value)}")
    for n, child in enumerate(value):
        if mappings and not isinstance(child, Mapping):
            raise ValueError(f"{where} must be a list of mappings; {where}[{n}] is {shown(child)}")
        if child is None:
            raise ValueError(f"{where}[{n}] is nothing")
        check(child, kind, f"{where}[{n}]")


def _fault(value: object, kind: Any) -> str:
    """Return what a value must be, if it is not of a kind without parts."""
    if isinstance(kind, Shape):
        numeric = kind.numbers and isinstance(value, int | float) and not isinstance(value, bool)
        fits = isinstance(value, str) or numeric
        return "" if fits and kind.pattern.fullmatch(str(value)) else kind.what
    if isinstance(kind, tuple):
        return "" if value in kind and isinstance(value, str) else f"one of {', '.join(kind)}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, range):
        bounds = f"from {kind.start} to {kind.stop - 1}" if kind.stop < 2**31 else f"from {kind.start} on"
        return "" if whole and value in kind else f"a whole number {bounds}"
    fits = {
        TEXT: isinstance(value, str),
        FLAG: isinstance(value, bool),
        WHOLE: isinstance(value, int) and whole and abs(value) < 2**31,
        LIST: isinstance(value, list | tuple),
        MAP: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
        TEXTS: isinstance(value, Mapping)
        and all(isinstance(key, str) and isinstance(text, str | None) for key, text in value.items()),
    }[kind]
    return "" if fits else "a mapping of texts; quote numbers and true or false" if kind == TEXTS else kind


def check_keys(name: str, elements: object, where: str) -> None:
    """Raise `ValueError` if an element of a merged list lacks the text that names it, or two have the same."""
    if name not in KEYS or not isinstance(elements, list | tuple):
        return
    seen: set[tuple[str, ...]] = set()
    for n, element in enumerate(elements):
        key = tuple(element.get(field) for field in KEYS[name])
        if not all(isinstance(part, str) and part for part in key):
            raise ValueError(f"{where}[{n}] needs {' and '.join(KEYS[name])}, as text")
        if key in seen and name not in REPEATED:
            raise ValueError(f"{where}[{n}]: {', '.join(map(str, key))} is there twice; make one entry of both")
        seen.add(key)
