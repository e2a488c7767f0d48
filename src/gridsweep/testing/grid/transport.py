"""A provider double without a socket, for tests in which hours pass in a moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from gridsweep.testing.grid.dialect import Dialect, Grid
from gridsweep.testing.grid.server import GridApi

if TYPE_CHECKING:
    import httpx2

Window = tuple[datetime, datetime]
"""Start, and end (exclusive)."""


class GridTransport(GridApi):
    """An httpx2 transport (by its interface) that answers in a dialect from a grid; outages refuse all requests."""

    def __init__(self, dialect: Dialect, grid: Grid, *, outages: Sequence[Window] = ()):
        super().__init__(dialect, grid, elsewhere="https://elsewhere.invalid")
        self.outages = list(outages)
        self.refused: list[datetime] = []
        """The times of requests during an outage."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        import httpx2

        now = self.grid.now()
        with self.flying():
            if any(start <= now < end for start, end in self.outages):
                self.refused.append(now)
                raise httpx2.ConnectError("there is an outage", request=request)
            request.read()
            response, delivery = self.answer(request.method, request.url.raw_path.decode(), dict(request.headers))
            if delivery in ("close", "noise"):
                raise httpx2.RemoteProtocolError("the answer is not HTTP", request=request)
            if delivery == "drip":
                raise httpx2.ReadTimeout("it took too long", request=request)
            headers = {**response.headers, "content-length": str(len(response.body))}
            if delivery == "whole":
                return httpx2.Response(response.status, headers=headers, stream=_stream(response.body))
            return httpx2.Response(response.status, headers=headers, stream=_stream(response.body, broken=True))

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Refuse all requests during the block."""
        window = (
            datetime.min.replace(tzinfo=self.grid.now().tzinfo),
            datetime.max.replace(tzinfo=self.grid.now().tzinfo),
        )
        self.outages.append(window)
        try:
            yield
        finally:
            self.outages.remove(window)

    def __enter__(self) -> GridTransport:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _stream(body: bytes, *, broken: bool = False) -> httpx2.SyncByteStream:
    """Return the body in pieces; with `broken` it ends halfway, as when the connection is lost."""
    import httpx2

    class Stream(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            end = len(body) // 2 if broken else len(body)
            for start in range(0, end, 65536):
                yield body[start : min(start + 65536, end)]
            if broken:
                raise httpx2.ReadError("the connection was lost")

    return Stream()
