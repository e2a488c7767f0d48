"""Requests to an API server: which are retried and for how long, and how answers become objects or errors."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any  # a Kubernetes object

from gridsweep.errors import ApiError
from gridsweep.executors.kubernetes.api.credentials import Server
from gridsweep.executors.kubernetes.api.errors import (
    Conflict,
    Denied,
    Expired,
    Forbidden,
    NotFound,
    QuotaExceeded,
    Unauthorized,
    Unreachable,
)

if TYPE_CHECKING:
    import httpx2

Object = dict[str, Any]

PATIENCE_SECONDS = 30.0
PROXY_SECONDS = 3.0
"""Seconds of retries for a request to a pod; a pod that does not answer is inspected through the API instead."""
REQUEST_SECONDS = 15.0
FIRST_BACKOFF, MOST_BACKOFF = 0.25, 8.0
PAGE = 500
WATCH_SECONDS = 300
"""Seconds after which the server ends a watch; a minute more of silence means a dead connection."""
REVIEW = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
AGAIN = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, by the API server's names; the core group is ""."""

    group: str
    plural: str
    version: str = "v1"
    namespaced: bool = True

    def path(self, namespace: str, *rest: str) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return "/".join([root, *(["namespaces", namespace] if self.namespaced else []), self.plural, *rest])

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


JOBS, PODS, CLAIMS = Resource("ray.io", "rayjobs"), Resource("", "pods"), Resource("", "persistentvolumeclaims")
EVENTS = Resource("", "events")
WORKLOADS = tuple(Resource("kueue.x-k8s.io", "workloads", version) for version in ("v1beta1", "v1beta2"))
"""Kueue's own objects, in the versions that its releases serve."""


