"""How files travel: an index of names, and pieces named by their digest. The same both ways; standard library only.

What is sent again is only what changed, and what arrives is what was sent, or it is refused. An index is
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
"""Files that are appended to are cut finer: their last piece travels again whenever they grow."""
GROWING = (".jsonl", ".txt")
LOG_LIMIT = 16 << 20
"""So much of a log travels, and no more."""
KEEP_SECONDS = 60.0
"""A piece outlives its index by so long: somebody may just be fetching it."""

Index = dict[str, Any]


class Damaged(Exception):
    """What arrived is not what was sent."""


class Packer:
    """Packs files below a root again and again; only what changed since the last time is read."""

    def __init__(self, root: Path, keep: Callable[[str, bytes], None]):
        self.root, self.keep = root, keep
        self._known: dict[str, tuple[tuple[int, int, int], list[str]]] = {}

    def pack(self, *names: str) -> Index:
        """The index of these files (default: of all but those still being written, whose path has a dot in front)."""
        return {"files": {name: self._entry(name) for name in names or self._names()}}

    def _names(self) -> list[str]:
        names = []
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
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
    """A folder that holds the index of a root and its pieces, for somebody else to fetch."""

    def __init__(self, root: Path, folder: Path):
        self.folder = folder
        (folder / "pieces").mkdir(parents=True, exist_ok=True)
        self._packer = Packer(root, self._keep)
        self._last: Index = {}
        self._left: dict[str, float] = {}

    def _keep(self, name: str, data: bytes) -> None:
        replace_file(self.folder / "pieces" / name, data)

    def put(self, **facts: object) -> None:
        """Make the index say what the files are now, and forget pieces nobody can want any more."""
        try:
            index = {**self._packer.pack(), **facts}
        except FileNotFoundError:
            return  # something was removed meanwhile: the next time will tell
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
    """Make the files below `root` those of an index; `before` is the index that was unpacked there last.

    Fetches only pieces that are not there already. Raises `Damaged` for a piece that is not what its name says, or a
    file that would lie outside.
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
                        raise Damaged(f"a piece of {name} is not what was sent")
                    file.write(data)
            draft.rename(path)
        os.utime(path, (entry["mtime"], entry["mtime"]))  # the times are those of the worker
    for name in set(old) - set(files):
        (root / name).unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    """The name of a piece."""
    return hashlib.sha256(data).hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(data)
    draft.rename(path)
