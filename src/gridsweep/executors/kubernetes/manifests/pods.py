"""Parts common to all pods: the restricted security profile, scratch space, the volume."""

from __future__ import annotations

from collections.abc import Iterable

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.names import MODELS, STORE, Manifest
from gridsweep.sweep.clusters import KubernetesCluster

USER = 1000
GPU = "nvidia.com/gpu"


def security() -> Manifest:
    """Return a pod's security context: Pod Security's `restricted` profile, and a group that may write the volume."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",  # otherwise all files of the volume are walked at every start
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def environment(**values: str) -> list[Manifest]:
    """Return variables of a container, escaped because the kubelet would expand `$(NAME)` in them."""
    return [{"name": name, "value": value.replace("$(", "$$(")} for name, value in values.items()]


def secret(name: str, secret_name: str, key: str) -> Manifest:
    """Return a variable whose value stays in a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret_name, "key": key}}}


def referring(values: Iterable[tuple[str, str]], cluster: KubernetesCluster) -> list[Manifest]:
    """Return variables, of which `env:NAME` stands for the key NAME of the spec's Secret; "" is that name.

    Raise `SpecError` if there is a reference, and the spec names no Secret.
    """
    values = list(values)
    keys = [value.removeprefix("env:") for _, value in values if value.startswith("env:")]
    if keys and cluster.secret is None:
        told = " ".join(f"--from-literal={key}=..." for key in keys)
        raise SpecError(
            f"missing; pods need {', '.join(keys)}, which only a Secret may hold; make it with "
            f"`kubectl -n {cluster.namespace} create secret generic NAME {told}`, and write its name here",
            where="executor.kubernetes.secret",
        )
    return [
        secret(name or value.removeprefix("env:"), cluster.secret or "", value.removeprefix("env:"))
        if value.startswith("env:")
        else environment(**{name: value})[0]
        for name, value in values
    ]


def hugging_face(cluster: KubernetesCluster) -> list[Manifest]:
    """Return the variables for the model cache, and the token for gated models."""
    variables = environment(HF_HOME=MODELS, HF_HUB_DISABLE_TELEMETRY="1")
    token = cluster.hugging_face_secret
    return [*variables, secret("HF_TOKEN", token, "HF_TOKEN")] if token else variables


def resources(cpu: str, memory: str, gpus: int = 0, scratch: str | None = None) -> Manifest:
    """Return resources with requests equal to limits, so that the pod is evicted last.

    `scratch` is the space for logs and temporary files; many queues and quotas do not know it, and refuse what asks.
    """
    amounts = {"cpu": cpu, "memory": memory, **({"ephemeral-storage": scratch} if scratch else {})}
    if gpus:
        amounts[GPU] = str(gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def scratch(name: str, size: str, *, memory: bool = False) -> Manifest:
    """Return a volume that lives as long as its pod."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size} if memory else {"sizeLimit": size}}


def claim(name: str, claim_name: str) -> Manifest:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name}}


def mount(name: str, path: str = STORE, *, read_only: bool = False) -> Manifest:
    made: Manifest = {"name": name, "mountPath": path}
    return {**made, "readOnly": True} if read_only else made


def on_gpu_nodes(cluster: KubernetesCluster) -> Manifest:
    """Return the fields of a pod that place it on a node with a GPU."""
    fields: Manifest = {"tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]}
    if cluster.runtime_class:
        fields["runtimeClassName"] = cluster.runtime_class
    if cluster.node_selector:
        fields["nodeSelector"] = dict(cluster.node_selector)
    return fields
