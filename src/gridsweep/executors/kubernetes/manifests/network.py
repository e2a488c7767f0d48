"""Network policies: the allowed connections to and from the pods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.names import (
    COMPONENT,
    SWEEP,
    Manifest,
    label_value,
    labels,
    metadata,
    object_name,
)
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.sweep import Sweep

DASHBOARD = 8265
HTTPS, API_SERVER, DNS = 443, 6443, 53


def policy(
    cluster: KubernetesCluster,
    name: str,
    selected: dict[str, str],
    ingress: list[Manifest],
    egress: Iterable[int],
    own: dict[str, str],
) -> Manifest:
    """Return a NetworkPolicy: ingress as given, egress to name servers and to these TCP ports on any host."""
    names: list[dict[str, Any]] = [{"protocol": protocol, "port": DNS} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(cluster.namespace, name, own),
        "spec": {
            "podSelector": {"matchLabels": selected},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [{"ports": names}, {"ports": [_tcp(port) for port in egress]}],
        },
    }


def worker_policy(sweep: Sweep, cluster: KubernetesCluster) -> Manifest:
    """Return the policy of workers: only the KubeRay operator and this sweep's pods may reach the Ray dashboard.

    The dashboard runs any code it is sent; the operator submits the job through it. Installations of the operator by
    Helm and by kustomize share one label, in any namespace.
    """
    mine = {SWEEP: label_value(sweep.name)}
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {COMPONENT: "kuberay-operator"}},
    }
    ingress = [{"from": [{"podSelector": {"matchLabels": mine}}, operator], "ports": [_tcp(DASHBOARD)]}]
    selected = {**mine, COMPONENT: "worker"}
    name = object_name(sweep.name, "workers")
    return policy(cluster, name, selected, ingress, [HTTPS], labels(sweep.name, "worker"))


def controller_policy(sweep: Sweep, cluster: KubernetesCluster) -> Manifest:
    """Return the policy of the loop: no ingress; egress to the API server, on either port, and the carbon provider."""
    selected = {SWEEP: label_value(sweep.name), COMPONENT: "controller"}
    name = object_name(sweep.name, "controller")
    own = labels(sweep.name, "controller")
    return policy(cluster, name, selected, [], [HTTPS, API_SERVER], own)


def _tcp(port: int) -> Manifest:
    return {"protocol": "TCP", "port": port}
