"""The loop as a Deployment in the cluster, with only the rights it needs to create RayJobs and follow their pods."""

from __future__ import annotations

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.delivery import config_map
from gridsweep.executors.kubernetes.manifests.image_version import CONTROLLER
from gridsweep.executors.kubernetes.manifests.names import Manifest, labels, metadata, object_name, store_of
from gridsweep.executors.kubernetes.manifests.network import controller_policy
from gridsweep.executors.kubernetes.manifests.pods import (
    claim,
    container_security,
    environment,
    mount,
    resources,
    scratch,
    security,
)
from gridsweep.executors.kubernetes.manifests.storage import claim_of
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.sweep import Sweep

CONFIG, STATE = "/config", "/state"
RIGHTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ray.io", "rayjobs", ("get", "list", "watch", "create", "delete")),
    ("", "pods", ("get", "list", "watch")),
)
"""The rights of the loop, as group, resource and verbs.

Pods are read for the reason a stint waits. RayJobs are only created and deleted, never changed.
"""


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
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata(cluster.namespace, name, own),
            "rules": [
                {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
                for group, resource, verbs in RIGHTS
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata(cluster.namespace, name, own),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
        },
        config_map(cluster, name, own, {"sweep.yaml": spec, **files}),
        # A journal of a few megabytes; SQLite's locks do not work on a network share, so only one pod may mount it.
        claim_of(cluster, object_name(sweep.name, "journal"), "1Gi", "ReadWriteOnce", sweep),
        _deployment(sweep, cluster, name, own),
        controller_policy(sweep, cluster),
    ]


def _deployment(sweep: Sweep, cluster: KubernetesCluster, name: str, own: dict[str, str]) -> Manifest:
    container = {
        "name": "controller",
        "image": cluster.image,
        "command": ["python", "-c", CONTROLLER],
        "args": ["run", f"{CONFIG}/sweep.yaml", "--folder", f"{STATE}/run"],
        "env": environment(
            GRIDSWEEP_STORE=store_of(sweep.name), HOME="/tmp", PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1"
        ),
        "resources": resources("500m", "1Gi", scratch="1Gi"),
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
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            claim("state", object_name(sweep.name, "journal")),
            claim("store", cluster.volume),
            scratch("tmp", "512Mi"),
        ],
    }
    selected = {key: own[key] for key in own if not key.endswith("managed-by")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(cluster.namespace, name, own),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # never two: the journal has one writer
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selected},
            "template": {"metadata": {"labels": own}, "spec": pod},
        },
    }
