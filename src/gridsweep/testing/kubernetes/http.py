"""The HTTP side of the API server double: paths to verbs, rights, faults, and answers."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from gridsweep.testing.kubernetes.store import KINDS, Fault, Object, Store, Unrecorded, picked, selected

SLOW_SECONDS = 0.3
PASSED_ON = ("X-Gridsweep-Key",)


class Dropped(Exception):
    """The connection is to be closed without an answer."""


def serve(server: Store) -> ThreadingHTTPServer:
    """Return an HTTP server on a free port of the loopback interface."""

    class Bound(Handler):
        api = server

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    listening.daemon_threads = True
    # A closed connection is not reported; mypy does not allow replacing a method.
    listening.handle_error = lambda request, address: None  # type: ignore[method-assign,assignment]
    return listening


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    api: Store

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PATCH(self) -> None:
        self._handle("PATCH")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def _handle(self, method: str) -> None:
        try:
            if self.api.is_down:
                raise Dropped
            self._answer(method)
        except Dropped:
            self.close_connection = True
        except Unrecorded as error:
            self.api.unrecorded.append(f"{method} {self.path}: {error}")
            self.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if url.path.endswith("/selfsubjectaccessreviews"):
            wanted = body["spec"]["resourceAttributes"]
            plural = "/".join(part for part in (wanted["resource"], wanted.get("subresource")) if part)
            allowed = self.api.may(wanted["verb"], plural, wanted["group"])
            return self._send(201, {"status": {"allowed": allowed}})
        place = url.path.partition("/namespaces/")[2].split("/")
        namespace, plural, name = [*place, "", ""][:3]
        proxied = place[3:4] == ["proxy"]
        verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "GET": "get" if name else "list"}
        if method not in verbs:
            raise Unrecorded("this method")
        verb = verbs[method]
        if asked.get("watch"):
            verb = "watch"
        kind = "pods/proxy" if proxied else plural
        if kind not in KINDS or (len(place) > 3 and not proxied):
            raise Unrecorded("this kind of object")
        name = name.partition(":")[0] if proxied else name or str(body.get("metadata", {}).get("name", ""))
        self.api.requests.append((verb, kind, name))
        self.api.before(verb, kind, name)
        fault = self.api.fault(verb, kind)
        if fault is not None and self._broken(fault):
            return None
        if not self.api.may(verb, kind, group := KINDS[kind]):
            return self._refuse(
                403,
                "Forbidden",
                f'{kind}{"." * bool(group)}{group} is forbidden: User "loop" cannot {verb} resource "{kind}" '
                f'in API group "{group}" in the namespace "{namespace}"',
            )
        if plural not in self.api.kinds:
            return self._refuse(404, "NotFound", "the server could not find the requested resource")
        if proxied:
            headers = {key: self.headers[key] for key in PASSED_ON if self.headers[key]}
            status, content, more = self.api.proxied(name, method, "/".join(place[4:]) + "?" + url.query, headers)
            kept = {key: value for key, value in more.items() if key.startswith("X-")}
            return self._raw(status, content, kept)
        if verb == "watch":
            return self._watch(plural, asked)
        answer = self._done(verb, plural, name, asked, body)
        if fault is not None and fault.how == "late":
            raise Dropped
        return self._send(*answer, cut=fault is not None and fault.how == "truncate")

    def _broken(self, fault: Fault) -> bool:
        """Apply a fault; return False if the request must still be served."""
        if fault.how == "drop":
            raise Dropped
        if fault.how == "slow":
            time.sleep(SLOW_SECONDS)
        if fault.how == "garbage":
            self._raw(200, b"<html>a proxy's own page</html>", {})
        if fault.how == "status":
            self._refuse(fault.code, "Fault", "told to fail", fault.headers)
        return fault.how in ("garbage", "status")

    def _done(self, verb: str, plural: str, name: str, asked: dict[str, str], body: Object) -> tuple[int, Object]:
        """Carry out a request, and return its answer."""
        with self.api.lock:
            if verb == "list":
                return self._list(plural, asked)
            found = self.api.find(plural, name)
            if verb == "create":
                if refused := self.api.refusal(plural, name):
                    return status(*refused)
                made = self.api.put(plural, body)
                return (201, made) if made else status(409, "AlreadyExists", f'{plural} "{name}" already exists')
            if found is None:
                return status(404, "NotFound", f'{plural} "{name}" not found')
            if verb == "get":
                return 200, found
            wanted = body.get("metadata", {}).get("resourceVersion")
            uid = body.get("preconditions", {}).get("uid")
            if wanted not in (None, found["metadata"]["resourceVersion"]):
                return status(409, "Conflict", "the object has been modified; please apply your changes")
            if uid not in (None, found["metadata"]["uid"]):
                return status(409, "Conflict", "the UID in the precondition does not match")
            if plural == "pods" and body.get("gracePeriodSeconds") == 0:
                self.api.remove(plural, name)
                return 200, found
            if verb == "patch":
                return 200, self.api.change(plural, name, body) or {}
            return 200, self.api.mark_deleted(plural, name) or {}

    def _list(self, plural: str, asked: dict[str, str]) -> tuple[int, Object]:
        items = [o for o in self.api.all(plural) if selected(o, asked.get("labelSelector", ""))]
        if fields := asked.get("fieldSelector", ""):
            if plural != "events":
                raise Unrecorded(f"the field selector {fields}")
            items = [o for o in items if picked(o, fields)]
        start, limit = int(asked.get("continue", "0")), int(asked.get("limit", "0")) or len(items)
        meta = {"resourceVersion": str(self.api.version)}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        return 200, {"kind": "List", "metadata": meta, "items": items[start : start + limit]}

    def _watch(self, plural: str, asked: dict[str, str]) -> None:
        seen, epoch = int(asked.get("resourceVersion") or self.api.version), self.api.epoch
        if seen < self.api.oldest:
            return self._refuse(410, "Expired", "too old resource version")
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        end = time.monotonic() + float(asked.get("timeoutSeconds", "60"))
        while time.monotonic() < end:
            with self.api.news:
                if self.api.epoch != epoch:
                    raise Dropped
                events = [h for h in self.api.history if h[0] > seen and h[2][0] == plural]
                if not events:
                    self.api.news.wait(0.5)
                    continue
            for version, event, _, made in events:
                seen = version
                if selected(made, asked.get("labelSelector", "")):
                    line = json.dumps({"type": event, "object": made}).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _refuse(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(*status(code, reason, message), headers=headers)

    def _send(self, code: int, answer: Object, *, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        content = json.dumps(answer).encode()
        self._raw(code, content, headers or {}, cut=cut)

    def _raw(self, code: int, content: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) // 2 if cut else len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: requests are not logged."""


def status(code: int, reason: str, message: str) -> tuple[int, Object]:
    """Return a Kubernetes `Status`, the answer to a refused request."""
    return code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
