"""The volumes of a sweep that another component drives, read from a laptop: through a reader pod, or as a folder here.

Nothing on a volume is changed. `store` is a local mirror, as for the loop outside a cluster (`volume.Mirrored`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol  # a Kubernetes object

from gridsweep.errors import ExecutorError, SpecError
from gridsweep.executors.kubernetes.api import PODS, Api, Unreachable
from gridsweep.executors.kubernetes.manifests import pods
from gridsweep.executors.kubernetes.manifests.controller import STATE
from gridsweep.executors.kubernetes.manifests.names import (
    COMPONENT,
    SWEEP,
    Manifest,
    dns_label,
    label_value,
    object_name,
)
from gridsweep.executors.kubernetes.reader import Reader, sealed, unsealed
from gridsweep.executors.kubernetes.volume import APPENDED, WHOLE, Files, Mirrored, unlike
from gridsweep.records.attempts import AttemptFolder, is_step
from gridsweep.records.bounded import UnfitError, inside, regular
from gridsweep.records.files import copied, verify
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.stints import Checkpoint

if TYPE_CHECKING:
    import httpx2

READER_SECONDS = 180.0
"""Seconds in which a reader pod must start; its image may have to be pulled."""
PAUSE_SECONDS = 1.0


class Shelf(Files, Protocol):
    """A volume that is only read: `Files`, a list of the attempts on it, and single files."""

    def attempts(self) -> list[str]:
        """Return the names of all attempts whose folders are on the volume: `STINT/NUMBER`."""
        ...

    def holds(self, path: str) -> bool:
        """Return whether a file, or a folder with files, is on the volume."""
        ...

    def fetch(self, path: str, to: Path) -> None:
        """Copy one file of the volume to a path here, replacing what is there."""
        ...


class PatientReader(Reader):
    """A reader that waits until its pod has started, at most `patience` seconds."""

    def __init__(
        self,
        api: Api,
        cluster: KubernetesCluster,
        sweep: str,
        *,
        purpose: str,
        patience: float,
        made: Callable[[str, str], Manifest] | None = None,
    ):
        super().__init__(api, cluster, sweep, purpose=purpose, made=made)
        self._patience = patience

    def ask(self, method: str, way: str, path: str, at: str = "0") -> httpx2.Response:
        end = time.monotonic() + self._patience
        while True:
            try:
                return super().ask(method, way, path, at)
            except Unreachable:
                if time.monotonic() > end:
                    raise
            time.sleep(PAUSE_SECONDS)


class Claimed(Mirrored):
    """A claim, read through a reader pod; by default that of the store."""

    def __init__(
        self,
        store: Path,
        api: Api,
        cluster: KubernetesCluster,
        sweep: str,
        *,
        patience: float = READER_SECONDS,
        reader: Reader | None = None,
    ):
        reader = reader or PatientReader(api, cluster, sweep, purpose="collect", patience=patience)
        super().__init__(store, api, cluster, sweep, reader=reader)

    def attempts(self) -> list[str]:
        return _attempts(self._tree("stints"))

    def holds(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        return name in self._tree(parent) or bool(self._tree(path))

    def fetch(self, path: str, to: Path) -> None:
        to.unlink(missing_ok=True)
        self._follow(path, 0, 0.0, whole=True, to=to)


def journal_claim(
    store: Path, api: Api, cluster: KubernetesCluster, sweep: str, *, patience: float = READER_SECONDS
) -> Claimed:
    """Return the journal's claim of a loop that runs in the cluster; paths are below its mount.

    The claim is ReadWriteOnce: while the loop's pod runs, the reader must be on the same node, and mounts it read-only.
    Raise `Unreachable` if the cluster does not answer.
    """
    found, _ = api.list(PODS, f"{SWEEP}={label_value(sweep)},{COMPONENT}=controller")
    beside = any((pod.get("status") or {}).get("phase") in ("Pending", "Running") for pod in found)
    made = partial(journal_reader, cluster, sweep, beside=beside)
    reader = PatientReader(api, cluster, sweep, purpose="journal-reader", patience=patience, made=made)
    return Claimed(store, api, cluster, sweep, reader=reader)


def journal_reader(cluster: KubernetesCluster, sweep: str, name: str, key: str, *, beside: bool) -> dict[str, Any]:
    """Return the reader pod of the journal's claim; `beside`: on the node of the loop's pod."""
    made = unsealed(cluster, sweep, name, key)
    spec = made["spec"]
    (container,) = spec["containers"]
    told = pods.environment(GRIDSWEEP_STORE=STATE)
    container["env"] = [*(v for v in container["env"] if v["name"] != "GRIDSWEEP_STORE"), *told]
    container["volumeMounts"] = [pods.mount("state", STATE, read_only=True), pods.mount("tmp", "/tmp")]
    spec["volumes"] = [pods.claim("state", object_name(sweep, "journal")), pods.scratch("tmp", "512Mi")]
    made["metadata"]["labels"][COMPONENT] = "journal-reader"
    spec["securityContext"].pop("fsGroupChangePolicy", None)  # a read-only mount cannot change owners
    if beside:
        loop = {SWEEP: label_value(sweep), COMPONENT: "controller"}
        term = {"labelSelector": {"matchLabels": loop}, "topologyKey": "kubernetes.io/hostname"}
        spec["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return sealed(made, cluster)


class CopiedFolder(AttemptFolder):
    """An attempt's mirrored folder whose checkpoints and adapters are verified where they lie."""

    def __init__(self, shelf: Folder, attempt: str):
        super().__init__(shelf.store / "stints" / attempt)
        self._shelf, self._there = shelf, AttemptFolder(shelf.root / "stints" / attempt)

    def checkpoint(self, experiment: str, at_most: int | None = None) -> Checkpoint | None:
        return self._there.checkpoint(experiment, at_most)

    def sibling(self, attempt: str) -> AttemptFolder:
        return CopiedFolder(self._shelf, attempt)

    def _kept(self, name: str, expected: str | None) -> bool:
        return verify(inside(self._shelf.root, name), expected)


