"""The pod through which a loop outside the cluster reads the volume: created on demand, replaced when it cannot serve.

A reader holds nothing, so it is replaced whenever it is not the one that this loop would create (another image, another
key), has ended, or does not answer.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.resources import files as resources_of
from typing import TYPE_CHECKING  # a Kubernetes object

from gridsweep.errors import ApiError
from gridsweep.executors.kubernetes.api import (
    PODS,
    Api,
    Conflict,
    Denied,
    NotFound,
    QuotaExceeded,
    Unreachable,
)
from gridsweep.executors.kubernetes.conditions import not_started, unscheduled
from gridsweep.executors.kubernetes.manifests import pods
from gridsweep.executors.kubernetes.manifests.names import (
    DIGEST,
    Manifest,
    digest,
    labels,
    metadata,
    object_name,
    store_of,
)
from gridsweep.executors.kubernetes.manifests.patches import patched
from gridsweep.executors.kubernetes.volume_reader import PORT
from gridsweep.sweep.clusters import KubernetesCluster

if TYPE_CHECKING:
    import httpx2

ANEW_SECONDS = 60.0
"""Seconds after which a reader that does not start, answer or leave is replaced."""


class ReaderDown(Unreachable):
    """The volume cannot be read: the reader pod has not served for `seconds`.

    `lasting`: for a reason that time alone does not remove, such as an image that cannot be pulled.
    """

    def __init__(self, message: str, seconds: float, *, lasting: bool):
        super().__init__(message)
        self.seconds, self.lasting = seconds, lasting


class Reader:
    """A reader pod of a sweep, and requests to it. `purpose` names the pod: programs at a time need different ones.

    `made` returns its manifest, for its name and key; by default `reader_pod` of the store.
    """

    def __init__(
        self,
        api: Api,
        cluster: KubernetesCluster,
        sweep: str,
        *,
        purpose: str = "reader",
        clock: Callable[[], float] = time.monotonic,
        made: Callable[[str, str], Manifest] | None = None,
    ):
        self._api, self._cluster, self._sweep, self._clock = api, cluster, sweep, clock
        self.name = object_name(sweep, purpose)
        self._key = secrets.token_urlsafe(24)
        self._manifest = (made or partial(reader_pod, cluster, sweep))(self.name, self._key)
        self._ready = False
        self._down_since: float | None = None  # it has not served since
        self._tried_since = 0.0  # when the present pod was first met
        self._why, self._lasting = "", False  # why it last did not start, told until it serves

    def ask(self, method: str, way: str, path: str, at: str = "0") -> httpx2.Response:
        """Return an answer of the reader, checked against its digest. Raise `ReaderDown` while it does not serve."""
        if not self._ready:
            self._wake()
        try:
            answer = self._api.proxy(method, self.name, PORT, way, {"path": path, "at": at}, self._key)
        except (NotFound, Conflict, Unreachable):
            self._ready = False
            self._replace_if_late()
            raise self._down("does not answer") from None
        self._down_since, self._why, self._lasting = None, "", False
        if hashlib.sha256(answer.content).hexdigest() != answer.headers.get("X-Digest"):
            raise Unreachable(f"{path} was garbled on its way from the volume")
        return answer

    def close(self) -> None:
        """Delete the reader, which otherwise exits after an hour without requests."""
        self._ready, self._down_since = False, None
        with suppress(ApiError):
            self._remove()

    def _wake(self) -> None:
        """Create or replace the reader if needed. Raise `ReaderDown` until it runs."""
        try:
            found = self._api.get(PODS, self.name)
        except NotFound:
            self._create()
            raise self._down("starts") from None
        except Unreachable:
            raise  # the API server is away, which is no fault of the reader
        status, meta = found.get("status") or {}, found["metadata"]
        if meta.get("deletionTimestamp"):
            self._replace_if_late()
            raise self._down("is being stopped")
        ours = (meta.get("annotations") or {}).get(DIGEST) == self._manifest["metadata"]["annotations"][DIGEST]
        if not ours or status.get("phase") in ("Succeeded", "Failed"):
            self._remove()
            raise self._down("is being replaced")
        if status.get("phase") == "Running":
            self._ready = True
            return
        if why := unscheduled(found):
            self._why, self._lasting = f"does not start: {why}", "persistentvolumeclaim" in why.lower()
        else:  # it has a node, and another node may serve better
            if why := not_started(found):
                self._why, self._lasting = f"does not start: {why}", True
            self._replace_if_late()
        raise self._down("starts")

    def _create(self) -> None:
        self._tried_since = self._clock()
        try:
            self._api.create(PODS, self._manifest)
        except Conflict:
            pass  # created meanwhile, or by a request whose answer was late
        except QuotaExceeded as error:
            self._why, self._lasting = f"is refused: {error.said}", False
        except Denied as error:
            self._why, self._lasting = f"is refused: {error}", True

    def _replace_if_late(self) -> None:
        """Delete a reader that has not served for long, without waiting for a node that may be gone."""
        if self._down_since is None or self._clock() - max(self._down_since, self._tried_since) < ANEW_SECONDS:
            return
        self._remove(at_once=True)
        self._tried_since = self._clock()

    def _down(self, why: str) -> ReaderDown:
        """Return the error; `why` is told unless a reason is known."""
        self._down_since = self._clock() if self._down_since is None else self._down_since
        message = f"the pod {self.name}, which reads the volume to us, {self._why or why}"
        return ReaderDown(message, self._clock() - self._down_since, lasting=self._lasting)

    def _remove(self, *, at_once: bool = False) -> None:
        with suppress(NotFound):
            self._api.delete(PODS, self.name, at_once=at_once)


def reader_pod(cluster: KubernetesCluster, sweep: str, name: str, key: str) -> Manifest:
    """Return the manifest of the reader pod of the store, complete."""
    return sealed(unsealed(cluster, sweep, name, key), cluster)


def sealed(made: Manifest, cluster: KubernetesCluster) -> Manifest:
    """Return a reader's manifest with the spec's patch, and an annotation that covers all of it."""
    made = patched(made, cluster.pod)
    seal = digest(json.dumps(made, sort_keys=True))
    made["metadata"]["annotations"] = {**made["metadata"].get("annotations", {}), DIGEST: seal}
    return made


def unsealed(cluster: KubernetesCluster, sweep: str, name: str, key: str) -> Manifest:
    """Return the manifest of a reader of the store before `sealed`. It gets only the digest of the key."""
    source = resources_of("gridsweep.executors.kubernetes").joinpath("volume_reader.py").read_text(encoding="utf-8")
    variables = pods.environment(
        GRIDSWEEP_READER=source,
        GRIDSWEEP_READER_LOCK=hashlib.sha256(key.encode()).hexdigest(),
        GRIDSWEEP_STORE=store_of(sweep),
        HOME="/tmp",
        PYTHONDONTWRITEBYTECODE="1",
    )
    container: Manifest = {
        "name": "reader",
        "image": cluster.image,
        "command": ["python", "-c", 'import os; exec(os.environ["GRIDSWEEP_READER"])'],
        "env": variables,
        "ports": [{"containerPort": PORT}],
        "resources": pods.resources("250m", "512Mi"),
        "securityContext": pods.container_security(),
        "volumeMounts": [pods.mount("store"), pods.mount("tmp", "/tmp")],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(cluster.namespace, name, labels(sweep, "reader")),
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": pods.security(),
            "containers": [container],
            "volumes": [pods.claim("store", cluster.volume), pods.scratch("tmp", "512Mi")],
        },
    }
