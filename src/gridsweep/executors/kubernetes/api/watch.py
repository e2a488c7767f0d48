"""A watch that only signals changes; the state itself comes from a list."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from gridsweep.errors import ApiError
from gridsweep.executors.kubernetes.api.client import Api, Resource
from gridsweep.executors.kubernetes.api.errors import Expired

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 20.0


class Watch:
    """Calls `wake` when an object with the labels may have changed; lists again after a 410 or a lost connection."""

    def __init__(self, api: Api, resource: Resource, selector: str, wake: Callable[[], object]):
        self._api, self._resource, self._selector, self._wake = api, resource, selector, wake
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {resource}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch; its thread exits when the server next sends something."""
        self._closed.set()

    def left(self, seconds: float = 0.0) -> bool:
        """Return whether the watch's thread has exited, or exits within this many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause, version = FIRST_PAUSE, ""
        while not self._closed.is_set():
            try:
                if not version:
                    version = self._api.list(self._resource, self._selector)[1]
                    self._wake()  # for changes that happened while there was no watch
                for _, object in self._api.watch(self._resource, self._selector, version):
                    version, pause = object["metadata"].get("resourceVersion", ""), FIRST_PAUSE
                    if self._closed.is_set():
                        return
                    self._wake()
            except Expired:
                version = ""
            except (ApiError, RuntimeError):  # RuntimeError: the client was closed during the watch
                version = ""
                pause = min(LONGEST_PAUSE, 2 * pause)
            self._closed.wait(pause * (0.5 + random.random() / 2))
