"""Roles: what the loop in the cluster may do, and what a user's own machine may."""

from __future__ import annotations

from gridsweep.executors.kubernetes.manifests.names import COMPONENT, MANAGED_BY, NAME, Manifest
from gridsweep.sweep.clusters import KubernetesCluster

Rules = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Rules of a Role, each as group, resource and verbs."""
RIGHTS: Rules = (
    ("ray.io", "rayjobs", ("get", "list", "watch", "create", "delete")),
    ("", "pods", ("list",)),
    ("", "persistentvolumeclaims", ("get",)),
    ("", "events", ("list",)),
    ("kueue.x-k8s.io", "workloads", ("list",)),
)
"""What the loop may do in the cluster, where the volume is mounted.

RayJobs are only created and deleted, never changed. Pods, events and Kueue's workloads are read for the reason an
attempt waits; `OPTIONAL` names those without which only the reason is missing.
"""
READER: Rules = (
    ("", "pods", ("get", "list", "create", "delete")),
    ("", "pods/proxy", ("get", "delete")),
)
"""What reading the volume from outside the cluster takes, through a pod that is created for it."""
OPTIONAL = (("", "events"), ("kueue.x-k8s.io", "workloads"))
"""Resources that only say why an attempt waits: without these rights the reason is missing, and nothing else."""


def laptop_rules() -> Rules:
    """Return the rules that the loop needs outside the cluster: the controller's, and those to read the volume."""
    merged: dict[tuple[str, str], tuple[str, ...]] = {}
    for group, resource, verbs in (*RIGHTS, *READER):
        had = merged.get((group, resource), ())
        merged[group, resource] = (*had, *(verb for verb in verbs if verb not in had))
    return tuple((group, resource, verbs) for (group, resource), verbs in merged.items())


def role(namespace: str, name: str, labels: dict[str, str], rights: Rules) -> Manifest:
    """Return a Role with these rights in its namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "rules": [
            {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for group, resource, verbs in rights
        ],
    }


def laptop_role(cluster: KubernetesCluster) -> Manifest:
    """Return the Role of a user who runs and collects sweeps from another machine; he is bound to it by name."""
    own = {NAME: "gridsweep", COMPONENT: "laptop", MANAGED_BY: "gridsweep"}
    return role(cluster.namespace, "gridsweep-laptop", own, laptop_rules())
