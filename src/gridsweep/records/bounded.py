"""Reading files that somebody else writes: regular files only, no links, and never more than a stated size.

A worker, or a stranger on a shared disk, may put anything into a folder: a named pipe that blocks its reader, a link to
another place, a file without end. Whatever reads such a folder does so by these functions.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any  # JSON

from gridsweep.records.disk import DISK, patiently

MEBIBYTE = 2**20
FILES = 10_000
"""The most files of a saved folder."""


class UnfitError(ValueError):
    """A file is not what it should be: not a regular file, too long, outside its folder."""


@contextmanager
def regular(path: Path, *, follow: bool = False) -> Iterator[BufferedReader]:
    """Open a regular file for reading. Raise `UnfitError` for another kind, `FileNotFoundError` for none.

    A link is another kind, unless `follow`, for a path that the user names. A disk that fails is asked again; the
    `OSError` of one that keeps failing says nothing of the file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = patiently(lambda: os.open(path, flags), lambda error: _may_pass(path, error))
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in DISK and _may_pass(path, error):
            raise
        # a link (ELOOP), a socket (ENXIO), a folder of a link (ENOTDIR)
        raise UnfitError(f"{path.name} is no regular file ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):  # asked before it becomes a file object, which no folder can be
        os.close(handle)
        raise UnfitError(f"{path.name} is no regular file")
    with os.fdopen(handle, "rb") as file:
        yield file


def _may_pass(path: Path, error: OSError) -> bool:
    """Return whether another try may open a file: not if its mode forbids it."""
    return error.errno not in (errno.EACCES, errno.EPERM) or os.access(path, os.R_OK)


def whole(path: Path, at_most: int = MEBIBYTE, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most that many bytes; raise as `regular` does."""
    with regular(path, follow=follow) as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise UnfitError(f"{path.name} is longer than {at_most:,} bytes")
    return data


def said(path: Path, at_most: int = MEBIBYTE) -> dict[str, Any]:
    """Return the object in a small JSON file; raise `UnfitError` if it is none, and as `regular` does."""
    try:
        found = json.loads(whole(path, at_most))
    except (RecursionError, UnicodeError, json.JSONDecodeError):
        raise UnfitError(f"{path.name} is no JSON") from None
    if not isinstance(found, dict):
        raise UnfitError(f"{path.name} holds no JSON object")
    return found


def inside(root: Path, name: str) -> Path:
    """Return the path of a relative name below `root`. Raise `UnfitError` if it, or a folder on its way, is a link."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise UnfitError(f"{name!r} names no file within its folder")
    path = root
    for part in parts:
        path /= part
        if path.is_symlink():
            raise UnfitError(f"{path.relative_to(root)} is a link")
    return path


def below(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by name. Raise `UnfitError` for a link, a special file, or too many files."""
    found: dict[str, Path] = {}
    for home, folders, names in os.walk(folder, onerror=_raised):
        for name in (*folders, *names):
            path = Path(home, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise UnfitError(f"{path.relative_to(folder)} is no regular file")
        if len(found) > FILES:
            raise UnfitError(f"{folder.name} holds more than {FILES:,} files")
    return found


def _raised(error: OSError) -> None:
    raise error
