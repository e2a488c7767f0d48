"""Attempts' files on a cluster's volume: mounted, or mirrored through a reader pod.

In the cluster the loop mounts the volume, and `store` is the sweep's store on it. Outside the cluster `store` is a
mirror: appended files are fetched from the last byte received, other files are fetched whole, and all data is checked
against a digest. A mirror is only a cache: it may be deleted, and is filled again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from importlib.resources import files as resources_of
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol  # what the API and the reader answer as JSON

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import PODS, Api, Conflict, NotFound, Unreachable
from gridsweep.executors.kubernetes.manifests import pods
from gridsweep.executors.kubernetes.manifests.names import Manifest, labels, metadata, object_name, store_of
from gridsweep.executors.kubernetes.volume_reader import PORT
from gridsweep.records.attempts import AttemptFolder, is_step
from gridsweep.records.files import MANIFEST, digest, listed, verify
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.stints import Checkpoint

if TYPE_CHECKING:
    import httpx2

APPENDED = ("log.txt", "progress.jsonl", "energy.jsonl")
WHOLE = ("stint.json", "worker.json", "result.json")  # the result last, so that it is the last file in the mirror too


class Files(Protocol):
    """Access to attempts' files. All methods but `folder` raise `Unreachable` while the volume cannot be reached."""

    store: Path

    def folder(self, attempt: str) -> AttemptFolder: ...

    def refresh(self, attempt: str) -> None:
        """Fetch new data of an attempt's files."""
        ...

    def bring(self, path: str) -> None:
        """Make sure that a saved folder, named relative to the store, is here and complete."""
        ...

    def forget(self, attempt: str) -> None:
        """Remove an attempt's checkpoints from the volume."""
        ...

    def close(self) -> None: ...


