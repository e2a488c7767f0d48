"""Connections of the small server: a client that sends nothing, or slowly, holds nobody up.

uvicorn has no time limit for a request's head, and counts idle connections as busy ones. Here a connection must send a
whole head within `HEAD_SECONDS` (the guard limits bodies and requests), and only so many are open at once.
"""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

from gridsweep.serving import wire

HEAD_SECONDS = 10.0
OPEN_AT_ONCE = 512


class Connection(H11Protocol):
    """A connection that is closed if it waits too long between requests, or within the head of one."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        if len(self.connections) > OPEN_AT_ONCE:
            transport.close()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
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

    def _watch(self) -> None:
        """Start the time limit while no request is being read or answered; stop it otherwise."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.is_closing():
            self._stop()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
