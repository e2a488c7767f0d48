"""The server as a process of its own session: known by its id, ended by its id, its words in a log."""

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
                    start_new_session=True,  # Ctrl-C in a terminal reaches us alone, and we end it
                )
            finally:
                os.close(handle)
        except OSError as error:
            raise ServingError(f"cannot start {argv[0]} with its log in {log}: {error.strerror or error}") from None

    def wait_until(self, ready: Callable[[], bool], stopped: Callable[[], object], seconds: float) -> bool:
        """True once `ready()`, False when `stopped()` first. Raises `ServingError` when it ends or takes too long."""
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
        """Raises `ServingError` with its last words when it has ended."""
        if self.process.poll() is not None:
            raise ServingError(f"the server ended (exit {self.process.returncode}); {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it said, and where all of it is."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(self._said_before)
            said = file.read().decode("utf-8", "replace").strip().splitlines()
            if said:
                telling = [line for line in said if "rror" in line][-1:] or said[-1:]
                return f"it said: {telling[0][:500]} (all of it: {self.log})"
        return f"it said nothing (log: {self.log})"

    def end(self) -> None:
        """SIGTERM, and after the grace SIGKILL to all of its session."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        with suppress(ProcessLookupError, PermissionError):  # helpers it may have left; usually nobody
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


@contextmanager
def running(argv: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[Child]:
    """A server for the length of the block."""
    child = Child(argv, variables, log)
    try:
        yield child
    finally:
        child.end()
