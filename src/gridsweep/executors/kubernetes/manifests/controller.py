"""The loop as a Deployment in the cluster: it creates the RayJobs, and has no more rights than that takes."""

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
"""What the loop does, and why a stint waits is read from its pod. A RayJob is never changed, only made and deleted."""


def controller(sweep: Sweep, cluster: KubernetesCluster, spec: str, files: dict[str, str]) -> list[Manifest]:
    """All objects of the loop. `spec` is the text of sweep.yaml; `files` are those it names, by name beside it."""
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
        # A journal of a few megabytes; SQLite's locks do not hold on a share, so that one pod alone may mount it.
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
        "automountServiceAccountToken": True,  # the one pod that speaks to the API server
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 180,  # it stops its workers at their checkpoints before it leaves
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
