"""A small HTTP server over a store, in a pod that mounts the volume, through which a loop outside the cluster reads.

The server is reached through the API server's proxy, runs from its source alone (standard library only), and exits
after an hour without requests. Every request carries a key; the pod has only the key's digest.

    GET    /tree?path=P       {name: [bytes, written at]} of all files below a folder, and of the folder itself as "";
                               -1 bytes for what is no regular file
    GET    /file?path=P&at=N  the file from byte N on, at most 4 MiB; X-Digest covers the bytes sent, X-Size is the
                              size of the whole file
    GET    /sums?path=P       {name: SHA-256} of the files below a folder
    DELETE /tree?path=P       removes a folder of checkpoints

A missing file or folder gives an empty answer and not a 404, because the API server answers 404 for a missing pod.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PORT = 8484
PIECE = 4 << 20
IDLE_SECONDS = 3600.0
KEY = "X-Gridsweep-Key"


class Reader(ThreadingHTTPServer):
    """Serves `store` to requests with the key whose SHA-256 digest is `lock`."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], store: Path, lock: str):
        super().__init__(address, Handler)
        self.store, self.lock, self.asked = store.resolve(), lock, time.monotonic()

    def leave_when_idle(self) -> None:
        while time.monotonic() - self.asked < IDLE_SECONDS:
            time.sleep(30)
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Reader

    def do_GET(self) -> None:
        self._answer({"/tree": self._tree, "/file": self._file, "/sums": self._sums})

    def do_DELETE(self) -> None:
        self._answer({"/tree": self._remove})

    def _answer(self, ways: dict[str, object]) -> None:
        self.server.asked = time.monotonic()
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        shown = hashlib.sha256(self.headers.get(KEY, "").encode()).hexdigest()
        try:
            path = (self.server.store / asked.get("path", "")).resolve()
            if not hmac.compare_digest(shown, self.server.lock):
                self._send(409, b"another key")
            elif not path.is_relative_to(self.server.store) or not callable(way := ways.get(url.path)):
                self._send(400, b"no such thing here")
            else:
                way(path, int(asked.get("at", "0")))
        except FileNotFoundError:
            self._send(200, b"{}" if url.path != "/file" else b"", 0)
        except (OSError, ValueError) as error:
            self._send(422, f"{type(error).__name__}: {error}".encode())

    def _tree(self, path: Path, at: int) -> None:
        found = {"": [0, path.stat().st_mtime]}
        for file in path.rglob("*"):
            try:
                seen = file.lstat()
            except FileNotFoundError:
                continue  # a draft that was just renamed
            if file.is_file() and not file.is_symlink():
                found[str(file.relative_to(path))] = [seen.st_size, seen.st_mtime]
            elif not file.is_dir() or file.is_symlink() or file.suffix == ".json":
                found[str(file.relative_to(path))] = [-1, seen.st_mtime]
        self._send(200, json.dumps(found).encode())

    def _file(self, path: Path, at: int) -> None:
        if path.exists() and not path.is_file():
            raise ValueError("no regular file")  # a pipe would block its reader
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(at)
            self._send(200, file.read(PIECE), size)

    def _sums(self, path: Path, at: int) -> None:
        sums = {}
        for file in sorted(path.rglob("*")):
            if file.is_file() and not file.is_symlink():
                with file.open("rb") as handle:
                    sums[str(file.relative_to(path))] = hashlib.file_digest(handle, "sha256").hexdigest()
        self._send(200, json.dumps(sums).encode())

    def _remove(self, path: Path, at: int) -> None:
        if path.name != "checkpoints":
            raise ValueError("only checkpoints are removed")
        shutil.rmtree(path, ignore_errors=True)
        self._send(200, b"{}")

    def _send(self, code: int, body: bytes, size: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Digest", hashlib.sha256(body).hexdigest())
        self.send_header("X-Size", str(len(body) if size is None else size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: requests are not logged."""


if __name__ == "__main__":
    port = int(os.environ.get("GRIDSWEEP_READER_PORT", PORT))
    reader = Reader(("", port), Path(os.environ["GRIDSWEEP_STORE"]), os.environ["GRIDSWEEP_READER_LOCK"])
    threading.Thread(target=reader.leave_when_idle, daemon=True).start()
    reader.serve_forever()
