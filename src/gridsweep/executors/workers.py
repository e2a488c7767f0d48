"""What a live world asks of an executor whose workers live on their own time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from gridsweep.loop import Executor
from gridsweep.state.state import State


class Workers(Executor, Protocol):
    """An executor whose workers live on their own time."""

    def changed(self, state: State) -> bool: ...

    def alive(self, state: State) -> bool: ...

    def last_sign(self, state: State) -> datetime | None: ...

    def logs(self, attempt: str) -> Iterator[str]: ...


def let_go(executor: Workers) -> None:
    """Close what an executor holds open towards its cluster; the workers go on."""
    for held in (executor, getattr(executor, "api", None)):
        close = getattr(held, "close", None)
        if close is not None:
            close()


def reach(executor: Workers) -> None:
    """Raises `ExecutorError` where an executor's cluster cannot be reached, so that a run does not begin in vain."""
    ready = getattr(executor, "ready", None)
    if ready is not None:
        ready()
