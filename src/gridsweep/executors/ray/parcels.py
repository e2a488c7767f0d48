"""File transfer as an index of names and pieces named by their digest, in both directions; standard library only.

Only changed pieces are sent again, and data that differs from what was sent is refused. An index is
`{"files": {name: {"size": bytes, "mtime": seconds, "pieces": [sha256, ...]}}, ...}`; names are relative to a root.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any  # an index as JSON

PIECE = 1 << 20
GROWING_PIECE = 1 << 16
"""The piece size of appended files: smaller, because the last piece is sent again whenever the file grows."""
GROWING = (".jsonl", ".txt")
LOG_LIMIT = 16 << 20
"""The most bytes of a log that are transferred."""
KEEP_SECONDS = 60.0
"""Seconds a piece outlives its index, because a fetch may be in progress."""

Index = dict[str, Any]


class Damaged(Exception):
    """The received data differs from what was sent."""


class Packer:
    """Packs files below a root repeatedly; each time it reads only what changed since the last."""

    def __init__(self, root: Path, keep: Callable[[str, bytes], None]):
        self.root, self.keep = root, keep
        self._known: dict[str, tuple[tuple[int, int, int], list[str]]] = {}

    def pack(self, *names: str) -> Index:
        """Return the index of these files; by default all but drafts, which have a path part that starts with a dot."""
        return {"files": {name: self._entry(name) for name in names or self._names()}}

    def _names(self) -> list[str]:
        names = []
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root)
            if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in name.parts):
                names.append(str(name))
        return names

    def _entry(self, name: str) -> Mapping[str, Any]:
        growing = name.endswith(GROWING)
        length = GROWING_PIECE if growing else PIECE
        with (self.root / name).open("rb") as file:
            status = os.fstat(file.fileno())
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            known, pieces = self._known.get(name, ((0, 0, 0), []))
            if mark != known:
                whole = known[2] // length if growing and known[0] == mark[0] and known[2] <= mark[2] else 0
                pieces = pieces[:whole]
                file.seek(whole * length)
                left = min(status.st_size, LOG_LIMIT if name.endswith(".txt") else status.st_size) - whole * length
                while left > 0 and (data := file.read(min(length, left))):
                    pieces.append(sha256(data))
                    self.keep(pieces[-1], data)
                    left -= len(data)
                self._known[name] = (mark, pieces)
        return {"size": status.st_size, "mtime": status.st_mtime, "pieces": list(pieces)}


class Outbox:
    """A folder that holds the index of a root and its pieces, for a remote reader to fetch."""

    def __init__(self, root: Path, folder: Path):
        self.folder = folder
        (folder / "pieces").mkdir(parents=True, exist_ok=True)
        self._packer = Packer(root, self._keep)
        self._last: Index = {}
        self._left: dict[str, float] = {}

    def _keep(self, name: str, data: bytes) -> None:
        replace_file(self.folder / "pieces" / name, data)

    def put(self, **facts: object) -> None:
        """Update the index to the present files, and delete pieces that are no longer needed."""
        try:
            index = {**self._packer.pack(), **facts}
        except FileNotFoundError:
            return  # a file was removed meanwhile: the next call picks it up
        if index != self._last:
            replace_file(self.folder / "index.json", json.dumps(index).encode())
            self._last = index
        used = {piece for entry in index["files"].values() for piece in entry["pieces"]}
        moment = time.monotonic()
        for path in (self.folder / "pieces").iterdir():
            if path.name in used:
                self._left.pop(path.name, None)
            elif moment - self._left.setdefault(path.name, moment) > KEEP_SECONDS:
                path.unlink()
                del self._left[path.name]


def unpack(index: Index, root: Path, fetch: Callable[[str], bytes], before: Index | None = None) -> None:
    """Make the files below `root` match an index; `before` is the index that was last unpacked there.

    Only pieces that are not there already are fetched. Raise `Damaged` if a piece does not match its digest, or if a
    file would lie outside `root`.
    """
    old = (before or {}).get("files", {})
    files = index["files"]
    for name, entry in files.items():
        path = root / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Damaged(f"a file named {name!r} would lie outside")
        if not path.exists() or old.get(name, {}).get("pieces") != entry["pieces"]:
            there = path.read_bytes() if name.endswith(GROWING) and path.exists() else b""
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.part")
            with draft.open("wb") as file:
                for number, piece in enumerate(entry["pieces"]):
                    data = there[number * GROWING_PIECE : (number + 1) * GROWING_PIECE]
                    if sha256(data) != piece and sha256(data := fetch(piece)) != piece:
                        raise Damaged(f"a piece of {name} differs from the sent data")
                    file.write(data)
            draft.rename(path)
        os.utime(path, (entry["mtime"], entry["mtime"]))  # keep the worker's times
    for name in set(old) - set(files):
        (root / name).unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    """Return the name of a piece: its SHA-256 digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically, by rename."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(data)
    draft.rename(path)
