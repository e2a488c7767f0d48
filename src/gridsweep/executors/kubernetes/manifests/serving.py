"""Adapters on a volume served by vLLM: a Deployment and its objects; the base model comes from the workers' cache.

Also a pod that only mounts the volume, to look at files or to copy them: `kubectl exec`, `kubectl cp`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.names import (
    COMPONENT,
    MANAGED_BY,
    MODELS,
    NAME,
    STORE,
    Manifest,
    metadata,
)
from gridsweep.executors.kubernetes.manifests.network import HTTPS, policy
from gridsweep.executors.kubernetes.manifests.pods import (
    claim,
    container_security,
    environment,
    mount,
    on_gpu_nodes,
    resources,
    scratch,
    secret,
    security,
)
from gridsweep.executors.kubernetes.manifests.storage import base_bytes
from gridsweep.sweep.clusters import KubernetesCluster

IMAGE = "docker.io/vllm/vllm-openai:v0.33.0"
PORT = 8000
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values vLLM allows for the largest rank; a value larger than needed costs GPU memory."""
MOST_LOADED = 8  # adapters on the GPU at once; others wait in the host's memory
DOWNLOAD_BYTES_PER_S = 25e6
LOAD_SECONDS = 600
PROBE_SECONDS = 10
SERVER = "gridsweep-serving"
"""The name of the server's objects, and of the Secret with its key."""
KEY = "API_KEY"
BROWSE_SECONDS = 3600
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def serving(
    base_model: str,
    revision: str | None,
    adapters: Mapping[str, str],
    ranks: Iterable[int],
    cluster: KubernetesCluster,
    *,
    name: str = SERVER,
    image: str = IMAGE,
    max_model_len: int | None = 16384,
    api_key_secret: str | None = None,
) -> list[Manifest]:
    """Return all objects of a server for `adapters`, a mapping of names to paths on the volume.

    The API key is read from the Secret `api_key_secret` (default: the server's name), which is not created here.
    Raise `SpecError` for a name or a path that vLLM could not read, and for a rank vLLM does not allow.
    """
    own = {NAME: "gridsweep", COMPONENT: "serving", MANAGED_BY: "gridsweep", "app.kubernetes.io/instance": name}
    selected = {key: own[key] for key in own if key != MANAGED_BY}
    arguments = _arguments(base_model, revision, adapters, max_rank(ranks), max_model_len)
    pod = _pod(base_model, arguments, cluster, image, api_key_secret or name)
    anyone_here = [{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": PORT}]}]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(cluster.namespace, name, own),
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},  # a second pod would wait forever for the first one's GPU
                "progressDeadlineSeconds": startup_seconds(base_model) + 600,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selected},
                "template": {"metadata": {"labels": own}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(cluster.namespace, name, own),
            "spec": {
                "type": "ClusterIP",
                "selector": selected,
                "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(cluster.namespace, name, own),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": selected}},
        },
        policy(cluster, name, selected, anyone_here, [HTTPS], own),
    ]


def browser(cluster: KubernetesCluster, name: str = f"{SERVER}-browse") -> Manifest:
    """Return a pod with the volume at /store that does nothing, and ends after an hour; it has no token and no GPU."""
    own = {NAME: "gridsweep", COMPONENT: "browse", MANAGED_BY: "gridsweep"}
    container: Manifest = {
        "name": "browse",
        "image": cluster.image,
        "command": ["sleep", str(BROWSE_SECONDS)],
        "env": environment(HOME="/tmp"),
        "resources": resources("100m", "128Mi", scratch="1Gi"),
        "securityContext": container_security(),
        "volumeMounts": [mount("store"), mount("tmp", "/tmp")],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(cluster.namespace, name, own),
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": security(),
            "containers": [container],
            "volumes": [claim("store", cluster.volume), scratch("tmp", "512Mi")],
        },
    }


