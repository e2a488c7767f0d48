"""A disk that fails for a moment: calls are tried again, a few times within a fifth of a second.

An error that stays says nothing against the work or the files: it ends a run, or an attempt, that goes on later.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from gridsweep.errors import StorageError

T = TypeVar("T")

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK = NO_ROOM | {
    errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EROFS, errno.EAGAIN, errno.EBUSY, errno.ENOLCK,
    errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN,
}  # fmt: skip
"""What a disk, its mount or its server answers when it cannot do what was asked."""
UNUSABLE = "the disk cannot be used"
AGAIN = "free disk space, or put that right, then run again: nothing is lost"
TRIES, FIRST_PAUSE = 5, 0.01
"""Pauses double: 0.15 s in all."""
PAUSES = (*(FIRST_PAUSE * 2**n for n in range(TRIES - 1)), 0.0)
"""After each try; the last one is not followed by another."""


def patiently(call: Callable[[], T], passing: Callable[[OSError], bool] = lambda error: True) -> T:
    """Return what a call returns; try again while the disk fails. Raise the last `OSError`, and any other at once.

    The call can be repeated after it failed half-way. `passing` tells the errors that another try may not meet.
    """
    for pause in PAUSES[:-1]:
        try:
            return call()
        except OSError as error:
            if error.errno not in DISK or not passing(error):
                raise
            time.sleep(pause)
    return call()


@contextmanager
def storing(where: Path) -> Iterator[None]:
    """Raise what the disk answers within the block as a `StorageError`; `where` is named if the error names no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise StorageError(f"{error.filename or where}: {error.strerror}", remedy=AGAIN) from None


def unusable(error: OSError) -> str:
    """Return what a worker says of its disk: in its result or, where that has no room, as its last words."""
    return f"{UNUSABLE} ({error}); put that right, then run again"


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file that has one writer: all of it, or nothing with an `OSError`."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        before = os.fstat(handle).st_size
        data = memoryview(text.encode())
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, before)  # half a line would be read as one with what follows
            raise
    finally:
        os.close(handle)
