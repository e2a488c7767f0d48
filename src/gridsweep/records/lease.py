"""The lease on a run folder: only one process drives a sweep at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gridsweep.errors import LeaseError, SpecError, word

LOOKS = 10
"""`holder` locks the lease for a moment, so a run that finds it locked tries this many times."""


@contextmanager
def lease(state: Path) -> Iterator[int]:
    """Hold the folder for one run; yield the epoch, which increases by one at each acquisition.

    Raise `LeaseError` while another process holds the lease, and `SpecError` if the folder cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, epoch = _take(state)
    except OSError as error:
        raise SpecError(
            f"cannot write in {state}: {error.strerror}; make it writable, or choose another folder with --folder"
        ) from None
    try:
        yield epoch
    finally:
        os.close(handle)


def _take(state: Path) -> tuple[int, int]:
    """Return the locked file and its new epoch."""
    handle = os.open(state / "lease", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(handle):
            pid = holder(state)
            who = f"process {pid}" if pid else "another process"
            raise LeaseError(
                f"{who} is already running the sweep in {state.parent}; watch it with `gridsweep status --watch "
                f"{state.parent}`, or end it with `gridsweep stop {word(state.parent)}`"
            )
        text = os.pread(handle, 64, 0).split()
        epoch = int(text[1]) + 1 if len(text) == 2 and text[1].isdigit() else 1
        os.ftruncate(handle, os.pwrite(handle, f"{os.getpid()} {epoch}\n".encode(), 0))
    except BaseException:
        os.close(handle)
        raise
    return handle, epoch


def _lock(handle: int) -> bool:
    for _ in range(LOOKS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def holder(state: Path) -> int | None:
    """Return the process that holds the lease; None if none does."""
    try:
        handle = os.open(state / "lease", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 64, 0).split()
        return int(text[0]) if text and text[0].isdigit() else None
    else:
        return None
    finally:
        os.close(handle)
