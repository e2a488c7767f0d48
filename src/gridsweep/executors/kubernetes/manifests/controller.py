"""The loop as a Job in the cluster, with only the rights it needs to create RayJobs and follow their pods."""

from __future__ import annotations

from gridsweep import __version__
from gridsweep.errors import DEADLINE, EXECUTOR, SIGNALLED, SOME_FAILED, STATE_DAMAGED, USAGE, SpecError
from gridsweep.executors.kubernetes.manifests.delivery import START, config_map
from gridsweep.executors.kubernetes.manifests.names import Manifest, labels, metadata, object_name, store_of
from gridsweep.executors.kubernetes.manifests.network import controller_policy
from gridsweep.executors.kubernetes.manifests.patches import patched
from gridsweep.executors.kubernetes.manifests.pods import (
    claim,
    container_security,
    environment,
    mount,
    referring,
    resources,
    scratch,
    security,
)
from gridsweep.executors.kubernetes.manifests.roles import RIGHTS, role
from gridsweep.executors.kubernetes.manifests.storage import claim_of
from gridsweep.grid.registry import secrets_of
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.sweep import Sweep

CONFIG, STATE = "/config", "/state"
RESTARTS = 20
"""How often a loop that crashed is started again, after longer and longer pauses; a drained node is not counted."""
FINAL = (USAGE, SOME_FAILED, SIGNALLED, EXECUTOR, STATE_DAMAGED, DEADLINE)
"""Exit codes after which another start would end the same, or undo what a user asked for; 0 ends the Job well."""


def controller(sweep: Sweep, cluster: KubernetesCluster, spec: str, files: dict[str, str]) -> list[Manifest]:
    """Return all objects of the loop. `spec` is the text of sweep.yaml; `files` are the texts of the files it names.

    Raise `SpecError` if the worker's code comes from a ConfigMap: the loop needs gridsweep in its image.
    """
    if cluster.worker == "configmap":
        raise SpecError(
            "the loop needs gridsweep in its image; set executor.kubernetes.worker: image, or render with another gate"
        )
    name = object_name(sweep.name, "controller")
    own = labels(sweep.name, "controller")
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(cluster.namespace, name, own),
            "automountServiceAccountToken": False,
        },
        role(cluster.namespace, name, own, RIGHTS),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata(cluster.namespace, name, own),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
        },
        config_map(cluster, name, own, {"sweep.yaml": spec, **files}),
        _job(sweep, cluster, name, own),
        controller_policy(sweep, cluster),
    ]


def journal_claim(sweep: Sweep, cluster: KubernetesCluster) -> Manifest:
    """Return the claim of the loop's journal of a few megabytes.

    SQLite's locks do not work on a network share, so only one node may mount it.
    """
    return claim_of(cluster, object_name(sweep.name, "journal"), "1Gi", "ReadWriteOnce", sweep)


def _references(sweep: Sweep) -> tuple[str, ...]:
    """Return the secrets that the loop reads. Raise `SpecError` for one in a file, which no pod has."""
    found = secrets_of(sweep.carbon)
    if files := [reference for reference in found if reference.startswith("file:")]:
        raise SpecError(f"{files[0]} is on this machine; write env:NAME, and keep it in a Secret", where="carbon")
    return found


def _job(sweep: Sweep, cluster: KubernetesCluster, name: str, own: dict[str, str]) -> Manifest:
    container = {
        "name": "controller",
        "image": cluster.image,
        "command": list(START),
        "args": ["run", f"{CONFIG}/sweep.yaml", "--folder", f"{STATE}/run"],
        "env": [
            *referring((("", reference) for reference in _references(sweep)), cluster),
            *environment(
                GRIDSWEEP_VERSION=__version__,
                GRIDSWEEP_STORE=store_of(sweep.name),
                HOME="/tmp",
                PYTHONDONTWRITEBYTECODE="1",
                PYTHONUNBUFFERED="1",
            ),
        ],
        "resources": resources("500m", "1Gi"),
        "securityContext": container_security(),
        "volumeMounts": [
            mount("config", CONFIG, read_only=True),
            mount("state", STATE),
            mount("store"),
            mount("tmp", "/tmp"),
        ],
    }
    pod = {
        "serviceAccountName": name,
        "automountServiceAccountToken": True,  # the only pod that talks to the API server
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 180,  # the loop stops its workers at their checkpoints first
        "securityContext": security(),
        "restartPolicy": "Never",  # the Job makes a new pod, so that each one's log stays
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            claim("state", object_name(sweep.name, "journal")),
            claim("store", cluster.volume),
            scratch("tmp", "512Mi"),
        ],
    }
    template = patched({"metadata": {"labels": own}, "spec": pod}, cluster.pod)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(cluster.namespace, name, own),
        "spec": {
            "parallelism": 1,  # never two: the journal has one writer
            "completions": 1,
            "backoffLimit": RESTARTS,
            "podReplacementPolicy": "Failed",  # a pod that still ends holds the journal
            "podFailurePolicy": {"rules": _ends()},
            "template": template,
        },
    }


def _ends() -> list[Manifest]:
    """Return what the end of a pod means: a drained node counts for nothing, and some exit codes are final."""
    final = {"containerName": "controller", "operator": "In", "values": list(FINAL)}
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": final},
    ]
