"""Roles: what the loop in the cluster may do, and what a user's own machine may."""

from __future__ import annotations

from collections.abc import Sequence

from gridsweep.executors.kubernetes.manifests.names import COMPONENT, MANAGED_BY, NAME, Manifest
from gridsweep.executors.kubernetes.preflight import laptop_rules
from gridsweep.sweep.clusters import KubernetesCluster

Right = tuple[str, str, tuple[str, ...]]
"""Group, resource and verbs."""


def role(namespace: str, name: str, labels: dict[str, str], rights: Sequence[Right]) -> Manifest:
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
