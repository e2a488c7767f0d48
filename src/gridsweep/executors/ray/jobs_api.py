"""Ray's Jobs API over plain HTTP: the documented endpoints, and two that Ray's own client and dashboard use.

Every call has an end: one that gets no answer raises `Unreachable`, and for a few seconds the next ones do so at once.
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

MOST = 64 << 20
"""No answer is longer, bytes."""
BREAK = 3.0
"""Seconds for which a cluster that did not answer is not asked again."""
START_ONE = "start a cluster there (`ray start --head`), open a tunnel to its dashboard, or change executor.ray.address"
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
NEVER_STARTED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"


class Unreachable(Exception):
    """The cluster does not answer, or not now, or not to us: nothing is known of what runs there."""

    def __init__(self, what: str, advice: str = "try again when it does"):
        super().__init__(what)
        self.advice = advice


class Missing(Exception):
    """The cluster answers that a file is not there; `node_gone`: because its node is not."""

    def __init__(self, what: str, node_gone: bool):
        super().__init__(what)
        self.node_gone = node_gone


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None  # a token does not go to wherever somebody points


@dataclass(frozen=True, slots=True)
class Job:
    """What the cluster says of a job; times are seconds since 1970 on its clock."""

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
        """Ray gives up on a job that got no resources in time (15 minutes, unless the cluster says otherwise)."""
        return self.status == "FAILED" and self.error == NEVER_STARTED


class JobsApi:
    """Talks to the dashboard at `address`; `token` names where its token is kept (`env:NAME`, `file:PATH`)."""

    def __init__(self, address: str, token: str | None = None, timeout: float = 10.0):
        self.address, self.token, self.timeout = address.rstrip("/"), token, timeout
        # No proxy: a cluster's dashboard is near, or reached through a tunnel.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
        self._down_until = 0.0

    def version(self) -> str:
        """The version of Ray that answers."""
        return str(self._json("GET", "/api/version")["ray_version"])

    def job(self, id: str) -> Job | None:
        """A job, or None where the cluster knows none of that name."""
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
        """Submit a job; False where there is one of that id already."""
        status, body = self._call("POST", "/api/jobs/", json.dumps(request).encode())
        if status != 200 and b"already exists" in body:
            return False
        self._parsed(status, body)
        return True

    def stop(self, id: str) -> None:
        """Ask a job to stop; one that is gone is none to stop."""
        self._call("POST", f"/api/jobs/{quote(id)}/stop")

    def delete(self, id: str) -> None:
        """Make the cluster forget a job that has ended."""
        self._call("DELETE", f"/api/jobs/{quote(id)}")

    def upload(self, name: str, data: bytes) -> str:
        """Put a package where the cluster's nodes find it, unless it is there; its URI."""
        path = f"/api/packages/gcs/{quote(name)}"
        if self._call("GET", path)[0] != 200:  # asking also keeps it until the job comes
            status, body = self._call("PUT", path, data)
            if status != 200:
                raise self._refusal(status, body)
        return f"gcs://{name}"

    def log_file(self, node: str, name: str) -> bytes:
        """A file of a node's log folder. Raises `Missing`."""
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
    """A secret by where it is kept, `env:NAME` or `file:PATH`. Raises `ExecutorError` where there is none."""
    kind, _, name = reference.partition(":")
    try:
        value = os.environ[name] if kind == "env" else Path(name).expanduser().read_text()
    except (KeyError, OSError):
        raise ExecutorError(f"there is no token in {reference}; put it there, or change `token` in the spec") from None
    return value.strip()
