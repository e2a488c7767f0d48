"""Access control of the small server: an ASGI wrapper around the whole application.

- The Host header must be an address, `localhost` or a name of this server. This stops DNS rebinding, where a page of
  another site reaches this machine under its own name.
- A POST must have the content type JSON. A page of another site can send that only after a CORS preflight request,
  which this server never grants.
- With a key set, every path except /health requires the key; it is compared in constant time.
- A body is read completely, up to limits of size and time, before the application sees it; one whose stated length is
  far over the limit is not read at all.
- Only so many requests are answered at once; what the application raises is an answer too.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import sys
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any  # ASGI's messages

from gridsweep.serving import wire

BODY_LIMIT = 4 << 20
BODY_SECONDS = 30.0
FAR = 4
"""A body whose stated length is this many times the limit is refused unread. Of a shorter one the limit is read first:
few clients look for an answer before they have sent it."""
AT_ONCE = 32
"""The most requests that are read or answered at a time."""
REFUSED = "invalid_request_error"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """Admit requests that pass the rules of the module docstring. `names` are the host names of this server."""

    def __init__(self, app: App, names: Collection[str], key: str | None, limit: int = BODY_LIMIT):
        self.app, self.names, self.limit = app, {"localhost", *(n.lower() for n in names)}, limit
        self.wanted = f"Bearer {key}".encode() if key else None
        self.busy = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # this server has no web sockets
        if self.busy >= AT_ONCE:
            await _answer(send, 503, f"{AT_ONCE} requests are being answered; try again", "server_error")
            return
        self.busy += 1
        try:
            await self._admitted(scope, receive, send)
        finally:
            self.busy -= 1

    async def _admitted(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in reversed(scope["headers"])}
        refusal = self._refusal(scope, headers)
        body: bytes | None = b""
        if refusal is None:
            try:
                body = await asyncio.wait_for(self._body(receive), BODY_SECONDS)
            except TimeoutError:
                refusal = (408, f"the body did not come within {BODY_SECONDS:.0f} s", REFUSED)
            if body is None:
                refusal = self._too_long()
        if refusal is not None:
            await _answer(send, *refusal)
            return
        await self._answered(scope, _replay(body or b"", receive), send)

    async def _answered(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the application answer; if it raises before it began to, the answer says that, in the form of all."""
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, told)
        except Exception as error:
            if begun:
                raise
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            await _answer(send, 500, f"the server failed ({type(error).__name__}); its log says more", "server_error")

    def _refusal(self, scope: Message, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        if not self._known(headers.get(b"host", b"").decode("latin-1")):
            return (421, "this server does not have that name; use its address, or localhost", REFUSED)
        told = headers.get(b"authorization", b"")
        if self.wanted and scope["path"] != "/health" and not hmac.compare_digest(told, self.wanted):
            return 401, "a key is needed: Authorization: Bearer KEY", "authentication_error"
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                return 415, "send JSON, with Content-Type: application/json", REFUSED
        length = headers.get(b"content-length", b"").strip()
        if length.isdigit() and (len(length) > 18 or int(length) > FAR * self.limit):
            return self._too_long()
        return None

    def _too_long(self) -> tuple[int, str, str]:
        return 413, f"the body has more than {self.limit} bytes; send less", REFUSED

    def _known(self, host: str) -> bool:
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body; None if it is too long."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break  # the client disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                return None
        return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that delivers the body once, then the later messages (a disconnect)."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(send: Send, status: int, message: str, kind: str) -> None:
    text = json.dumps(wire.error(message, kind)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    headers += [(b"connection", b"close")] if status in (408, 413) else []
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
