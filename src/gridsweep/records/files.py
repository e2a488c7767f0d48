"""Atomic writing of files, and digests of folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"


@contextmanager
def appearing(final: Path, step: int) -> Iterator[Path]:
    """Yield a draft folder that gets a manifest and is renamed to `final` if the block succeeds."""
    draft = final.with_name(f".{final.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    files = {str(p.relative_to(draft)): file_digest(p) for p in sorted(draft.rglob("*")) if p.is_file()}
    write_file(draft / MANIFEST, json.dumps({"step": step, "files": files}, indent=1))
    sync(draft)
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)
    sync(final.parent)


def digest(folder: Path) -> str:
    """Return the digest of a saved folder: the digest of its manifest, which holds those of its files."""
    return file_digest(folder / MANIFEST)[:16]


def verify(folder: Path, expected: str | None = None) -> bool:
    """Return whether a saved folder is complete: each file of its manifest exists and matches its digest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        whole = all(file_digest(folder / name) == sha for name, sha in manifest["files"].items())
        return whole and (expected is None or digest(folder) == expected)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def write_file(path: Path, text: str) -> None:
    """Write a small file and sync it to disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, text: str) -> None:
    """Write a small file atomically: a crash leaves the old content."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_file(draft, text)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Sync a folder's entries to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
