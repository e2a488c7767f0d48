"""Requests of users as files in `state/requests/`: written beside and renamed, read with a bound, then removed.

A request that cannot be taken is put aside, under a name that begins with a dot, so that it is answered once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import re
import stat
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gridsweep.errors import StorageError, printable
from gridsweep.records.bounded import UnfitError, regular
from gridsweep.records.disk import AGAIN, DISK, patiently
from gridsweep.records.files import replace_file, sync
from gridsweep.state.wishes import Wish
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.sweep import Sweep

LARGEST = 64 * 1024
"""A request's most bytes."""
SUFFIX = ".json"
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks: see `state.events.Asked`. `added` are new experiments.

    For `add`, `sweep` holds the sweep's keys, and the experiments whose tier differs.
    """

    what: Wish
    asked_at: datetime
    experiments: tuple[str, ...] = ()
    until: datetime | None = None
    soon: bool = False
    sweep: Sweep | None = None
    added: tuple[Experiment, ...] = ()
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A request file: its id, the user who owns it, and the request, or why it cannot be taken."""

    id: str
    by: str
    asked_at: datetime
    request: Request | None
    unfit: str = ""


def folder_of(state: Path) -> Path:
    """Return the folder of requests in a run's `state` folder."""
    return state / "requests"


def leave(state: Path, request: Request) -> str:
    """Leave a request for whatever drives the sweep; return its id. Raise `OSError`, or `UnfitError` if too long."""
    from gridsweep.records import codec

    text = codec.dumps(request)
    if len(text.encode()) > LARGEST:
        raise UnfitError(f"the request is longer than {LARGEST:,} bytes")
    folder = folder_of(state)
    if why := strange(folder):
        raise UnfitError(why)
    folder.mkdir(mode=0o700, exist_ok=True)
    id = f"{request.asked_at.astimezone(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"  # in order of time
    replace_file(folder / (id + SUFFIX), text)
    sync(folder)
    return id


def strange(folder: Path) -> str:
    """Return why nothing in a folder of requests counts; "" if it does, or there is none.

    Its owner could put another file in place of one that was looked at.
    """
    try:
        found = patiently(folder.lstat)
    except FileNotFoundError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is a link or no folder; remove it"
    if found.st_uid not in {os.geteuid(), folder.parent.stat().st_uid, 0}:
        return f"{folder} belongs to {name_of(found.st_uid)}, not to the user who runs the sweep; remove it"
    return ""


def left(state: Path) -> list[str]:
    """Return the names of the files that wait for an answer, in order; drafts and what was put aside are not among.

    A folder that is a link, or another user's, holds none: `leave` refuses it.
    """
    try:
        if strange(folder_of(state)):
            return []
        names = patiently(lambda: [entry.name for entry in folder_of(state).iterdir()])
    except OSError:  # looked at again with the next turn
        return []
    return sorted(name for name in names if not name.startswith("."))


def read(state: Path, name: str) -> Found:
    """Return the request in one of the files `left`.

    Raise `StorageError` if the disk fails: the request stays for the next run. That its owner forbids to read it is his
    doing, and refuses it.
    """
    path = folder_of(state) / name
    try:
        return patiently(lambda: _read(path))
    except OSError as error:
        if error.errno in DISK - {errno.EACCES, errno.EPERM}:
            raise StorageError(f"{path}: {error.strerror}", remedy=AGAIN) from None
        return Found(id_of(name), "somebody", datetime.now(UTC), None, f"it cannot be read ({error.strerror})")


def _read(path: Path) -> Found:
    from gridsweep.records import codec

    name = path.name
    id, by, asked_at = id_of(name), "somebody", datetime.now(UTC)
    try:
        owner = path.lstat()
        by = name_of(owner.st_uid)
        asked_at = datetime.fromtimestamp(owner.st_mtime, UTC)
        if id + SUFFIX != name:
            raise UnfitError(f"{printable(name)[:80]!r} is no name of a request")
        if owner.st_uid not in (os.geteuid(), 0):
            raise UnfitError(f"it belongs to {by}, not to the user who runs the sweep")
        with regular(path) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise UnfitError(f"it is longer than {LARGEST:,} bytes")
        request = codec.strict(Request, text)
        times = [time for time in (request.asked_at, request.until) if time is not None]
        if any(time.tzinfo is None for time in times):
            raise UnfitError("one of its times has no time zone")
        if any(not EARLIEST <= time <= LATEST for time in times):
            raise UnfitError(f"one of its times is not between {EARLIEST:%Y} and {LATEST:%Y}")
        if request.schema_version != 1:
            raise UnfitError(f"it is of version {request.schema_version}, which another gridsweep writes")
    except UnfitError as error:
        return Found(id, by, asked_at, None, str(error))
    except (ValueError, OverflowError, RecursionError) as error:
        what = printable(str(error)).splitlines()[0][:200] if isinstance(error, ValueError) else type(error).__name__
        return Found(id, by, asked_at, None, f"it cannot be read ({what})")
    return Found(id, by, asked_at, request)


def id_of(name: str) -> str:
    """Return the id of the request in a file: its name, or a digest of one that no request has."""
    id = name.removesuffix(SUFFIX)
    return id if NAME.fullmatch(id) and name != id else f"unfit-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"


def clear(state: Path, name: str) -> None:
    """Remove an answered request; put aside what cannot be removed, such as a folder. Raise `OSError` if neither."""
    path = folder_of(state) / name
    try:
        path.unlink(missing_ok=True)
    except OSError:
        path.rename(path.with_name(f".{name}"))


def name_of(uid: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except (KeyError, OverflowError):
        return f"user {uid}"
