"""An API server double: real HTTP on loopback, objects in memory, and every failure that a client has to survive.

It implements the features clients rely on: resourceVersions, label selectors, pages, watches, 404 / 409 / 410, rights
by verb, deletion that waits for an operator. `fail` makes requests fail, `down` makes the server unreachable.

Its answers are those that were recorded from real programs. A request for which there is no recording is noted in
`unrecorded`, and fails the test at the end.
"""

from __future__ import annotations

import copy
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any  # a Kubernetes object; the fields of a fault, by name

Object = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name

NAMESPACE = "gridsweep"
KINDS = {
    "rayjobs": "ray.io",
    "pods": "",
    "pods/proxy": "",
    "persistentvolumeclaims": "",
    "events": "",
    "workloads": "kueue.x-k8s.io",
}
"""The kinds of objects that the double knows, with their API groups."""
SERVED = {"rayjobs", "pods", "persistentvolumeclaims", "events"}
"""The kinds that are served unless a test says otherwise; Kueue is not installed."""
FINALIZED = ("rayjobs", "pods")
"""Objects that are deleted in two steps: marked first, and removed when their operator is done."""


class Unrecorded(Exception):
    """No recording of the real programs says what they would answer."""


@dataclass
class Fault:
    """A fault of the next `times` requests with a verb (`*`: any) on a plural: a status, or another failure.

    `how`: `status`, `drop` (no answer), `late` (done, then no answer), `truncate`, `garbage`, `slow`.
    """

    verb: str = "*"
    plural: str = "*"
    how: str = "status"
    code: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


