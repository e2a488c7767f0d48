"""Whose process: an identity that a process id alone is not, because ids are given again, and elsewhere mean others."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal  # Any: a signature as read


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its machine, the machine's boot, the namespace that its id is of, and its start in ticks since boot.

    A part that is not known is "" or 0: older signatures hold less, and other systems tell less.
    """

    pid: int
    host: str = ""
    boot: str = ""
    namespace: str = ""
    start: int = 0

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Process | None:
        """Return the process that a file names; None if it names none."""
        pid = said.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 1 < pid < 2**31:
            return None
        texts = {name: said[name] for name in ("host", "boot", "namespace") if isinstance(said.get(name), str)}
        start = said.get("start")
        return cls(pid, start=start if isinstance(start, int) else 0, **texts)

    def signature(self) -> dict[str, Any]:
        """Return what a file says of the process."""
        return asdict(self)

    @property
    def where(self) -> str:
        """The process in words: `process 12 on node7`."""
        return f"process {self.pid}" + (f" on {self.host}" if self.host and self.host != socket.gethostname() else "")


def this_process() -> Process:
    return Process(os.getpid(), socket.gethostname(), _boot(), _namespace(), _start(os.getpid()))


def seen(process: Process) -> Literal["alive", "gone", "elsewhere"]:
    """Return whether a process lives; `elsewhere` if its id means nothing here: another machine, or a namespace."""
    if process.boot and process.boot != _boot():
        same_machine = process.host == socket.gethostname()
        return "gone" if same_machine else "elsewhere"  # the machine was started again
    if process.namespace and process.namespace != _namespace():
        return "elsewhere"
    if not process.boot and process.host and process.host != socket.gethostname():
        return "elsewhere"
    return "alive" if _alive(process) else "gone"


def suspended(process: Process) -> bool:
    """Return whether a process of this machine is stopped, as by Ctrl-Z or a debugger; False where nothing says so."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def tell(process: Process, what: signal.Signals, *, group: bool = False) -> bool:
    """Send a signal to a process, or to its whole group; return False if it is not there, and send nothing then."""
    if seen(process) != "alive":
        return False
    with suppress(ProcessLookupError, PermissionError):  # it may have just ended
        members = os.getpgid(process.pid) if group else os.getpgrp()
        if members == os.getpgrp():  # never this process's own group
            os.kill(process.pid, what)
        else:
            os.killpg(members, what)
        return True
    return False


def holds(process: Process, folder: Path) -> bool:
    """Return whether a process holds a lock on a folder, as a worker does that inherited it.

    True where the system does not say what a process has open.
    """
    try:
        wanted = folder.stat()
        for handle in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found = handle.stat()
                same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
                if same and "FLOCK" in Path(f"/proc/{process.pid}/fdinfo/{handle.name}").read_text():
                    return True
    except OSError:
        return not Path("/proc/self/fdinfo").exists()
    return False


def holding(folder: Path) -> list[Process]:
    """Return the processes of this machine, without this one, that hold a lock on a folder, as far as can be seen."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if path.name != str(os.getpid())]
    return [found for found in map(Process, pids) if _opened(found.pid) and holds(found, folder)]


def _opened(pid: int) -> bool:
    return os.access(f"/proc/{pid}/fd", os.R_OK | os.X_OK)


def _alive(process: Process) -> bool:
    """Whether a process of that id lives and is the one that is meant."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # no such call here
        return _there(process.pid) and (not process.start or _start(process.pid) == process.start)
    try:
        same = not process.start or _start(process.pid) == process.start
        ended = bool(select.select([handle], [], [], 0)[0])
        return same and not ended
    finally:
        os.close(handle)


def _there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _start(pid: int) -> int:
    """Return when a process was started, in ticks since boot; 0 if that is not known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Return the namespace of process ids, as the kernel names it."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