class Folder:
    """A volume as a folder of this machine: mounted here, or a copy of it. `root` is only read."""

    def __init__(self, store: Path, root: Path):
        self.store, self.root = store, root

    def folder(self, attempt: str) -> AttemptFolder:
        return CopiedFolder(self, attempt)

    def as_of(self, attempt: str) -> datetime | None:
        return None

    def attempts(self) -> list[str]:
        stints = self.root / "stints"
        return _attempts(
            str(path.relative_to(stints))
            for stint in (stints.iterdir() if stints.is_dir() else ())
            if stint.is_dir()
            for path in stint.glob("*/*")
        )

    def holds(self, path: str) -> bool:
        found = self.root / path
        return found.is_file() or (found.is_dir() and any(found.iterdir()))

    def fetch(self, path: str, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        with regular(inside(self.root, path)) as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)

    def refresh(self, attempt: str) -> None:
        here, there = self.store / "stints" / attempt, self.root / "stints" / attempt
        if (here / "result.json").exists() or not there.is_dir():
            return  # the last thing a worker writes
        here.mkdir(parents=True, exist_ok=True)
        for name in (*APPENDED, *WHOLE):
            with suppress(FileNotFoundError):
                seen = (there / name).lstat()
                draft = here / f".{name}.part"
                try:
                    self.fetch(f"stints/{attempt}/{name}", draft)
                except UnfitError:
                    draft.unlink(missing_ok=True)
                    unlike(here / name)
                    continue
                if (here / name).is_dir():
                    (here / name).rmdir()
                os.utime(draft, (seen.st_atime, seen.st_mtime))
                draft.rename(here / name)
        seen = there.stat()
        os.utime(here, (seen.st_atime, seen.st_mtime))

    def bring(self, path: str) -> None:
        final = self.store / path
        if final.exists():
            return
        draft = final.with_name(f".{final.name}")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            copied(inside(self.root, path), draft)
        except (OSError, ValueError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise ExecutorError(f"{path} in {self.root} differs from the saved files: {error}") from None
        draft.rename(final)

    def forget(self, attempt: str) -> None:
        """Do nothing: the volume is not ours to change."""

    def close(self) -> None:
        """Do nothing."""


def folder_at(store: Path, root: Path, sweep: str) -> Folder:
    """Return the volume in a folder, which is a sweep's store or holds it. Raise `SpecError` if it is neither."""
    for found in (root / dns_label(sweep), root):
        if (found / "stints").is_dir():
            return Folder(store, found)
    if root.is_dir():
        return Folder(store, root / dns_label(sweep))
    raise SpecError(f"{root} is no folder; name where the volume is mounted, or a copy of it")


def journal_at(root: Path) -> Folder:
    """Return the journal's volume in a folder: it, or its folder `run`. Raise `SpecError` if it is neither."""
    if (root / "run" / "state" / "journal.db").is_file():
        return Folder(root, root)
    raise SpecError(f"{root} holds no run/state/journal.db; name where the journal's volume is mounted, or a copy")


def _attempts(names: Iterable[str]) -> list[str]:
    """Return the attempts of the files below `stints`."""
    parts = (name.split("/") for name in names)
    found = {(p[0], int(p[1])) for p in parts if len(p) > 2 and is_step(p[1]) and not p[0].startswith(".")}
    return [f"{stint}/{number}" for stint, number in sorted(found)]
