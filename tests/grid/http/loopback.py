"""Servers on this machine for the tests of the HTTP layer, and a clock that only sleeping moves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

from gridsweep.grid.http.budget import TokenBucket
from gridsweep.grid.http.client import HttpClient

START = datetime(2026, 10, 15, 12, tzinfo=UTC)


@dataclass
class Clock:
    """Starts at START; `pauses` are the sleeps it was asked for."""

    seconds: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return 1000.0 + self.seconds

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds


@dataclass
class Seen:
    """A request as the server saw it."""

    path: str
    headers: dict[str, str]


Reply = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """Replies what `reply` says to each request, which are all kept."""

    daemon_threads = True

    def __init__(self, reply: Callable[[Seen], Reply]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.seen: list[Seen] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of an answer is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        seen = Seen(self.path, {name.lower(): value for name, value in self.headers.items()})
        self.server.seen.append(seen)
        status, headers, body = self.server.reply(seen)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*replies: Reply | bytes, by: Callable[[Seen], Reply] | None = None) -> Iterator[Server]:
    """A server that gives these replies in turn, the last one again and again; bytes are a 200."""
    turn = iter(replies)
    last: list[Reply] = []

    def reply(seen: Seen) -> Reply:
        found = next(turn, None)
        if found is not None:
            last[:] = [(200, {}, found) if isinstance(found, bytes) else found]
        return last[0]

    server = Server(by or reply)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server below HTTP: `talk` has the connection until it returns, or the event says that the test is over."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def accept() -> None:
        talkers = []
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            talkers.append(threading.Thread(target=hold, args=(connection,), daemon=True))
            talkers[-1].start()
        for talker in talkers:
            talker.join(5)

    def hold(connection: socket.socket) -> None:
        connection.settimeout(2)
        with connection, suppress(OSError):
            talk(connection, over)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        thread.join()
        listener.close()


def client(url: str, clock: Clock | None = None, **options: Any) -> HttpClient:
    """A client on the virtual clock that lacks neither budget nor jitter."""
    clock = clock or Clock()
    given: dict[str, Any] = {
        "name": "tester",
        "budget": TokenBucket(1000),
        "now": clock.now,
        "monotonic": clock.monotonic,
        "sleep": clock.sleep,
        "jitter": lambda: 1.0,
    }
    return HttpClient(url, **(given | options))


class Scripted(httpx2.BaseTransport):
    """A transport that does what each script entry says: raises it, or answers with it; then the last one for ever."""

    def __init__(self, *script: Exception | httpx2.Response):
        self.script = list(script)
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        found = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(found, Exception):
            raise found
        return httpx2.Response(found.status_code, headers=found.headers, content=found.content)
