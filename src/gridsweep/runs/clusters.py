"""Where `collect` finds a sweep: in a cluster, through reader pods, or on volumes that are folders here."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

from gridsweep.errors import SpecError, word
from gridsweep.executors.kubernetes.api import Api, Forbidden, server_for
from gridsweep.executors.kubernetes.gathering import SETTLE, seen_in
from gridsweep.executors.kubernetes.manifests.bundle import cluster_of
from gridsweep.executors.kubernetes.manifests.names import COMPONENT, SWEEP, label_value
from gridsweep.executors.kubernetes.manifests.roles import Rules
from gridsweep.executors.kubernetes.preflight import missing_rights
from gridsweep.executors.kubernetes.shelves import READER_SECONDS, Claimed, folder_at, journal_at, journal_claim
from gridsweep.records.origins import Origin
from gridsweep.runs import collecting, copying
from gridsweep.runs.collecting import Collection, Place
from gridsweep.runs.folder import RunFolder
from gridsweep.sweep.clusters import Gate, KubernetesCluster
from gridsweep.sweep.sweep import Sweep

RIGHTS: Rules = (
    ("ray.io", "rayjobs", ("list",)),
    ("", "pods", ("list", "get", "create", "delete")),
    ("", "pods/proxy", ("get",)),
)
"""The rights that `collect` needs in a cluster."""


def collect(
    sweep: Sweep,
    folder: Path,
    *,
    gate: Gate | None = None,
    store: Path | None = None,
    journal: Path | None = None,
    ended: bool = False,
    settle: timedelta = SETTLE,
    again: str = "gridsweep collect SPEC",
    api: Api | None = None,
    patience: float = READER_SECONDS,
) -> Collection:
    """Build the run folder of a sweep that was rendered, or bring it up to date.

    With `store` (and `journal`, for a loop in the cluster), volumes are read here and no cluster is asked. `again` is
    the command to name for another collection. A reader pod gets `patience` seconds to start. Raise `SpecError` if
    nothing was found, `ExecutorError` if the cluster or its volume cannot be read.
    """
    cluster, place = cluster_of(sweep, gate), RunFolder(folder)
    loop = cluster.gate == "none"
    collecting.check_kind(place, "copy" if loop else "collected")
    if loop and store is not None and journal is None:
        raise SpecError("with gate: none the journal has a volume of its own; name it with --journal")
    here = place.path / "store"
    if store is not None:
        source = str(journal if loop else store)
        origin = _origin(sweep, cluster, source, again)
        shelf = folder_at(here, store, sweep.name)
        if loop and journal is not None:
            return copying.copy(sweep, place, journal_at(journal), shelf, origin)
        return collecting.collect(sweep, place, Place(cluster.gate, source, shelf, None, ended, settle), origin)
    source = f"the namespace {cluster.namespace}"
    origin = _origin(sweep, cluster, source, again)
    with closing(api or Api(server_for(cluster.context), cluster.namespace)) as asked:
        _check_rights(asked, cluster)
        with closing(Claimed(here, asked, cluster, sweep.name, patience=patience)) as claimed:
            if not loop:
                found = Place(cluster.gate, source, claimed, seen_in(asked, sweep), ended, settle)
                return collecting.collect(sweep, place, found, origin)
            with closing(journal_claim(here, asked, cluster, sweep.name, patience=patience)) as state:
                return copying.copy(sweep, place, state, claimed, origin)


def _origin(sweep: Sweep, cluster: KubernetesCluster, source: str, again: str) -> Origin:
    """Return the mark of the folder: where it comes from, and what to do there instead of driving it here."""
    space = f"kubectl -n {word(cluster.namespace)}"
    mine = f"{SWEEP}={label_value(sweep.name)}"
    if cluster.gate == "none":
        pod = f'"$({space} get pod -o name -l {mine},{COMPONENT}=controller)"'
        return Origin("copy", source, again, f"ask the loop: {space} exec {pod} -- python -m gridsweep stop /state/run")
    there = f"start, suspend or delete its RayJobs with kubectl ({space} get rayjobs -l {mine})"
    return Origin("collected", source, again, there)


def _check_rights(api: Api, cluster: KubernetesCluster) -> None:
    """Raise `Forbidden` with all rights that are missing."""
    if missing := missing_rights(api, RIGHTS):
        raise Forbidden(
            f"our account lacks rights in the namespace {cluster.namespace}: {', '.join(missing)}; "
            "ask for a Role with these verbs, or mount the volume here and use --store"
        )