class Mounted:
    """The volume, mounted as a folder of this pod: `GRIDSWEEP_STORE`."""

    def __init__(self, store: Path):
        self.store = store

    def folder(self, attempt: str) -> AttemptFolder:
        return AttemptFolder(self.store / "stints" / attempt)

    def refresh(self, attempt: str) -> None:
        """List the folder, which makes a network share refresh it."""
        folder = self.folder(attempt).path
        if folder.is_dir():
            list(folder.iterdir())

    def bring(self, path: str) -> None:
        """Do nothing: the folder is on the mounted volume."""

    def forget(self, attempt: str) -> None:
        shutil.rmtree(self.folder(attempt).path / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        """Do nothing."""


class MirroredFolder(AttemptFolder):
    """An attempt's folder whose checkpoints stay on the volume and are verified there."""

    def __init__(self, mirror: Mirrored, attempt: str):
        super().__init__(mirror.store / "stints" / attempt)
        self._mirror, self._attempt = mirror, attempt

    def checkpoint(self, experiment: str, at_most: int | None = None) -> Checkpoint | None:
        return self._mirror.checkpoint(self._attempt, experiment, at_most)

    def sibling(self, attempt: str) -> AttemptFolder:
        return MirroredFolder(self._mirror, attempt)

    def _kept(self, name: str, expected: str | None) -> bool:
        found = self._mirror.saved(name)
        return found is not None and expected in (None, found)


class Mirrored:
    """A mirror below `store`, filled through a reader pod that is created on demand."""

    def __init__(self, store: Path, api: Api, cluster: KubernetesCluster, sweep: str):
        self.store, self._api, self._cluster, self._sweep = store, api, cluster, sweep
        self._pod = object_name(sweep, "reader")
        self._key = secrets.token_urlsafe(24)
        self._ready = False

    def folder(self, attempt: str) -> AttemptFolder:
        return MirroredFolder(self, attempt)

    def refresh(self, attempt: str) -> None:
        folder = self.store / "stints" / attempt
        if (folder / "result.json").exists():
            return  # the last thing a worker writes
        tree = self._tree(f"stints/{attempt}")
        if not tree:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*APPENDED, *WHOLE]:
            if name in tree:
                self._follow(f"stints/{attempt}/{name}", *tree[name], whole=name in WHOLE)
        os.utime(folder, (tree[""][1], tree[""][1]))

    def bring(self, path: str) -> None:
        """Fetch a saved folder. Raise `ExecutorError` if the files on the volume differ from what was saved."""
        final = self.store / path
        if final.exists():
            return
        draft = final.with_name(f".{final.name}")
        sums = self._json("/sums", path)
        for name in sums:
            self._follow(f"{path}/{name}", 0, 0.0, whole=True, to=draft / name)
        same = all(hashlib.sha256((draft / name).read_bytes()).hexdigest() == sha for name, sha in sums.items())
        if not sums or not same or (MANIFEST in sums and not verify(draft)):
            shutil.rmtree(draft, ignore_errors=True)
            raise ExecutorError(
                f"{path} on the volume differs from the saved files; inspect it there, or run the experiment again"
            )
        draft.rename(final)

    def checkpoint(self, attempt: str, experiment: str, at_most: int | None = None) -> Checkpoint | None:
        """Return the newest checkpoint whose files match its manifest; the reader pod computes their digests."""
        place = f"stints/{attempt}/checkpoints"
        names = {name.partition("/")[0] for name in self._tree(place)}
        for step in sorted((int(name) for name in names if is_step(name)), reverse=True):
            path = f"{place}/{step}/{experiment}"
            if (at_most is None or step <= at_most) and (found := self.saved(path)) is not None:
                return Checkpoint(experiment, step, path, found)
        return None

    def saved(self, path: str) -> str | None:
        """Return the digest of a saved folder whose files on the volume match its manifest; None if they do not."""
        sums = self._json("/sums", path)
        if MANIFEST not in sums:
            return None
        with TemporaryDirectory() as folder:
            self._follow(f"{path}/{MANIFEST}", 0, 0.0, whole=True, to=Path(folder) / MANIFEST)
            try:
                wanted = listed(Path(folder))
            except (OSError, ValueError):
                return None
            return digest(Path(folder)) if all(sums.get(name) == sha for name, sha in wanted.items()) else None

    def forget(self, attempt: str) -> None:
        self._ask("DELETE", "/tree", f"stints/{attempt}/checkpoints")
        shutil.rmtree(self.store / "stints" / attempt / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        """Delete the reader pod, which otherwise exits after an hour without requests."""
        self._ready = False
        with suppress(Unreachable):
            self._remove()

    # -- requests to the reader

    def _tree(self, path: str) -> dict[str, tuple[int, float]]:
        return {name: (int(size), float(at)) for name, (size, at) in self._json("/tree", path).items()}

    def _follow(self, path: str, size: int, at: float, *, whole: bool, to: Path | None = None) -> None:
        """Append new data of a file; with `whole`, fetch the complete file and rename it into place."""
        final = to or self.store / path
        have = final.stat().st_size if final.exists() else 0
        if size and (have == size or (whole and have)):
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        target = final.with_name(f".{final.name}.part") if whole else final
        start = 0 if whole or have > size else have
        with target.open("wb" if start == 0 else "ab") as file:
            while True:
                answer = self._ask("GET", "/file", path, str(start))
                file.write(answer.content)
                start += len(answer.content)
                if not answer.content or start >= int(answer.headers["X-Size"]):
                    break
        if at:
            os.utime(target, (at, at))
        if whole:
            target.rename(final)

    def _json(self, way: str, path: str) -> dict[str, Any]:
        """Return an answer as JSON; empty if there is no such folder."""
        answer: dict[str, Any] = self._ask("GET", way, path).json()
        return answer

    def _ask(self, method: str, way: str, path: str, at: str = "0") -> httpx2.Response:
        """Return an answer of the reader, checked against its digest; create the reader if there is none."""
        if not self._ready:
            self._wake_reader()
        try:
            answer = self._api.proxy(method, self._pod, PORT, way, {"path": path, "at": at}, self._key)
        except (NotFound, Conflict, Unreachable) as error:
            self._ready = False
            if isinstance(error, Conflict):  # a reader of an earlier run, with another key
                self._remove()
            raise Unreachable(f"the pod {self._pod}, which reads the volume to us, does not answer") from None
        if hashlib.sha256(answer.content).hexdigest() != answer.headers.get("X-Digest"):
            raise Unreachable(f"{path} was garbled on its way from the volume")
        return answer

    def _wake_reader(self) -> None:
        """Create the reader if needed. Raise `Unreachable` until it runs."""
        try:
            status = self._api.get(PODS, self._pod).get("status") or {}
        except NotFound:
            status = {}
            with suppress(Conflict):  # created meanwhile, or by a request whose answer was late
                self._api.create(PODS, reader_pod(self._cluster, self._sweep, self._pod, self._key))
        if status.get("phase") in ("Succeeded", "Failed"):
            self._remove()
        self._ready = status.get("phase") == "Running"
        if not self._ready:
            raise Unreachable(f"the pod {self._pod}, which reads the volume to us, starts{_why(status)}")

    def _remove(self) -> None:
        with suppress(NotFound):
            self._api.delete(PODS, self._pod)


def _why(status: dict[str, Any]) -> str:
    messages = [c["message"] for c in status.get("conditions") or () if c.get("status") == "False" and c.get("message")]
    return f" ({messages[0]})" if messages else ""


def reader_pod(cluster: KubernetesCluster, sweep: str, name: str, key: str) -> Manifest:
    """Return the manifest of the reader pod, which gets only the digest of the key."""
    source = resources_of("gridsweep.executors.kubernetes").joinpath("volume_reader.py").read_text(encoding="utf-8")
    variables = pods.environment(
        GRIDSWEEP_READER=source,
        GRIDSWEEP_READER_LOCK=hashlib.sha256(key.encode()).hexdigest(),
        GRIDSWEEP_STORE=store_of(sweep),
        HOME="/tmp",
        PYTHONDONTWRITEBYTECODE="1",
    )
    container: Manifest = {
        "name": "reader",
        "image": cluster.image,
        "command": ["python", "-c", 'import os; exec(os.environ["GRIDSWEEP_READER"])'],
        "env": variables,
        "ports": [{"containerPort": PORT}],
        "resources": pods.resources("250m", "512Mi", scratch="1Gi"),
        "securityContext": pods.container_security(),
        "volumeMounts": [pods.mount("store"), pods.mount("tmp", "/tmp")],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(cluster.namespace, name, labels(sweep, "reader")),
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": pods.security(),
            "containers": [container],
            "volumes": [pods.claim("store", cluster.volume), pods.scratch("tmp", "512Mi")],
        },
    }
