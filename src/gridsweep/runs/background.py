"""Background runs, each in its own session."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gridsweep.errors import (
    DEADLINE,
    LEASE_HELD,
    SIGNAL,
    STATE_DAMAGED,
    USAGE,
    DeadlineError,
    ExecutorError,
    GridsweepError,
    JournalError,
    LeaseError,
    SignalError,
    SpecError,
)
from gridsweep.records.origins import check_driven_here
from gridsweep.runs.folder import RunFolder

ENDS: dict[int, type[GridsweepError]] = {
    USAGE: SpecError, STATE_DAMAGED: JournalError, SIGNAL: SignalError, DEADLINE: DeadlineError
}  # fmt: skip
"""Errors by the exit code of a run that did not start."""
WORDS = 2000
"""Bytes of the output shown for a run that did not start."""


def detach(spec: str | Path, folder: Path) -> int:
    """Run a sweep in the background, in its own session; return the process id once the run holds the folder.

    A slow start is waited for while the process lives; Ctrl-C ends the process. The output goes to state/run.log.
    Raise `LeaseError` if another run holds the folder, and the error of its exit code, with its output, if it does not
    start.
    """
    place = RunFolder(folder)
    check_driven_here(place.state)
    place.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (pid := place.driver()) is not None:
        raise LeaseError(f"process {pid} is already running the sweep in {folder}")
    log = place.state / "run.log"
    before = log.stat().st_size if log.exists() else 0
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "gridsweep.cli", "run", str(spec), "--folder", str(folder)],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    try:
        while not (place.driver() == pid and place.submitted()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended and os.waitstatus_to_exitcode(status) == 0:
                return pid  # there was nothing left to run
            if ended:
                raise _not_started(os.waitstatus_to_exitcode(status), folder, log, before)
            time.sleep(0.05)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGINT)
        raise
    return pid


def _not_started(code: int, folder: Path, log: Path, before: int) -> GridsweepError:
    """Return the error of a run that ended early, with its exit code: what it has written after `before` bytes."""
    if code == LEASE_HELD:  # one that was started at the same time; the log is that one's too
        return LeaseError(f"another run was started at the same time, and holds {folder}")
    with log.open("rb") as file:
        file.seek(max(before, log.stat().st_size - WORDS))
        words = file.read().decode(errors="replace").strip() or "no output"
    return ENDS.get(code, ExecutorError)(
        f"the background run did not start (exit code {code}): {words}",
        remedy=f"run it without --detach; the whole output is in {log}",
    )
