"""The memory of the machine that a worker may use: less where a container or a limit of the process says so."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil

LIMITS = {"": ("memory.max", "memory.high"), "memory": ("memory.limit_in_bytes",)}
"""The files of a control group that limit memory, by controller: version 2 has none, version 1 has `memory`."""


def there(proc: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the bytes that processes like this one have in all: the machine's, or the lowest limit below that."""
    return float(min([psutil.virtual_memory().total, *_of_process(), *of_containers(proc, mounts)]))


def of_containers(proc: Path, mounts: Path) -> list[int]:
    """Return all memory limits, in bytes, of the control groups that `proc` names and of those above them.

    A container often sees its own group as the root of `mounts`, under another path than `proc` tells: the root always
    counts. Version 1's value for no limit is a number larger than any memory.
    """
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    paths = {"": "/", "memory": "/"}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(","):
            if name in paths and path:
                paths[name] = path
    found = []
    for name, path in paths.items():
        roots = (mounts / name,) if name else (mounts, mounts / "unified")
        for root in roots:
            inside = PurePosixPath(path.lstrip("/"))
            groups = {root / one for one in (inside, *inside.parents) if ".." not in one.parts}
            found += [value for group in groups for file in LIMITS[name] if (value := _read(group / file)) is not None]
    return found


def share(total: float, stated: float | None, beside: Sequence[float | None]) -> float:
    """Return a worker's bytes of `total`, of which the workers `beside` it on this machine have theirs.

    `stated` is what the spec states of its device, None if nothing; `beside` holds the same of the others, in bytes.
    Devices of stated memory have it; the others share the rest alike. Where more is stated than is there, nobody gets
    more than an equal part.
    """
    equal = total / (1 + len(beside))
    known = [claim for claim in (stated, *beside) if claim is not None]
    if sum(known) > total:
        return equal if stated is None else min(stated, equal)
    if stated is not None:
        return stated
    return (total - sum(known)) / (1 + sum(claim is None for claim in beside))


def resident() -> int:
    """Return the bytes of this process that are in memory, after freed memory went back to the system."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _of_process() -> list[int]:
    """Return the limits of this process's own memory; the executor sets one where the spec has `memory_gb`."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return [limit for limit in limits if limit != resource.RLIM_INFINITY]


def _read(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() and int(text) > 0 else None