def max_rank(ranks: Iterable[int]) -> int:
    """Return the smallest rank vLLM allows that fits all ranks. Raise `SpecError` if there is none."""
    needed = max(ranks, default=1)
    for allowed in RANKS:
        if allowed >= needed:
            return allowed
    raise SpecError(f"an adapter has rank {needed}; vLLM serves at most {RANKS[-1]}: merge it into its base instead")


def startup_seconds(base_model: str) -> int:
    """Return the seconds a first start may take: the download of the base at 25 MB/s, and its loading."""
    return math.ceil(base_bytes(base_model) / DOWNLOAD_BYTES_PER_S) + LOAD_SECONDS


def _arguments(
    base_model: str, revision: str | None, adapters: Mapping[str, str], rank: int, max_model_len: int | None
) -> list[str]:
    if not adapters:
        raise SpecError("there is no adapter to serve; name at least one")
    for name in adapters:
        if not _NAME.fullmatch(name):
            raise SpecError(f"an adapter cannot be called {name!r}; use letters, digits, '.', '-' and '_'")
    found = {name: path if path.startswith("/") else f"{STORE}/{path}" for name, path in adapters.items()}
    for name, path in found.items():
        if not path.startswith(f"{STORE}/") or ".." in path.split("/"):
            raise SpecError(f"the adapter {name} lies in {path}, which is not on the volume ({STORE})")
    return [
        base_model,
        *(["--revision", revision] if revision else []),
        *("--host", "0.0.0.0", "--port", str(PORT)),
        *(["--max-model-len", str(max_model_len)] if max_model_len else []),
        "--enable-lora",
        *("--max-lora-rank", str(rank)),
        *("--max-loras", str(min(len(found), MOST_LOADED))),
        *("--max-cpu-loras", str(len(found))),
        *("--lora-modules", *(f"{name}={path}" for name, path in found.items())),
    ]


def _pod(base_model: str, arguments: list[str], cluster: KubernetesCluster, image: str, key_secret: str) -> Manifest:
    health = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5, "periodSeconds": PROBE_SECONDS}
    token = cluster.hugging_face_secret
    container = {
        "name": "vllm",
        "image": image,
        "command": ["vllm", "serve"],
        "args": arguments,
        "env": [
            *environment(
                HF_HOME=MODELS,
                HF_HUB_DISABLE_TELEMETRY="1",
                VLLM_NO_USAGE_STATS="1",
                HOME="/tmp",
                USER="vllm",  # the user id is not in the image's passwd file, and torch asks for a name
                TORCHINDUCTOR_CACHE_DIR="/tmp/inductor",
                TRITON_CACHE_DIR="/tmp/triton",
                VLLM_CACHE_ROOT="/tmp/vllm",
            ),
            secret("VLLM_API_KEY", key_secret, KEY),
            *([secret("HF_TOKEN", token, "HF_TOKEN")] if token else []),
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": resources(cluster.cpu, cluster.memory, gpus=1, scratch="20Gi"),
        "securityContext": container_security(),
        # The other probes begin after the first success here; too short a limit would kill the server while it loads.
        "startupProbe": {**health, "failureThreshold": math.ceil(startup_seconds(base_model) / PROBE_SECONDS)},
        "readinessProbe": {**health, "failureThreshold": 3},
        "livenessProbe": {**health, "failureThreshold": 6},
        "volumeMounts": [
            mount("store", read_only=True),
            {**mount("store", MODELS), "subPath": MODELS.removeprefix(f"{STORE}/")},
            mount("tmp", "/tmp"),
            mount("shm", "/dev/shm"),
        ],
    }
    return {
        **on_gpu_nodes(cluster),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called vllm would set VLLM_PORT, which vLLM reads as its own
        "terminationGracePeriodSeconds": 60,
        "securityContext": security(),
        "containers": [container],
        "volumes": [claim("store", cluster.volume), scratch("tmp", "16Gi"), scratch("shm", "4Gi", memory=True)],
    }
