"""Conversion of signals into a request to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CTRL_C = "interrupted by Ctrl-C"


class Interrupt:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop; a second SIGINT ends the process at once.

    `why` is a reason to stop from the beginning.
    """

    def __init__(self, why: str = "") -> None:
        self.event = threading.Event()
        self.why = why

    def __call__(self) -> str:
        return self.why

    @contextmanager
    def installed(self) -> Iterator[Interrupt]:
        """Handle signals within the block; outside the main thread, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._caught) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.why and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.why:
            self.why = CTRL_C if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        self.event.set()
