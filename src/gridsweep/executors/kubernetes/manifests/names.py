"""Names, labels and annotations that tie objects and pods to a sweep, and keep sweeps in one namespace apart."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any  # a Kubernetes object

from gridsweep.sweep.experiments import text
from gridsweep.sweep.sweep import Sweep

Manifest = dict[str, Any]

PREFIX = "gridsweep.io/"
SWEEP, EXPERIMENT, TIER = (PREFIX + word for word in ("sweep", "experiment", "tier"))
ATTEMPT, REASON, DIGEST = (PREFIX + word for word in ("attempt", "tier-reason", "digest"))
NAME, COMPONENT, MANAGED_BY = (f"app.kubernetes.io/{word}" for word in ("name", "component", "managed-by"))

STORE = "/store"
"""The mount path of the volume in every pod."""
MODELS = f"{STORE}/huggingface"
"""The cache of base models and datasets, shared by all sweeps of the volume."""

RAYJOB_LIMIT = 47  # KubeRay derives longer names from it, and refuses longer ones
_DIGEST = 10


def digest(*parts: str) -> str:
    """Return ten hexadecimal digits of a SHA-256 digest over the parts, in order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_DIGEST]


def dns_label(text: str, limit: int = 63) -> str:
    """Return a DNS-1035 label for a text; a changed text gets a digest, so that different texts stay different."""
    clean = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    clean = clean if clean[:1].isalpha() else f"x-{clean}".rstrip("-")
    if clean == text and len(clean) <= limit:
        return clean
    return f"{clean[: limit - _DIGEST - 1].rstrip('-')}-{digest(text)}"


def label_value(text: str) -> str:
    """Return a text as a label value: unchanged if valid, else its allowed characters and a digest."""
    if re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", text):
        return text
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-_.")
    return f"{clean[: 63 - _DIGEST - 1].rstrip('-_.')}-{digest(text)}".lstrip("-")


def job_name(sweep: str, attempt: str, experiment: str) -> str:
    """Return the name of an attempt's RayJob: the experiment's readable part, and a digest over sweep and attempt.

    The name is a DNS-1035 label of at most 47 characters, and the same at every call.
    """
    stem = dns_label(experiment.rpartition("-")[0] or experiment)[: RAYJOB_LIMIT - _DIGEST - 1].rstrip("-")
    return f"{stem}-{digest(sweep, attempt)}"


def object_name(sweep: str, suffix: str) -> str:
    """Return the name of an object that exists once per sweep."""
    return dns_label(f"{dns_label(sweep, 63 - len(suffix) - 1)}-{suffix}")


def store_of(sweep: str) -> str:
    """Return the path of a sweep's store on the volume; each sweep has its own, since sweeps may share experiments."""
    return f"{STORE}/{dns_label(sweep)}"


def labels(sweep: str, component: str, **more: str) -> dict[str, str]:
    """Return the labels of an object; `more` are further labels, to which `PREFIX` is added."""
    own = {PREFIX + name: label_value(value) for name, value in more.items()}
    return {NAME: "gridsweep", COMPONENT: component, MANAGED_BY: "gridsweep", SWEEP: label_value(sweep), **own}


def experiment_annotations(sweep: Sweep, id: str) -> dict[str, str]:
    """Return annotations with an experiment's hyperparameters and the reason for its tier."""
    experiment = sweep.experiment(id)
    params = experiment.params
    return {**{PREFIX + name: text(v) for name, v in params.values.items()}, REASON: experiment.reason}


def go_duration(span: timedelta) -> str:
    """Format a span as a Go duration, which has no days: `96h`, `1h30m`; in whole seconds, rounded up.

    Raise `ValueError` for a negative span.
    """
    if span < timedelta(0):
        raise ValueError(f"a duration of {span} is negative")
    seconds = -(-span // timedelta(seconds=1))
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def metadata(namespace: str, name: str, labels: dict[str, str]) -> Manifest:
    return {"name": name, "namespace": namespace, "labels": labels}