class Api:
    """Client of an API server, in one namespace.

    Temporary failures (429, 5xx, no connection, a truncated answer) are retried with jittered backoff, or after the
    server's Retry-After, for `patience` seconds; then `Unreachable` is raised. Every request may reach the server
    twice: a second create raises `Conflict`, a second delete `NotFound`.
    """

    def __init__(
        self,
        server: Server,
        namespace: str,
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ):
        import httpx2

        self.server, self.namespace, self.patience = server, namespace, patience
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._http = httpx2.Client(
            base_url=server.url,
            verify=server.verify,
            timeout=REQUEST_SECONDS,
            follow_redirects=False,  # a redirect must not receive the token
            trust_env=server.trust_env,
        )

    def close(self) -> None:
        self._http.close()

    # -- objects

    def list(self, resource: Resource, selector: str = "", fields: str = "") -> tuple[list[Object], str]:
        """Return all objects with these labels (and `fields`), and their resourceVersion."""
        chosen = {"labelSelector": selector} | ({"fieldSelector": fields} if fields else {})
        while True:
            found: list[Object] = []
            more: dict[str, str] = {}
            try:
                while True:
                    params = {**chosen, "limit": str(PAGE)} | more
                    answer = self._json("GET", resource.path(self.namespace), "list", resource, params=params)
                    found += answer["items"]
                    token = answer["metadata"].get("continue")
                    if not token:
                        return found, str(answer["metadata"].get("resourceVersion", ""))
                    more = {"continue": token}
            except Expired:
                if not more:
                    raise  # otherwise the continue token expired: list again from the first page

    def get(self, resource: Resource, name: str) -> Object:
        return self._json("GET", resource.path(self.namespace, name), "get", resource, name)

    def create(self, resource: Resource, body: Object) -> Object:
        name = str(body["metadata"]["name"])
        return self._json("POST", resource.path(self.namespace), "create", resource, name, body=body)

    def try_create(self, resource: Resource, body: Object) -> Object:
        """Return what creating an object would make, by a dry run with unknown fields refused; raise as `create`."""
        name, params = str(body["metadata"]["name"]), {"dryRun": "All", "fieldValidation": "Strict"}
        return self._json("POST", resource.path(self.namespace), "create", resource, name, body=body, params=params)

    def patch(self, resource: Resource, name: str, body: Object) -> Object:
        """Apply a merge patch. With a resourceVersion, raise `Conflict` if the object has changed."""
        return self._json("PATCH", resource.path(self.namespace, name), "patch", resource, name, body=body)

    def delete(self, resource: Resource, name: str, uid: str = "", *, at_once: bool = False) -> None:
        """Delete an object and, in the background, its dependents; with `uid`, only if the object has that uid.

        `at_once`: without waiting for the kubelet of a pod, whose node may be gone.
        """
        body: Object = {"propagationPolicy": "Background"}
        if at_once:
            body["gracePeriodSeconds"] = 0
        if uid:
            body["preconditions"] = {"uid": uid}
        self._json("DELETE", resource.path(self.namespace, name), "delete", resource, name, body=body)

    def watch(self, resource: Resource, selector: str, version: str) -> Iterator[tuple[str, Object]]:
        """Yield the events after a version, (ADDED | MODIFIED | DELETED, object), until the server ends the watch.

        The watch is not retried. Raise `Expired` if the version is too old, `Unreachable` if the connection drops.
        """
        import httpx2

        params = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        url, timeout = resource.path(self.namespace), httpx2.Timeout(REQUEST_SECONDS, read=WATCH_SECONDS + 60)
        try:
            with self._http.stream("GET", url, params=params, headers=self.server.headers(), timeout=timeout) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refusal(answer, "watch", resource, "")
                for line in answer.iter_lines():
                    event = json.loads(line)
                    kind, object = event["type"], event["object"]
                    if kind == "ERROR":
                        error = Expired if object.get("code") == 410 else Unreachable
                        raise error(f"the watch of {resource} ended: {_short(object.get('message', ''))}")
                    if kind != "BOOKMARK":
                        yield kind, object
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unreachable(f"the watch of {resource} broke off ({type(error).__name__})") from None

    def proxy(
        self, method: str, pod: str, port: int, path: str, params: dict[str, str], secret: str
    ) -> httpx2.Response:
        """Send a request to an HTTP server in a pod, through the API server; `secret` goes in X-Gridsweep-Key."""
        resource, headers = Resource("", "pods/proxy"), {"X-Gridsweep-Key": secret}
        url = Resource("", "pods").path(self.namespace, f"{pod}:{port}", "proxy", path.lstrip("/"))
        verb = {"GET": "get", "DELETE": "delete"}[method]
        return self._asked(
            method, url, verb, resource, pod, params=params, headers=headers, patience=min(PROXY_SECONDS, self.patience)
        )

    def may(self, verb: str, resource: Resource) -> bool:
        """Return whether the account has this right; True if the server does not say."""
        attributes = {"namespace": self.namespace, "verb": verb, "group": resource.group}
        plural, _, subresource = resource.plural.partition("/")
        attributes |= {"resource": plural, "subresource": subresource}
        body = {**REVIEW, "spec": {"resourceAttributes": attributes}}
        kind = Resource("authorization.k8s.io", "selfsubjectaccessreviews")
        url = f"/apis/{kind.group}/{kind.version}/{kind.plural}"
        try:
            return bool(self._json("POST", url, "create", kind, body=body)["status"]["allowed"])
        except Unauthorized:
            raise
        except (Forbidden, NotFound, KeyError):
            return True

    # -- one request, with retries

    def _json(
        self,
        method: str,
        url: str,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        params: dict[str, str] | None = None,
        body: Object | None = None,
    ) -> Object:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind} if body is not None else {}
        content = json.dumps(body) if body is not None else None
        answer = self._asked(
            method, url, verb, resource, name, params=params, headers=headers, content=content, whole=True
        )
        value: Object = answer.json()
        return value

    def _asked(
        self,
        method: str,
        url: str,
        verb: str,
        resource: Resource,
        name: str,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        content: str | None = None,
        whole: bool = False,
        patience: float | None = None,
    ) -> httpx2.Response:
        """Return the 2xx answer to a request, with retries. With `whole`, the answer must be a JSON object."""
        import httpx2

        end = self._clock() + (self.patience if patience is None else patience)
        tries = 0
        while True:
            pause = min(MOST_BACKOFF, FIRST_BACKOFF * 2**tries) * (0.5 + self._jitter() / 2)
            try:
                sent = (headers or {}) | self.server.headers()
                answer = self._http.request(method, url, params=params, headers=sent, content=content)
                if answer.status_code in AGAIN:
                    why = f"it answered {answer.status_code}"
                    pause = max(pause, _retry_after(answer))
                elif answer.status_code == 401 and tries == 0 and self.server.renew():
                    why, pause = "it answered 401", 0.0
                elif not answer.is_success:
                    raise self._refusal(answer, verb, resource, name)
                elif whole and not isinstance(answer.json(), dict):
                    why = "its answer is no object"
                else:
                    return answer
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {_short(str(error))}"
            except ValueError:
                why = "its answer is no JSON"
            tries += 1
            if self._clock() + pause > end:
                raise Unreachable(
                    f"the API server {self.server.url} cannot be reached ({why}, {tries} tries to {verb} {resource}); "
                    "look at the network and the cluster: nothing is lost, and what runs goes on"
                )
            self._sleep(pause)

    def _refusal(self, answer: httpx2.Response, verb: str, resource: Resource, name: str) -> ApiError:
        """Return the error for an answer that a retry would not change."""
        try:
            status = answer.json()
            said = _short(str(status.get("message", "")))
        except (ValueError, AttributeError):
            said = _short(answer.text)
        what = f"{resource} {name}".strip()
        where = f"in the namespace {self.namespace}"
        match answer.status_code:
            case 401:
                return Unauthorized(
                    f"the API server {self.server.url} does not accept our credentials; log in again, "
                    "or name another context in executor.kubernetes.context"
                )
            case 403 | 422 if (refused := _admission(said, what)) is not None:
                return refused
            case 403:
                return Forbidden(
                    f"not allowed to {verb} {resource} {where}; ask for a Role with the verb {verb!r} on "
                    f"{str(resource)!r} (for running sweeps `gridsweep render --role` writes it). "
                    f"The server says: {said}"
                )
            case 404:
                return NotFound(f"there is no {what} {where}: {said}")
            case 409:
                return Conflict(f"{what} {where} conflicts with the stored object: {said}")
            case 410:
                return Expired(f"the version of {resource} is too old: {said}")
            case code if code in AGAIN:
                return Unreachable(f"the API server answered {code} to {verb} {what}")
            case code:
                return ApiError(f"the API server refused to {verb} {what} {where} ({code}): {said}")


def _retry_after(answer: httpx2.Response) -> float:
    """Return the seconds in an answer's Retry-After header, else 0; API servers do not send dates."""
    try:
        return max(0.0, float(answer.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0


def _admission(said: str, what: str) -> ApiError | None:
    """Return the error for a refusal by admission: a quota, a policy, a webhook or a plug-in; None if it is no such.

    All but rights come as `KIND "NAME" is forbidden: REASON`, or name what denied the request.
    """
    reason = said.partition(" is forbidden: ")[2]
    if reason.startswith("exceeded quota: "):
        return QuotaExceeded(f"{what} is refused for now: {reason}", reason)
    if " denied request: " in said or " denied the request" in said:
        return Denied(
            f"an admission policy of the cluster refuses {what}: {reason or said}; "
            "change the spec to what the policy allows, or ask its owner for an exception"
        )
    if reason and not reason.startswith("User "):
        return Denied(f"the cluster refuses {what}: {reason}; change the spec, or ask the cluster's administrators")
    return None


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
