"""Construction of the executor that a spec names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gridsweep.errors import ExecutorError
from gridsweep.executors import local
from gridsweep.executors.local import Local
from gridsweep.executors.workers import Workers
from gridsweep.sweep.clusters import KubernetesCluster, RayCluster
from gridsweep.sweep.sweep import Sweep

STORE = "GRIDSWEEP_STORE"
"""Where the volume of a Kubernetes cluster is mounted, for a loop that runs inside it."""


def executor_for(sweep: Sweep, store: Path, command: Sequence[str] = local.WORKER) -> Workers:
    """Return the executor of a sweep over its store; `command` starts a worker on an attempt folder.

    Raise `ExecutorError` if the store is not in the folder that the spec says is shared with the cluster.
    """
    choice = sweep.executor
    if choice.name == "ray":
        from gridsweep.executors.ray import executor as ray

        cluster = choice.ray or RayCluster()
        if cluster.shared is not None:
            share(store, Path(cluster.shared), sweep.name)
        return ray.Ray(store, cluster, ray.WORKER if tuple(command) == local.WORKER else command)
    if choice.name == "kubernetes":
        from gridsweep.executors.kubernetes import executor as kubernetes
        from gridsweep.executors.kubernetes.api import Api, server_for
        from gridsweep.executors.kubernetes.volume import Mirrored, Mounted

        where = choice.kubernetes or KubernetesCluster()
        api = Api(server_for(where.context), where.namespace)
        mounted = os.environ.get(STORE)
        files = Mounted(Path(mounted)) if mounted else Mirrored(store, api, where, sweep.name)
        return kubernetes.Kubernetes(where, api, files)
    return Local(store, command)


def share(store: Path, shared: Path, name: str) -> None:
    """Place the store in a folder shared with the cluster; a new store becomes a link into that folder.

    Raise `ExecutorError` if the folder is missing, belongs to another run, or does not contain an existing store.
    """
    if not shared.is_dir():
        raise ExecutorError(f"{shared} is no folder here; mount what the cluster shares there, or change `shared`")
    if not store.exists():
        place = shared / f"{name}-{store.parent.resolve().name}"
        try:
            place.mkdir()
            store.parent.mkdir(parents=True, exist_ok=True)
            store.symlink_to(place.resolve())
        except FileExistsError:
            raise ExecutorError(f"{place} belongs to another run; remove it, or choose another --folder") from None
        except OSError as error:
            raise ExecutorError(f"cannot make {place}: {error.strerror or error}") from None
    if not store.resolve().is_relative_to(shared.resolve()):
        raise ExecutorError(f"{store} does not lie in {shared}; choose another --folder, or take `shared` out")
