"""Connections of the small server: a client that sends nothing, or slowly, holds nobody up.

uvicorn has no time limit for a request's head, and counts idle connections as busy ones. Here a connection must send a
whole head within `HEAD_SECONDS` (the guard limits bodies and requests), and only so many are open at once: a new one
takes the place of the one that has waited longest without a request, so that idle ones shut nobody out.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from gridsweep.serving import wire

HEAD_SECONDS = 10.0
OPEN_AT_ONCE = 512
BACKLOG = 256
"""As many are accepted in one turn of the event loop, before any of them can be closed."""


class Connection(H11Protocol):
    """A connection that is closed if it waits too long between requests, or within the head of one."""

    _head: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        there = [other for other in cast("set[Connection]", self.connections) if not other.transport.is_closing()]
        if len(there) > OPEN_AT_ONCE:
            idle = [other for other in there if other is not self and not other.busy]
            if not idle:
                transport.close()
                return
            min(idle, key=lambda other: other._idle_since).transport.close()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP in the form of all errors."""
        body = json.dumps(wire.error(msg, "invalid_request_error")).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Start the time limit while no request is being read or answered; stop it otherwise."""
        if self.busy or self.transport.is_closing():
            self._stop()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
