"""Ray's Jobs API over plain HTTP: the documented endpoints, and two that Ray's own client and dashboard use.

Every call has a timeout: a call without an answer raises `Unreachable`, and so do all calls of the next few seconds, at
once.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any  # what the API answers as JSON
from urllib.parse import quote, urlencode

from gridsweep.errors import ExecutorError
from gridsweep.records.bounded import whole

MOST = 64 << 20
"""The longest accepted response, in bytes."""
BREAK = 3.0
"""Seconds without requests after the cluster did not answer."""
START_ONE = "start a cluster there (`ray start --head`), open a tunnel to its dashboard, or change executor.ray.address"
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
NEVER_STARTED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


class Unreachable(Exception):
    """The cluster does not answer, is temporarily unavailable, or refuses access: the state of its jobs is unknown."""

    def __init__(self, what: str, advice: str = "try again when it does"):
        super().__init__(what)
        self.advice = advice


class Missing(Exception):
    """The cluster answers that a file does not exist; `node_gone`: because its node is gone."""

    def __init__(self, what: str, node_gone: bool):
        super().__init__(what)
        self.node_gone = node_gone


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None  # a redirect must not receive the token


@dataclass(frozen=True, slots=True)
class Job:
    """The status of a job as the cluster reports it; times are seconds since 1970 on the cluster's clock."""

    id: str
    status: str
    message: str
    error: str
    node: str | None
    metadata: dict[str, str]
    started: float
    ended: float | None

    @property
    def waits(self) -> bool:
        return self.status == "PENDING"

    @property
    def over(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def never_started(self) -> bool:
        """Whether Ray gave up because the job got no resources in time (15 minutes, unless configured otherwise)."""
        return self.status == "FAILED" and self.error == NEVER_STARTED


class JobsApi:
    """Client of the dashboard at `address`; `token` names where its token is stored (`env:NAME`, `file:PATH`)."""

    def __init__(self, address: str, token: str | None = None, timeout: float = 10.0):
        self.address, self.token, self.timeout = address.rstrip("/"), token, timeout
        # No proxy: a cluster's dashboard is on the local network or behind a tunnel.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
        self._down_until = 0.0

    def version(self) -> str:
        """Return the cluster's version of Ray."""
        return str(self._json("GET", "/api/version")["ray_version"])

    def job(self, id: str) -> Job | None:
        """Return a job, or None if the cluster knows no job of that name."""
        status, body = self._call("GET", f"/api/jobs/{quote(id)}")
        if status == 404:
            return None
        told = self._parsed(status, body)
        return Job(
            id,
            str(told["status"]),
            str(told.get("message") or ""),
            str(told.get("error_type") or ""),
            told.get("driver_node_id"),
            told.get("metadata") or {},
            (told.get("start_time") or 0) / 1000,
            told["end_time"] / 1000 if told.get("end_time") else None,
        )

    def submit(self, request: dict[str, object]) -> bool:
        """Submit a job; return False if a job with that id exists already."""
        status, body = self._call("POST", "/api/jobs/", json.dumps(request).encode())
        if status != 200 and b"already exists" in body:
            return False
        self._parsed(status, body)
        return True

    def stop(self, id: str) -> None:
        """Ask a job to stop; do nothing if the job is gone."""
        self._call("POST", f"/api/jobs/{quote(id)}/stop")

    def delete(self, id: str) -> None:
        """Delete the cluster's record of a job that has ended."""
        self._call("DELETE", f"/api/jobs/{quote(id)}")

    def upload(self, name: str, data: bytes) -> str:
        """Upload a package for the cluster's nodes, unless it is already there, and return its URI."""
        path = f"/api/packages/gcs/{quote(name)}"
        if self._call("GET", path)[0] != 200:  # the request also keeps the package until the job starts
            status, body = self._call("PUT", path, data)
            if status != 200:
                raise self._refusal(status, body)
        return f"gcs://{name}"

    def log_file(self, node: str, name: str) -> bytes:
        """Return a file of a node's log folder. Raise `Missing` if the file or the node does not exist."""
        query = urlencode({"node_id": node, "filename": name, "lines": -1})
        status, body = self._call("GET", f"/api/v0/logs/file?{query}", temporary=TEMPORARY[:3] + TEMPORARY[4:])
        if status == 200:
            return body
        gone = b"Agent for node id" in body
        if gone or b"not found" in body:
            raise Missing(name, gone)
        raise Unreachable(f"{self.address} cannot read out {name} ({status})")

    # -- HTTP

    def _json(self, method: str, path: str) -> Any:
        return self._parsed(*self._call(method, path))

    def _parsed(self, status: int, body: bytes) -> Any:
        if status != 200:
            raise self._refusal(status, body)
        try:
            return json.loads(body)
        except ValueError:
            raise Unreachable(f"{self.address} does not speak Ray's Jobs API", "name Ray's dashboard there") from None

    def _refusal(self, status: int, body: bytes) -> Exception:
        words = self._redacted(body.decode(errors="replace").strip().rpartition("\n")[2][-300:])
        if status in (401, 403):
            advice = f"put the right one into {self.token}" if self.token else "name one: `token: env:NAME`"
            return Unreachable(f"{self.address} refuses the token ({status})", advice)
        return ExecutorError(f"{self.address} answers {status}: {words}")

    def _call(
        self, method: str, path: str, data: bytes | None = None, temporary: tuple[int, ...] = TEMPORARY
    ) -> tuple[int, bytes]:
        if time.monotonic() < self._down_until:
            raise Unreachable(f"{self.address} does not answer", START_ONE)
        request = urllib.request.Request(self.address + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {secret(self.token)}")
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                body = answer.read(MOST + 1)
                status = answer.status
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, error.read(MOST)
        except (OSError, HTTPException):
            self._down_until = time.monotonic() + BREAK
            raise Unreachable(f"{self.address} does not answer", START_ONE) from None
        if status in temporary and b"already exists" not in body:
            raise Unreachable(f"{self.address} answers {status}")
        if len(body) > MOST:
            raise ExecutorError(f"{self.address} answers {path} with more than {MOST >> 20} MiB")
        return status, body

    def _redacted(self, text: str) -> str:
        return text.replace(secret(self.token), "***") if self.token else text


def secret(reference: str) -> str:
    """Return the secret stored at `env:NAME` or `file:PATH`. Raise `ExecutorError` if there is none."""
    kind, _, name = reference.partition(":")
    try:
        value = os.environ[name] if kind == "env" else whole(Path(name).expanduser(), follow=True).decode()
    except (KeyError, OSError, ValueError, RuntimeError):
        raise ExecutorError(f"there is no token in {reference}; put it there, or change `token` in the spec") from None
    return value.strip()
