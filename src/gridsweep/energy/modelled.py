"""Energy model for machines without a readable counter: CPU time multiplied by a stated power."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil

Seconds = Callable[[], float]


def cpu_seconds() -> float:
    """Return the user and system CPU time, in seconds, of this process, live descendants and reaped children."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    try:
        for child in psutil.Process().children(recursive=True):
            try:
                spent = child.cpu_times()
            except psutil.Error:
                continue  # The child has ended; its parent's sum includes its time once the parent waits for it.
            total += spent.user + spent.system + spent.children_user + spent.children_system
    except (psutil.Error, OSError):
        pass  # If processes cannot be listed (a hardened /proc), only the process's own time is known.
    return total


def busy_seconds() -> float:
    """Return the CPU time, in seconds, that all cores of the machine have spent busy since it booted."""
    spent = psutil.cpu_times()
    return float(sum(getattr(spent, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")))


class ModelledMeter:
    """A meter of `watts` times the seconds that `busy` counts; by default, the CPU time of this process tree."""

    source = "modelled"

    def __init__(self, watts: float, busy: Seconds = cpu_seconds):
        self._watts = watts
        self._busy = busy
        self._first = self._last = busy()

    def joules(self) -> float:
        # CPU time dips between the end of a child and its parent's wait; the maximum avoids double counting.
        self._last = max(self._last, self._busy())
        return self._watts * (self._last - self._first)

    def close(self) -> None: ...
