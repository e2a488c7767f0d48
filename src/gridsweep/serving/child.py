"""The server as a process in its own session, stopped by its process id, with its output in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gridsweep.errors import ServingError

GRACE = 20.0
"""Seconds a server may take to end after SIGTERM."""


class Child:
    """A running server. Its standard input stays open as long as this process lives."""

    def __init__(self, argv: Sequence[str], variables: Mapping[str, str], log: Path):
        self.log, self._said_before = log, log.stat().st_size if log.exists() else 0
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self.process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE,
                    stdout=handle,
                    stderr=handle,
                    env=dict(variables),
                    start_new_session=True,  # Ctrl-C reaches only this process, which then stops the server
                )
            finally:
                os.close(handle)
        except OSError as error:
            raise ServingError(f"cannot start {argv[0]} with its log in {log}: {error.strerror or error}") from None

    def wait_until(self, ready: Callable[[], bool], stopped: Callable[[], object], seconds: float) -> bool:
        """Return True once `ready()` holds, False if `stopped()` holds first.

        Raise `ServingError` if the server ends, or is not ready after `seconds`.
        """
        end = time.monotonic() + seconds
        while not stopped():
            self.check()
            if ready():
                return True
            if time.monotonic() > end:
                raise ServingError(f"the server was not ready after {seconds:.0f} s; {self.last_words()}")
            time.sleep(0.1)
        return False

    def check(self) -> None:
        """Raise `ServingError` with the end of the log if the server has ended."""
        if self.process.poll() is not None:
            raise ServingError(f"the server ended (exit {self.process.returncode}); {self.last_words()}")

    def last_words(self) -> str:
        """Return the last error line of the log, or its last line, and the path of the log."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(self._said_before)
            said = file.read().decode("utf-8", "replace").strip().splitlines()
            if said:
                telling = [line for line in said if "rror" in line][-1:] or said[-1:]
                return f"last output: {telling[0][:500]} (log: {self.log})"
        return f"no output (log: {self.log})"

    def end(self) -> None:
        """Send SIGTERM, and after the grace period SIGKILL to the whole session."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        with suppress(ProcessLookupError, PermissionError):  # the server may have left child processes
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


@contextmanager
def running(argv: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[Child]:
    """Run a server within the block."""
    child = Child(argv, variables, log)
    try:
        yield child
    finally:
        child.end()
