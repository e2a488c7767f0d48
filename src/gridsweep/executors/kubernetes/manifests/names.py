"""Names, labels and annotations: what joins objects and pods to a sweep, and keeps sweeps apart in one namespace."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any  # a Kubernetes object

from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import Sweep

Manifest = dict[str, Any]

PREFIX = "gridsweep.io/"
SWEEP, EXPERIMENT, TIER = (PREFIX + word for word in ("sweep", "experiment", "tier"))
ATTEMPT, REASON, DIGEST = (PREFIX + word for word in ("attempt", "tier-reason", "digest"))
NAME, COMPONENT, MANAGED_BY = (f"app.kubernetes.io/{word}" for word in ("name", "component", "managed-by"))

STORE = "/store"
"""Where the volume is mounted, in every pod."""
MODELS = f"{STORE}/huggingface"
"""The cache of base models and datasets, shared by all sweeps of the volume."""

RAYJOB_LIMIT = 47  # KubeRay makes longer names from it, and refuses more
_DIGEST = 10


def digest(*parts: str) -> str:
    """Ten hexadecimal digits over the parts, in their order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_DIGEST]


def dns_label(text: str, limit: int = 63) -> str:
    """A DNS-1035 label made of a text; one that had to be changed gets a digest, so that two stay two."""
    clean = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    clean = clean if clean[:1].isalpha() else f"x-{clean}".rstrip("-")
    if clean == text and len(clean) <= limit:
        return clean
    return f"{clean[: limit - _DIGEST - 1].rstrip('-')}-{digest(text)}"


def label_value(text: str) -> str:
    """A text as a label's value: itself where it is allowed, else its allowed characters and a digest."""
    if re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", text):
        return text
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-_.")
    return f"{clean[: 63 - _DIGEST - 1].rstrip('-_.')}-{digest(text)}".lstrip("-")


def job_name(sweep: str, attempt: str, experiment: str) -> str:
    """The RayJob of an attempt: the experiment's readable part, and a digest over sweep and attempt.

    At most 47 characters, a DNS-1035 label, the same whenever it is asked for.
    """
    stem = dns_label(experiment.rpartition("-")[0] or experiment)[: RAYJOB_LIMIT - _DIGEST - 1].rstrip("-")
    return f"{stem}-{digest(sweep, attempt)}"


def object_name(sweep: str, suffix: str) -> str:
    """The name of an object that a sweep has one of."""
    return dns_label(f"{dns_label(sweep, 63 - len(suffix) - 1)}-{suffix}")


def store_of(sweep: str) -> str:
    """The store of a sweep on the volume; of its own, since sweeps may share experiments."""
    return f"{STORE}/{dns_label(sweep)}"


def labels(sweep: str, component: str, **more: str) -> dict[str, str]:
    """The labels of an object; `more` are further ones below our prefix."""
    own = {PREFIX + name: label_value(value) for name, value in more.items()}
    return {NAME: "gridsweep", COMPONENT: component, MANAGED_BY: "gridsweep", SWEEP: label_value(sweep), **own}


def experiment_annotations(sweep: Sweep, id: str) -> dict[str, str]:
    """The hyperparameters of an experiment, and why it is in its tier."""
    experiment = sweep.experiment(id)
    params = experiment.params
    values = {"r": params.r, "alpha": params.alpha, "lr": params.lr, "dropout": params.dropout}
    return {**{PREFIX + name: number(v) for name, v in values.items()}, REASON: experiment.reason}


def go_duration(span: timedelta) -> str:
    """A span as Go reads it, which knows no days: `96h`, `1h30m`; in whole seconds, rounded up.

    Raises `ValueError` for a negative one.
    """
    if span < timedelta(0):
        raise ValueError(f"a duration of {span} is negative")
    seconds = -(-span // timedelta(seconds=1))
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def metadata(namespace: str, name: str, labels: dict[str, str]) -> Manifest:
    return {"name": name, "namespace": namespace, "labels": labels}
