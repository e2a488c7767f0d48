"""The interface a live world needs from an executor whose workers run in real time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from gridsweep.loop import Executor
from gridsweep.state.state import State


class Workers(Executor, Protocol):
    """An executor whose workers run in real time, independently of the loop."""

    def changed(self, state: State) -> bool: ...

    def alive(self, state: State) -> bool: ...

    def last_sign(self, state: State) -> datetime | None: ...

    def logs(self, attempt: str) -> Iterator[str]: ...


def let_go(executor: Workers) -> None:
    """Close an executor's connections to its cluster; the workers keep running."""
    for held in (executor, getattr(executor, "api", None)):
        close = getattr(held, "close", None)
        if close is not None:
            close()


def reach(executor: Workers) -> None:
    """Raise `ExecutorError` if an executor's cluster cannot be reached, before a run begins."""
    ready = getattr(executor, "ready", None)
    if ready is not None:
        ready()
