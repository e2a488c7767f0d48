"""Background runs, each in its own session."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from gridsweep.errors import (
    ExecutorError,
    LeaseError,
)
from gridsweep.records.lease import holder
from gridsweep.runs.folder import RunFolder

DETACH_PATIENCE = 20.0


def detach(spec: str | Path, folder: Path) -> int:
    """Run a sweep in the background, in its own session; return the process id once the run holds the folder.

    The output goes to state/run.log. Raise `LeaseError` if another run holds the folder, and `ExecutorError` with the
    end of the output if the run does not start.
    """
    place = RunFolder(folder)
    place.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (pid := holder(place.state)) is not None:
        raise LeaseError(f"process {pid} is already running the sweep in {folder}")
    log = str(place.state / "run.log")
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "gridsweep.cli", "run", str(spec), "--folder", str(folder)],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    end = time.monotonic() + DETACH_PATIENCE
    while not (place.driver() == pid and place.submitted()):
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > end:
            words = (place.state / "run.log").read_text(errors="replace").strip()[-500:]
            raise ExecutorError(f"the background run did not start: {words}")
        time.sleep(0.05)
    return pid
