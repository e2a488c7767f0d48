"""A loopback server that answers in a provider's dialect from a known grid, and misbehaves on request."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any  # socketserver's own signatures, and the owner of any handler
from urllib.parse import parse_qsl, urlsplit

from gridsweep.testing.grid.behaviours import GOOD, Behaviour, Delivery
from gridsweep.testing.grid.dialect import Dialect, Grid, Request, Response
from gridsweep.testing.grid.spoiling import Exchange

REMEMBERED = 20_000
IDLE_SECONDS = 10.0
"""Seconds a connection may be silent."""
DRIP_SECONDS = 1.0
"""Seconds between two bytes of a slow answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A received request, its time (by the grid's clock), and the status of its answer."""

    at: datetime
    request: Request
    status: int


class GridApi:
    """The common part of the server and the in-process transport: answers, misbehaviour, and the list of requests."""

    def __init__(self, dialect: Dialect, grid: Grid, *, elsewhere: str = ""):
        self.dialect, self.grid, self.elsewhere = dialect, grid, elsewhere
        self.seen: deque[Seen] = deque(maxlen=REMEMBERED)
        self.spoiled = 0
        """The number of answers that behaviours changed."""
        self.in_flight = self.most_in_flight = 0
        self._behaviour, self._left, self._paths = GOOD, 0, ""
        self._lock = threading.Lock()

    def misbehave(self, behaviour: Behaviour, n: int = -1, *, paths: str = "") -> None:
        """Apply a behaviour to the next `n` requests (-1: all) whose path contains `paths`."""
        with self._lock:
            self._behaviour, self._left, self._paths, self.spoiled = behaviour, n, paths, 0

    def behave(self) -> None:
        self.misbehave(GOOD)

    @contextmanager
    def flying(self) -> Iterator[None]:
        """Count a request as in flight during the block."""
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[Response, Delivery]:
        """Return the answer to a request, and its delivery."""
        url = urlsplit(target)
        named = {name.lower(): value for name, value in headers.items()}
        request = Request(method, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), named)
        with self._lock:
            good = self.dialect.respond(request, self.grid)
            behaviour = self._take(request)
            other = behaviour.change(Exchange(request, good, self.dialect, self.grid, self.elsewhere))
            response = good if other is None else other
            if response != good or behaviour.delivery != "whole":
                self.spoiled += 1
            self.seen.append(Seen(self.grid.now(), request, response.status))
        return response, behaviour.delivery

    def _take(self, request: Request) -> Behaviour:
        if not self._left or self._paths not in request.path:
            return GOOD
        self._left -= 1
        return self._behaviour

    def count(self, path: str = "") -> int:
        """Return the number of requests whose path contains `path`."""
        return sum(path in seen.request.path for seen in self.seen)

    def most_in(self, span: timedelta) -> int:
        """Return the most requests within any window of that length."""
        times = [seen.at for seen in self.seen]
        return max((sum(start <= at < start + span for at in times) for start in times), default=0)


class GridServer(GridApi):
    """The same behind a socket: `with GridServer(dialect, grid) as server: ... server.url`."""

    url: str

    def __enter__(self) -> GridServer:
        self._listening = Listening(_Answering, self)
        self.url = self._listening.url
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listening.close()


class Stranger:
    """Another host, which records its requests and answers with nothing useful."""

    url: str

    def __enter__(self) -> Stranger:
        self.heard: list[str] = []
        self._listening = Listening(_Hearing, self)
        self.url = self._listening.url
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listening.close()


class Listening(ThreadingHTTPServer):
    """A server on a free port of the loopback interface, with one thread per connection, until it is closed."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, handler: type[BaseHTTPRequestHandler], owner: Any):
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: closed connections are not reported."""

    def close(self) -> None:
        """Close all connections, and wait for the threads."""
        self.closing.set()
        self.shutdown()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: Listening

    def do_GET(self) -> None:
        try:
            length = min(int(self.headers.get("content-length") or 0), 1_000_000)
            self.handle_it(self.rfile.read(length))
        except (OSError, ValueError):
            self.close_connection = True

    do_POST = do_PUT = do_HEAD = do_GET

    def handle_it(self, body: bytes) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: requests are not logged."""


class _Answering(_Handler):
    def handle_it(self, body: bytes) -> None:
        api: GridApi = self.server.owner
        with api.flying():
            response, delivery = api.answer(self.command, self.path, dict(self.headers.items()))
            if delivery in ("close", "noise"):
                if delivery == "noise":
                    self.wfile.write(b"\x16\x03\x01 nothing of HTTP\r\n\r\n")
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            if delivery == "drip":
                self._drip(response.body)
                return
            half = delivery in ("cut", "reset")
            self.wfile.write(response.body[: len(response.body) // 2] if half else response.body)
            self.wfile.flush()
            if delivery == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                socket.close(self.connection.detach())  # at once, without an orderly shutdown
            self.close_connection = self.close_connection or half

    def _drip(self, body: bytes) -> None:
        for i in range(len(body)):
            self.wfile.write(body[i : i + 1])
            self.wfile.flush()
            if self.server.closing.wait(DRIP_SECONDS):
                break
        self.close_connection = True


class _Hearing(_Handler):
    def handle_it(self, body: bytes) -> None:
        self.server.owner.heard.append(f"{self.requestline}\n{self.headers}\n{body!r}")
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def silent_address() -> str:
    """Return the URL of a port of this machine without a listener."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"
