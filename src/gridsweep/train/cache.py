"""What is costly to make and the same for every worker of a machine: made once, by whoever comes first."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/gridsweep`, else `~/.cache/gridsweep`, else one in the temp folder."""
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
    """The cached file or folder of that name; `make(draft)` writes it if it is not there yet.

    It appears by rename, so it is whole or not there; of workers that start together one makes it.
    """
    final = cache_folder() / name
    if final.exists():
        return final
    with (final.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():  # somebody may have made it while we waited
            draft = final.with_name(f".{name}.{os.getpid()}")
            try:
                make(draft)
                draft.rename(final)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                draft.unlink(missing_ok=True)
    return final
