"""Attempts' files on a cluster's volume: mounted, or mirrored through a reader pod.

In the cluster the loop mounts the volume, and `store` is the sweep's store on it. Outside the cluster `store` is a
mirror: appended files are fetched from the last byte received, other files are fetched whole, and all data is checked
against a digest. A mirror is only a cache: it may be deleted, and is filled again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol  # what the reader answers as JSON

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import Api
from gridsweep.executors.kubernetes.reader import Reader
from gridsweep.records.attempts import AttemptFolder, is_step
from gridsweep.records.files import MANIFEST, digest, listed, verify
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.stints import Checkpoint

APPENDED = ("log.txt", "progress.jsonl", "energy.jsonl")
FETCHED = ".fetched"
"""A file of the mirror, written whenever an attempt's files were fetched."""
WHOLE = ("stint.json", "worker.json", "result.json")  # the result last, so that it is the last file in the mirror too


def unlike(mirrored: Path) -> None:
    """Note in the mirror that a file is no regular one on the volume: a folder in its place is refused alike.

    Of appended files nothing is noted, as if they were not there: what they do not tell is counted as missing.
    """
    if mirrored.name in WHOLE and not mirrored.exists():
        mirrored.mkdir()


class Files(Protocol):
    """Access to attempts' files. All methods but `folder` raise `Unreachable` while the volume cannot be reached."""

    store: Path

    def folder(self, attempt: str) -> AttemptFolder: ...

    def as_of(self, attempt: str) -> datetime | None:
        """Return when an attempt's files were last fetched; None if they need no fetching, or never were."""
        ...

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

    def as_of(self, attempt: str) -> datetime | None:
        return None

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
    """A mirror below `store`, filled through a reader pod that is created on demand.

    `purpose` names the reader: one that is used while a loop runs needs another than the loop's, `reader`. Or the
    `reader` itself is given.
    """

    def __init__(
        self,
        store: Path,
        api: Api,
        cluster: KubernetesCluster,
        sweep: str,
        *,
        purpose: str = "reader",
        clock: Callable[[], float] = time.monotonic,
        reader: Reader | None = None,
    ):
        self.store = store
        self.reader = reader or Reader(api, cluster, sweep, purpose=purpose, clock=clock)

    def folder(self, attempt: str) -> AttemptFolder:
        return MirroredFolder(self, attempt)

    def as_of(self, attempt: str) -> datetime | None:
        if (self.store / "stints" / attempt / "result.json").exists():
            return None  # all of it is here
        try:
            seconds = (self.store / FETCHED).stat().st_mtime
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(seconds, UTC)

    def refresh(self, attempt: str) -> None:
        folder = self.store / "stints" / attempt
        if (folder / "result.json").exists():
            return  # the last thing a worker writes
        tree = self._tree(f"stints/{attempt}")
        self.store.mkdir(parents=True, exist_ok=True)
        (self.store / FETCHED).touch()
        if not tree:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*APPENDED, *WHOLE]:
            if name in tree and tree[name][0] < 0:
                unlike(folder / name)
            elif name in tree:
                if (folder / name).is_dir():
                    (folder / name).rmdir()
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
        self.reader.ask("DELETE", "/tree", f"stints/{attempt}/checkpoints")
        shutil.rmtree(self.store / "stints" / attempt / "checkpoints", ignore_errors=True)

    def close(self) -> None:
        """Delete the reader pod, if there is one."""
        self.reader.close()

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
                answer = self.reader.ask("GET", "/file", path, str(start))
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
        answer: dict[str, Any] = self.reader.ask("GET", way, path).json()
        return answer
