"""The machine-wide cache: costly files that are the same for all workers, made by the first worker that needs them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/gridsweep`, else `~/.cache/gridsweep`, else a folder in the temp folder.

    The folder is created. Raise `PermissionError` if the folder in the temp folder belongs to another user.
    """
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(base) / "gridsweep"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"gridsweep-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set XDG_CACHE_HOME to a folder of your own")
    return folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cached file or folder of that name; `make(draft)` writes it if it does not exist yet.

    The entry appears by rename, so it is either complete or absent. A lock ensures that only one of several workers
    that start together makes it.
    """
    final = cache_folder() / name
    if final.exists():
        return final
    with (final.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():  # another worker may have made it during the wait
            draft = final.with_name(f".{name}.{os.getpid()}")
            try:
                make(draft)
                draft.rename(final)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                draft.unlink(missing_ok=True)
    return final
