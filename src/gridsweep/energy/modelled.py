"""Energy where no counter is readable: CPU time multiplied by a stated power."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil

Seconds = Callable[[], float]


def cpu_seconds() -> float:
    """CPU time, user and system, of this process, its living descendants, and all that it has waited for."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    try:
        for child in psutil.Process().children(recursive=True):
            try:
                spent = child.cpu_times()
            except psutil.Error:
                continue  # It has ended meanwhile; its time is in its parent's sum as soon as that one waits.
            total += spent.user + spent.system + spent.children_user + spent.children_system
    except (psutil.Error, OSError):
        pass  # Where processes cannot be listed (a hardened /proc), the own time is what can be known.
    return total


def busy_seconds() -> float:
    """CPU time that all cores of the machine have spent on anything but waiting, since it started."""
    spent = psutil.cpu_times()
    return float(sum(getattr(spent, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq")))


class ModelledMeter:
    """`watts` times the seconds that `busy` counts: CPU time of this process tree unless told otherwise."""

    source = "modelled"

    def __init__(self, watts: float, busy: Seconds = cpu_seconds):
        self._watts = watts
        self._busy = busy
        self._first = self._last = busy()

    def joules(self) -> float:
        # CPU time dips while a child has ended and is not yet waited for: nothing is counted twice.
        self._last = max(self._last, self._busy())
        return self._watts * (self._last - self._first)

    def close(self) -> None: ...
