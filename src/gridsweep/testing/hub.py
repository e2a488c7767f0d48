"""A double of the Hugging Face hub on the loopback interface: repositories with commits, and branches that move.

    with Hub() as hub:
        hub.push("datasets", "me/pairs", {"train.jsonl": b"..."})
        # HF_ENDPOINT=hub.url, and HF_HOME a folder of the test's own

It answers what `huggingface_hub` and `datasets` ask: information, trees and files of a revision, ranges of a file, and
the header `X-Error-Code` for what is missing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit

Kind = Literal["models", "datasets"]


class Missing(Exception):
    """A repository, revision or file that is not there, by the hub's own word for it."""


class Hub:
    """The repositories, and a server for them while it is entered. `asked` lists method and path of each request."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str, str], str] = {}
        self.asked: list[str] = []
        hub = self

        class Bound(Handler):
            repositories = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def push(self, kind: Kind, id: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Make these files the next commit of a branch, and return its name, 40 hex digits."""
        held = self.commits.setdefault((kind, id), {})
        content = [f"{path} {hashlib.sha1(data).hexdigest()}" for path, data in sorted(files.items())]
        commit = hashlib.sha1("\n".join([str(len(held)), *content]).encode()).hexdigest()
        held[commit] = dict(files)
        self.branches[kind, id, branch] = commit
        return commit

    def files(self, kind: str, id: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """Return the commit that a revision names, and its files. Raise `Missing`."""
        if (kind, id) not in self.commits:
            raise Missing("RepoNotFound")
        commit = self.branches.get((kind, id, revision), revision)
        if commit not in self.commits[kind, id]:
            raise Missing("RevisionNotFound")
        return commit, self.commits[kind, id][commit]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: Hub

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        self.repositories.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if path.startswith("api/"):
                kind, id, rest = _parts(path.removeprefix("api/"))
                about = self._about(kind, id, rest, body, "recursive=true" in url.query.lower())
                self._send(200, json.dumps(about).encode())
            else:
                kind, id, rest = _parts(path if path.startswith("datasets/") else f"models/{path}")
                self._file(kind, id, rest)
        except Missing as missing:
            self._send(404, b"{}", {"X-Error-Code": str(missing), "X-Error-Message": str(missing)})

    def _about(self, kind: str, id: str, rest: list[str], body: bytes, recursive: bool) -> object:
        """Return the information about a revision, or about its files and folders."""
        verb, revision = (*rest, "", "main")[:2] if len(rest) > 1 else ("revision", "main")
        commit, files = self.repositories.files(kind, id, revision)
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            return {"id": id, "sha": commit, "private": False, "tags": [], "downloads": 0, "siblings": siblings}
        below = "".join(f"{part}/" for part in rest[2:])
        if verb == "paths-info":
            wanted = set(_asked_paths(body))
        elif verb == "tree":
            wanted = {name for name in _with_folders(files) if name.startswith(below)}
            if below and not wanted:
                raise Missing("EntryNotFound")
            if not recursive:
                wanted = {name for name in wanted if "/" not in name.removeprefix(below)}
        else:
            raise Missing("EntryNotFound")
        return [_entry(name, files.get(name)) for name in _with_folders(files) if name in wanted]

    def _file(self, kind: str, id: str, rest: list[str]) -> None:
        """Send a file of a revision, or a range of it."""
        if rest[:1] != ["resolve"] or len(rest) < 3:
            raise Missing("EntryNotFound")
        commit, files = self.repositories.files(kind, id, rest[1])
        name = "/".join(rest[2:])
        if name not in files:
            raise Missing("EntryNotFound")
        data, code = files[name], 200
        headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if (asked := self.headers.get("Range", "")).startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
            data, code = data[start : stop + 1], 206
        self._send(code, data, headers)

    def _send(self, code: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _parts(path: str) -> tuple[str, str, list[str]]:
    """Return kind, id and the rest of a path such as models/me/tiny/resolve/main/config.json."""
    kind, *parts = path.split("/")
    if kind not in ("models", "datasets") or len(parts) < 2:
        raise Missing("RepoNotFound")
    return kind, "/".join(parts[:2]), parts[2:]


def _asked_paths(body: bytes) -> list[str]:
    """Return the paths in the body of a request for information about paths: JSON, or a form."""
    if body.startswith(b"{"):
        return [str(path) for path in json.loads(body)["paths"]]
    return [unquote(part.partition("=")[2].replace("+", " ")) for part in body.decode().split("&") if "paths=" in part]


def _with_folders(files: Mapping[str, bytes]) -> list[str]:
    """Return the paths of all files and of the folders they are in."""
    folders = {name.rsplit("/", depth)[0] for name in files for depth in range(1, name.count("/") + 1)}
    return sorted({*files, *folders})


def _entry(path: str, data: bytes | None) -> dict[str, object]:
    if data is None:
        return {"type": "directory", "path": path, "size": 0, "oid": _etag(path.encode())}
    return {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
