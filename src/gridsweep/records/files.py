"""Atomic writing of files, and digests of folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from gridsweep.records.bounded import MEBIBYTE, UnfitError, below, inside, regular, said, whole
from gridsweep.records.disk import patiently

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 4 * MEBIBYTE
SAVED = 256 * 1024 * MEBIBYTE
"""The largest saved folder: an adapter of every weight of a 70B model, with its optimizer's state, is smaller."""


@contextmanager
def appearing(final: Path, step: int) -> Iterator[Path]:
    """Yield a draft folder that gets a manifest and is renamed to `final` if the block succeeds."""
    draft = final.with_name(f".{final.name}")
    shutil.rmtree(draft, ignore_errors=True)
    patiently(lambda: draft.mkdir(parents=True, exist_ok=True))
    yield draft
    files = {str(p.relative_to(draft)): file_digest(p) for p in sorted(draft.rglob("*")) if p.is_file()}
    write_file(draft / MANIFEST, json.dumps({"step": step, "files": files}, indent=1))
    sync(draft)
    if final.exists():
        remove(final)
    patiently(lambda: draft.rename(final))
    sync(final.parent)


def remove(folder: Path) -> None:
    """Remove a folder as far as the disk allows; what a kill leaves of it does not bear its name."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        patiently(lambda: folder.rename(gone))
        folder = gone
    shutil.rmtree(folder, ignore_errors=True)


def digest(folder: Path) -> str:
    """Return the digest of a saved folder: the digest of its manifest, which holds those of its files."""
    return hashlib.sha256(whole(folder / MANIFEST, MANIFEST_LIMIT)).hexdigest()[:16]


def listed(folder: Path) -> dict[str, str]:
    """Return the files of a saved folder with their digests, as its manifest has them.

    Raise `UnfitError` or another `ValueError` for one that names anything else, `OSError` without one.
    """
    try:
        files = said(folder / MANIFEST, MANIFEST_LIMIT)["files"]
        return {str(name): str(sha) for name, sha in files.items()}
    except (KeyError, AttributeError):
        raise UnfitError(f"{MANIFEST} is no manifest") from None


def verify(folder: Path, expected: str | None = None) -> bool:
    """Return whether a saved folder is complete: each file of its manifest is a file below it, with its digest.

    No link and no special file lies in the folder, and it is not larger than `SAVED`.
    """
    try:
        files, there = listed(folder), below(folder)
        if not files.keys() <= there.keys() or sum(path.lstat().st_size for path in there.values()) > SAVED:
            return False
        same = all(own_digest(inside(folder, name)) == sha for name, sha in files.items())
        return same and (expected is None or digest(folder) == expected)
    except (OSError, ValueError):
        return False


def copied(folder: Path, to: Path) -> None:
    """Copy a saved folder: the files of its manifest, or all its files if it has none, and never what a link names.

    Raise `UnfitError` if a file differs from the manifest.
    """
    there = below(folder)
    files = listed(folder) if MANIFEST in there else {}
    for name in (*files, MANIFEST) if files else there:
        place = to / name
        patiently(partial(place.parent.mkdir, parents=True, exist_ok=True))
        patiently(partial(_copied, inside(folder, name), place))
        if files.get(name, same := file_digest(place)) != same:
            raise UnfitError(f"{name} is not what was saved")


def _copied(path: Path, to: Path) -> None:
    to.unlink(missing_ok=True)  # a try before this one may have left half of it
    with regular(path) as source, to.open("xb") as target:
        shutil.copyfileobj(source, target)


def write_file(path: Path, text: str) -> None:
    """Write a small file and sync it to disk."""

    def write() -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    patiently(write)


def replace_file(path: Path, text: str) -> None:
    """Write a small file atomically: a crash leaves the old content."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_file(draft, text)
        patiently(lambda: draft.rename(path))
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            draft.unlink(missing_ok=True)
        raise


def create_file(path: Path, text: str) -> None:
    """Write a small file that nobody has written yet, atomically. Raise `FileExistsError` if it is there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write_file(draft, text)
    try:
        patiently(lambda: os.link(draft, path))
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        os.close(handle)
        patiently(lambda: draft.rename(path))
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Sync a folder's entries to disk."""

    def synced() -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    patiently(synced)


def own_digest(path: Path) -> str:
    """Return the sha256 of a regular file. Raise `UnfitError` for a link or a special file."""
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""

    def digested() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return patiently(digested)
