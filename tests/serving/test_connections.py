"""Time limits of the small server's connections, with limits that a test can wait for."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import uvicorn

from builders import until
from gridsweep.serving import connections, guard
from gridsweep.serving.connections import Connection
from gridsweep.serving.guard import Guard

pytestmark = pytest.mark.train  # uvicorn comes with the extra that serves


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers `ok`; /fails raises, /slow takes a second."""
    if scope["path"] == "/fails":
        raise RuntimeError("no such luck")
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "OPEN_AT_ONCE", 12)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(guard, "AT_ONCE", 3)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(Guard(app, (), None), http=Connection, ws="none", lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started)
        yield port
        server.should_exit = True
        thread.join(10)


def sent(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back for these bytes, until the server closes or three seconds have passed."""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as line:
        for part in parts:
            try:
                line.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        data = b""
        try:
            while piece := line.recv(65536):
                data += piece
        except OSError:
            pass
        return data


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


def test_a_whole_request_is_answered(port: int) -> None:
    assert sent(port, HEAD + b"Connection: close\r\n\r\n").endswith(b"ok")


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"GET / HTT",),
        tuple(bytes([byte]) for byte in HEAD),  # a byte at a time: each is news, none is a request
        (HEAD + b"\r\n", b"GET / HTTP/1.1\r\nHo"),  # the second request of a connection
    ],
    ids=["nothing", "half a head", "slowly", "after an answer"],
)
def test_a_head_that_does_not_come_ends_the_connection(port: int, parts: tuple[bytes, ...]) -> None:
    begun = time.monotonic()
    sent(port, *parts, pause=0.05)
    assert time.monotonic() - begun < 2.9


def test_a_body_that_does_not_come_is_408(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    answer = sent(port, head + b"{")
    assert answer.startswith(b"HTTP/1.1 408") and b"the body did not come within" in answer


def test_while_all_connections_are_busy_a_new_one_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "OPEN_AT_ONCE", 3)
    with ExitStack() as lines:
        for _ in range(3):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=3))
            line.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.2)
        assert sent(port, HEAD + b"\r\n") == b""
        assert line.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("length", [16 << 20, 99_999_999_999, int("9" * 19)])
def test_a_stated_length_far_over_the_limit_is_413_at_once(port: int, length: int) -> None:
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length + 1}\r\n\r\n"
    )
    begun = time.monotonic()
    answer = sent(port, head.encode())
    assert answer.startswith(b"HTTP/1.1 413") and b"send less" in answer and time.monotonic() - begun < 0.4


def test_what_is_no_request_is_answered_as_all_errors_are(port: int) -> None:
    answer = sent(port, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_what_fails_within_is_answered_as_all_errors_are(port: int) -> None:
    answer = sent(port, b"GET /fails HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "server_error"


def test_more_requests_than_are_answered_at_once_are_told_so(port: int) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as lines:
        for _ in range(3):
            lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=3)).sendall(slow)
        time.sleep(0.3)
        assert sent(port, HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 503")
    until(lambda: sent(port, HEAD + b"Connection: close\r\n\r\n").endswith(b"ok"))


def test_only_so_many_connections_are_open(port: int) -> None:
    """Idle ones, half a head among them, make room for new ones, the oldest first."""
    with ExitStack() as lines:
        opened = [lines.enter_context(socket.create_connection(("127.0.0.1", port), timeout=3)) for _ in range(40)]
        for line in opened[::2]:
            with suppress(OSError):
                line.sendall(b"GET / HT")
        begun = time.monotonic()
        for _ in range(5):
            assert sent(port, HEAD + b"Connection: close\r\n\r\n").endswith(b"ok")
        assert time.monotonic() - begun < 0.4  # no time limit has passed
        for line in opened[:20]:
            with suppress(ConnectionResetError):
                assert line.recv(1) == b""
    until(lambda: sent(port, HEAD + b"Connection: close\r\n\r\n").endswith(b"ok"))
