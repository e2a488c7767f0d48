"""One request and its answer, within a hard limit of time and of size."""

from __future__ import annotations

import contextlib
import logging
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from gridsweep.errors import AnswerError, SignalError, UnreachableError
from gridsweep.grid.http.verdicts import Answer

if TYPE_CHECKING:
    import httpx2

LARGEST = 5 * 1024 * 1024
"""Maximum size of a body in bytes, both on the wire and decompressed."""
THREAD = "gridsweep-fetch"
LOGGERS = ("httpx2", *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")))
"""Loggers that are silenced for our requests: they would log headers, and URLs whose query may hold a key."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Transport settings: seconds to connect and between bytes, and a transport that replaces the network."""

    connect: float = 5.0
    read: float = 15.0
    transport: httpx2.BaseTransport | None = None
    proxies: bool = True
    """Whether proxy and certificates may come from the environment; always false for a server on this machine."""


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """A GET request; `asked` names provider and path for messages. No repr, as headers and auth are secret."""

    url: httpx2.URL
    asked: str
    headers: Mapping[str, str]
    auth: tuple[str, str] | None


@dataclass(slots=True)
class _Outcome:
    answer: Answer | None = None
    error: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)
    abandoned: threading.Event = field(default_factory=threading.Event)


def exchange(request: Request, wire: Wire, seconds: float, shown: Callable[[str], str]) -> Answer:
    """Return the answer, of any status, within `seconds` in all, including name lookup, handshakes and slow bytes.

    A thread makes the request and is abandoned at the end of the time, because a name lookup cannot be interrupted.
    `shown` sanitises text for messages. Raises `UnreachableError`, and `AnswerError` if the body is too large or not
    encoded as declared.
    """
    client = _client(wire)
    outcome = _Outcome()
    threading.Thread(target=_work, args=(client, request, outcome), name=THREAD, daemon=True).start()
    try:
        outcome.done.wait(max(0.0, seconds))
    finally:
        outcome.abandoned.set()
        if not outcome.done.is_set():
            with contextlib.suppress(Exception):
                client.close()  # closes the connection while the thread uses it
    if outcome.answer is not None:
        return outcome.answer
    raise _translated(outcome.error, request.asked, shown)


def _client(wire: Wire) -> httpx2.Client:
    """Return a client for one request: no cookies, no redirects, no reused connection that may be dead."""
    import httpx2

    for logger in LOGGERS:
        logging.getLogger(logger).addFilter(_not_ours)
    return httpx2.Client(
        timeout=httpx2.Timeout(wire.read, connect=wire.connect),
        follow_redirects=False,
        trust_env=wire.proxies,
        transport=wire.transport,
    )


def _work(client: httpx2.Client, request: Request, outcome: _Outcome) -> None:
    try:
        headers = {"accept": "application/json", "user-agent": "gridsweep", **request.headers}
        headers["accept-encoding"] = "gzip"  # decompressed piece by piece in `_decoded`
        with (
            client,
            client.stream("GET", request.url, headers=headers, auth=request.auth) as response,
        ):
            body = _body(response, request.asked, outcome.abandoned)
            outcome.answer = Answer(response.status_code, dict(response.headers), body)
    except Exception as error:
        outcome.error = error
    finally:
        outcome.done.set()


def _body(response: httpx2.Response, asked: str, abandoned: threading.Event) -> bytes:
    """Return the whole body of a success; for an error, at most `LARGEST` bytes."""
    success, status = response.is_success, response.status_code
    too_large = AnswerError(
        f"{asked} answered {status} with more than {LARGEST >> 20} MB; ask for less at once", status
    )
    length = response.headers.get("content-length", "")
    if success and length.isdecimal() and (len(length) > 15 or int(length) > LARGEST):
        raise too_large
    body, raw = bytearray(), 0
    try:
        for piece, size in _decoded(response, asked):
            raw += size
            body += piece
            if abandoned.is_set():
                raise TimeoutError
            if max(raw, len(body)) > LARGEST:
                if success:
                    raise too_large
                break
    except (AnswerError, zlib.error):
        if success:
            raise
    return bytes(body[:LARGEST])


def _decoded(response: httpx2.Response, asked: str) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of the body with their size on the wire in bytes; decompressed pieces are bounded in size."""
    stream = cast("Iterable[bytes]", response.stream)  # not iter_raw(), which fails on a mock body already read
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        for data in stream:
            yield data, len(data)
        return
    if encoding not in ("gzip", "x-gzip"):
        raise AnswerError(f"{asked} sent a body in the encoding {encoding[:20]!a}, which was not asked for")
    inflate = zlib.decompressobj(wbits=31)
    for data in stream:
        size = len(data)
        while data and not inflate.eof:
            piece = inflate.decompress(data, LARGEST // 4)
            data = inflate.unconsumed_tail
            yield piece, size
            size = 0
        yield b"", size
    if not inflate.eof:
        raise AnswerError(f"{asked} sent a compressed body that ends too early")


def _translated(error: Exception | None, asked: str, shown: Callable[[str], str]) -> Exception:
    """Translate an error of the request into a `SignalError`; our own and unexpected errors pass unchanged."""
    import httpx2

    if isinstance(error, SignalError):
        return error
    if error is None:
        return UnreachableError(f"{asked} did not answer in time")
    if isinstance(error, zlib.error):
        return AnswerError(f"{asked} sent a compressed body that is damaged")
    if isinstance(error, httpx2.RemoteProtocolError) and "location header" in str(error):
        return AnswerError(f"{asked} redirects to nowhere")  # httpx2 parses the location even without following it
    if isinstance(error, httpx2.LocalProtocolError | httpx2.InvalidURL | UnicodeError):
        return SignalError(f"{asked} cannot be asked like this ({type(error).__name__}): look at zone and credentials")
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return UnreachableError(f"{asked} did not answer in time ({type(error).__name__})")
    if isinstance(error, httpx2.HTTPError | OSError | ImportError | ValueError):
        why = shown(str(error))
        return UnreachableError(
            f"{asked} cannot be reached ({type(error).__name__}: {why}); look at the network and carbon.base_url"
        )
    return error


def _not_ours(_: logging.LogRecord) -> bool:
    return threading.current_thread().name != THREAD
