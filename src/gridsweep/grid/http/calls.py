"""One deadline for a whole call of a provider, however many requests it makes: logins, pages, history, forecast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

READ_SECONDS = 30.0
"""How long reading the grid may take, or listing the zones."""
PAST_SECONDS = 120.0
"""How long the data of a whole sweep may take, which come in pages."""


@dataclass(slots=True)
class Call:
    """A call that may take `seconds` in all; `ends` holds when it ends, on the clock of each client that it uses."""

    seconds: float
    ends: dict[int, float] = field(default_factory=dict)

    def end(self, client: int, now: float) -> float:
        """Return when the call ends by the clock of a client; its first request begins it."""
        return self.ends.setdefault(client, now + self.seconds)


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def one_call(seconds: float) -> Iterator[None]:
    """Let the requests within the block share a deadline."""
    token = _CALL.set(Call(seconds))
    try:
        yield
    finally:
        _CALL.reset(token)


def end_of_call(client: int, now: float) -> float:
    """Return when the present call ends; infinity outside of one."""
    call = _CALL.get()
    return call.end(client, now) if call is not None else float("inf")
