"""The lease on a run folder: only one process drives a sweep at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gridsweep.errors import LeaseError, SpecError, StorageError, word
from gridsweep.records.disk import AGAIN, DISK, patiently
from gridsweep.records.opening import check_files
from gridsweep.records.process import Process, seen, this_process

SIZE = 4096
"""A lease's longest text, bytes."""
LOOKS, LONG = 10, 250
"""`holder` locks the lease for a moment, so a run that finds it locked tries this many times: a few if the process that
the lease names lives, else many, for then only watchers can have locked it."""


@contextmanager
def lease(state: Path) -> Iterator[int]:
    """Hold the folder for one run; yield the epoch, which increases by one at each acquisition.

    Raise `LeaseError` while another process holds the lease, `StorageError` if the disk is full, fails or is read-only,
    `SpecError` if the folder cannot be written for another reason, `JournalError` if a file in it is none.
    """
    check_files(state / "journal.db")
    try:
        patiently(lambda: state.mkdir(parents=True, exist_ok=True, mode=0o700))
        handle, epoch = patiently(lambda: _take(state))
    except OSError as error:
        if error.errno in DISK - {errno.EACCES, errno.EPERM}:
            raise StorageError(f"cannot write in {state}: {error.strerror}", remedy=AGAIN) from None
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
        if not _lock(handle, state):
            driver = holder(state)
            who = driver.where if driver else "another process"
            raise LeaseError(
                f"{who} is already running the sweep in {state.parent}; watch it with `gridsweep status --watch "
                f"{state.parent}`, or end it with `gridsweep stop {word(state.parent)}`"
            )
        _check_locks(state)
        text = os.pread(handle, SIZE, 0).partition(b"\n")[0].split()
        epoch = int(text[1]) + 1 if len(text) == 2 and text[1].isdigit() and len(text[1]) < 16 else 1
        said = f"{os.getpid()} {epoch}\n{json.dumps(this_process().signature())}\n"
        os.ftruncate(handle, os.pwrite(handle, said.encode(), 0))
    except BaseException:
        os.close(handle)
        raise
    return handle, epoch


def _lock(handle: int, state: Path) -> bool:
    for look in range(LONG):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            driver = holder(state) if look >= LOOKS else None
            if driver is not None and seen(driver) != "gone":
                return False
            time.sleep(0.02)
        else:
            return True
    return False


def _check_locks(state: Path) -> None:
    """Raise `SpecError` if a lock that is held does not keep another out, as on some network file systems."""
    other = os.open(state / "lease", os.O_RDWR)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(other)
    raise SpecError(
        f"the file system of {state} keeps no locks, so a second run would not be kept out",
        remedy="put the folder on a local disk with --folder",
    )


def holder(state: Path) -> Process | None:
    """Return the process that holds the lease; None if none does, or if it has not said who it is."""
    try:
        handle = os.open(state / "lease", os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        first, _, second = os.pread(handle, SIZE, 0).partition(b"\n")
        return _named(first, second)
    else:
        return None
    finally:
        os.close(handle)


def _named(first: bytes, second: bytes) -> Process | None:
    """Return the process of a lease: `PID EPOCH`, and in a second line its whole identity."""
    pid = first.split()[:1]
    if not pid or not pid[0].isdigit():
        return None
    try:
        said = json.loads(second)
    except ValueError:
        said = {}
    return Process.of({**(said if isinstance(said, dict) else {}), "pid": int(pid[0])})