class Store:
    """The objects of the API server double, their history, and the controls for tests."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.history: list[tuple[int, str, Key, Object]] = []
        self.version, self.oldest = 100, 100
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.requests: list[tuple[str, str, str]] = []  # verb, plural, name
        self.faults: list[Fault] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.rights: set[tuple[str, str, str]] | None = None  # group, resource, verb; None: all
        self.kinds = set(SERVED)
        self.unrecorded: list[str] = []
        self.job_quota: int | None = None  # of the namespace, on count/rayjobs.ray.io
        self.policy = ""  # why an admission policy denies RayJobs
        self.epoch = 0  # a watch ends when it changes
        self.is_down = False
        self.ports: dict[str, int] = {}  # by pod: the port of its server
        self.before: Callable[[str, str, str], None] = lambda verb, plural, name: None

    # -- for tests

    def fail(self, **how: Any) -> None:
        self.faults.append(Fault(**how))

    def fault(self, verb: str, plural: str) -> Fault | None:
        """Return the fault that applies to this request, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.verb in ("*", verb) and fault.plural in ("*", plural):
                    fault.times -= 1
                    return fault
        return None

    def forbid(self, verb: str, plural: str) -> None:
        self.forbidden.add((verb, plural))

    def grant(self, rules: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        """Allow what these rules of a Role allow (group, resource, verbs), and nothing else."""
        self.rights = {(group, plural, verb) for group, plural, verbs in rules for verb in verbs}

    def may(self, verb: str, plural: str, group: str) -> bool:
        granted = self.rights is None or (group, plural, verb) in self.rights
        return granted and (verb, plural) not in self.forbidden

    def refusal(self, plural: str, name: str) -> tuple[int, str, str] | None:
        """Return how admission refuses a new object (code, reason, message); None if it admits the object."""
        if plural != "rayjobs":
            return None
        if self.policy:
            said = f"ValidatingAdmissionPolicy 'P' with binding 'B' denied request: {self.policy}"
            return 422, "Invalid", said
        used = len(self.all("rayjobs"))
        if self.job_quota is not None and used >= self.job_quota:
            counted = "count/rayjobs.ray.io"
            said = f"requested: {counted}=1, used: {counted}={used}, limited: {counted}={self.job_quota}"
            return 403, "Forbidden", f'rayjobs.ray.io "{name}" is forbidden: exceeded quota: jobs, {said}'
        return None

    def drop_watches(self) -> None:
        with self.news:
            self.epoch += 1
            self.news.notify_all()

    def compact(self) -> None:
        """Delete all history, so that a watch from an older version is answered 410."""
        with self.news:
            self.version += 1
            self.oldest = self.version
            self.history.clear()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Make the server unreachable during the block."""
        self.is_down = True
        self.drop_watches()
        try:
            yield
        finally:
            self.is_down = False

    def count(self, verb: str, plural: str) -> int:
        return sum((v, p) == (verb, plural) for v, p, _ in self.requests)

    # -- objects

    def all(self, plural: str) -> list[Object]:
        """Return all objects of a kind; they are never changed in place, and callers must not change them."""
        with self.lock:
            return [made for (kind, _, _), made in self.objects.items() if kind == plural]

    def find(self, plural: str, name: str) -> Object | None:
        with self.lock:
            key = self._key(plural, name)
            return self.objects[key] if key else None

    def _key(self, plural: str, name: str) -> Key | None:
        key = (plural, NAMESPACE, name)
        return key if key in self.objects else None

    def put(self, plural: str, made: Object) -> Object | None:
        """Create an object; return None if its name is taken."""
        with self.news:
            meta = made["metadata"]
            key = (plural, meta.setdefault("namespace", NAMESPACE), meta["name"])
            if key in self.objects:
                return None
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1}
            return self._store("ADDED", key, made)

    def change(self, plural: str, name: str, patch: Object) -> Object | None:
        """Merge a patch into an object, if it still exists."""
        with self.news:
            key = self._key(plural, name)
            if key is None:
                return None
            changed = merge(self.objects[key], patch)
            return self.objects[key] if changed == self.objects[key] else self._store("MODIFIED", key, changed)

    def mark_deleted(self, plural: str, name: str) -> Object | None:
        """Delete as a client does: `FINALIZED` objects are marked, others are removed."""
        with self.news:
            found = self.find(plural, name)
            if found is None:
                return None
            if plural not in FINALIZED:
                self.remove(plural, name)
            elif not found["metadata"].get("deletionTimestamp"):
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                self.change(plural, name, {"metadata": {"deletionTimestamp": now}})
            return found

    def remove(self, plural: str, name: str) -> None:
        """Remove an object at once, as its time to live or its operator does."""
        with self.news:
            key = self._key(plural, name)
            if key is not None:
                gone = self.objects[key]
                self._store("DELETED", key, gone)
                del self.objects[key]

    def _store(self, event: str, key: Key, made: Object) -> Object:
        self.version += 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(self.version)}}
        self.objects[key] = made
        self.history.append((self.version, event, key, made))
        self.news.notify_all()
        return made

    def proxied(self, pod: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Return the answer of a server in a pod."""
        port = self.ports.get(pod)
        if port is None:
            return (404, b"{}", {}) if self.find("pods", pod) is None else (503, b"{}", {})
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)
        except OSError:
            return 503, b"{}", {}


def merge(old: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge(made.get(key), value)
    return made


def selected(made: Object, selector: str) -> bool:
    """Return whether an object's labels satisfy `a=b,c=d`. Raise `Unrecorded` for another form."""
    labels = made["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in equalities(selector))


def picked(made: Object, fields: str) -> bool:
    """Return whether an event's fields satisfy `a.b=c`, for the fields that events can be selected by."""
    about = made.get("involvedObject") or {}
    known = {f"involvedObject.{key}": about.get(key) for key in ("kind", "name")} | {
        key: made.get(key) for key in ("type", "reason")
    }
    wanted = equalities(fields)
    if not {key for key, _ in wanted} <= set(known):
        raise Unrecorded(f"events selected by {fields}")
    return all(known[key] == value for key, value in wanted)


def equalities(selector: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in selector.split(",") if part]
    if any(not cut or key.endswith("!") or value.startswith("=") for key, cut, value in parts):
        raise Unrecorded(f"the selector {selector}")
    return [(key, value) for key, _, value in parts]
