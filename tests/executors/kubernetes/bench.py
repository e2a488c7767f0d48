"""A cluster of doubles with executors over it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gridsweep.executors.kubernetes.api import Api, Server
from gridsweep.executors.kubernetes.executor import Kubernetes
from gridsweep.executors.kubernetes.manifests.names import dns_label
from gridsweep.executors.kubernetes.volume import Mirrored, Mounted
from gridsweep.grid.registry import provider_for
from gridsweep.loop import drive
from gridsweep.policy.registry import policy_for
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.run import opening
from gridsweep.runs.worlds import Replayed
from gridsweep.state.state import State
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.sweep import Sweep
from gridsweep.testing.executor_contract import Bench
from gridsweep.testing.kubernetes.operator import Cluster
from gridsweep.testing.kubernetes.processes import Kubelet
from gridsweep.testing.kubernetes.server import ApiServer

CLUSTER = KubernetesCluster()


def api_of(server: ApiServer, **changes) -> Api:
    return Api(Server(server.url, trust_env=False), CLUSTER.namespace, **{"patience": 5.0, **changes})


class KubernetesBench(Bench):
    """Real workers in the double's pods; files through a mount, or through the reader pod."""

    def __init__(self, tmp: Path, *, mounted: bool, sweep: str = "contract"):
        self.volume, self.sweep, self.mounted = tmp / "volume", sweep, mounted
        super().__init__(self.volume / dns_label(sweep) if mounted else tmp / "mirror")
        (self.volume / dns_label(sweep)).mkdir(parents=True)
        self.server = ApiServer()
        self.kubelet = Kubelet(self.volume, tmp / "pods")
        self.cluster = Cluster(self.server, self.kubelet, grace=1.5)
        self.stack = ExitStack()
        self.executors: list[Kubernetes] = []

    def __enter__(self) -> KubernetesBench:
        self.stack.enter_context(self.server)
        self.stack.enter_context(self.cluster.running())
        return self

    def __exit__(self, *_: object) -> None:
        for executor in self.executors:
            executor.close()
        for thread in threading.enumerate():
            while thread.name.startswith("watch ") and thread.is_alive():
                self.server.drop_watches()
                thread.join(0.05)
        for executor in self.executors:
            executor.api.close()
        self.stack.close()

    def executor(self, command: Sequence[str]) -> Kubernetes:
        self.kubelet.command = tuple(command)
        api = api_of(self.server)
        files = Mounted(self.store) if self.mounted else Mirrored(self.store, api, CLUSTER, self.sweep)
        made = Kubernetes(CLUSTER, api, files, relist=1.0, settle=0.3)
        self.executors.append(made)
        return made

    def kill(self, attempt: str) -> None:
        self.cluster.kill(attempt)


def drive_sweep(sweep: Sweep, folder: Path, server: ApiServer, mounted: Path | None = None) -> State:
    """What `run` does, on the double: take the folder, go on with its journal, drive to the end."""
    place = RunFolder(folder)
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        api = api_of(server)
        try:
            state = State(journal.events())
            opened = opening(state, sweep, journal.epoch or epoch)
            journal.extend(opened)
            for event in opened:
                state.apply(event)
            files = Mounted(mounted) if mounted else Mirrored(place.store, api, CLUSTER, sweep.name)
            executor = Kubernetes(CLUSTER, api, files, relist=1.0, settle=0.5)
            assert sweep.replay
            world = Replayed(sweep.replay, provider_for(sweep.carbon), executor)
            return drive(state, journal, world, policy_for(sweep.policy))
        finally:
            api.close()
            journal.close()
