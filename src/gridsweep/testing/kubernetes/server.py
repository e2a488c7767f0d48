"""The API server double over real HTTP on the loopback interface."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer

from gridsweep.testing.kubernetes.http import serve
from gridsweep.testing.kubernetes.store import Store


class ApiServer(Store):
    """The API server double, a context manager; `url` is its address."""

    def __init__(self) -> None:
        super().__init__()
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._http is not None
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> ApiServer:
        self._http = serve(self)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.drop_watches()
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        if kind is None and self.unrecorded:
            raise AssertionError(f"asked for what was never recorded: {'; '.join(self.unrecorded)}")
