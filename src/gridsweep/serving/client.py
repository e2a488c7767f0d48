"""The client with which `serve` checks a server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any  # what a server answers as JSON

from gridsweep.errors import ServingError
from gridsweep.serving.servable import shown

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would not reach this machine


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one server. `seconds` is the timeout of each request."""

    url: str
    key: str | None = None
    seconds: float = 120.0

    def healthy(self) -> bool:
        """Return whether /health answers with status 200."""
        try:
            with _DIRECT.open(f"{self.url}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (OSError, HTTPException):
            return False

    def verify(self, ids: list[str], base: str) -> tuple[dict[str, Any], str]:
        """Return the base's entry in /v1/models, and the id listed first.

        Raise `ServingError` unless every adapter is listed as a child of the base.
        """
        found = self._call("/v1/models").get("data")
        listed = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
        entries = {str(entry.get("id")): entry for entry in listed}
        for id in ids:
            if id not in entries:
                others = shown(sorted(entries))
                raise ServingError(f"the server at {self.url} does not list {id}, only {others}; see its log")
            if entries[id].get("parent") != base:
                raise ServingError(f"the server at {self.url} serves {id} on a base other than {base}; see its log")
        return dict(entries.get(base, {})), str(listed[0].get("id"))

    def complete(self, model: str, prompt: str, tokens: int) -> str:
        """Return the greedy completion of a prompt."""
        asked = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        return self._text("/v1/completions", asked, lambda choice: choice["text"])

    def chat(self, model: str, message: str, tokens: int) -> str:
        """Return the greedy answer to one message."""
        turns = [{"role": "user", "content": message}]
        asked = {"model": model, "messages": turns, "max_tokens": tokens, "temperature": 0}
        return self._text("/v1/chat/completions", asked, lambda choice: choice["message"]["content"])

    def _text(self, path: str, asked: dict[str, object], pick: Callable[[Any], str]) -> str:
        reply = self._call(path, asked)
        try:
            return str(pick(reply["choices"][0]))
        except (KeyError, IndexError, TypeError):
            raise ServingError(f"{self.url}{path} answered {shown(reply)}, which holds no text; see its log") from None

    def _call(self, path: str, asked: dict[str, object] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = None if asked is None else json.dumps(asked).encode()
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with _DIRECT.open(request, timeout=self.seconds) as reply:
                value = json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode("utf-8", "replace")
            raise ServingError(f"{self.url}{path} answered {error.code}: {shown(said)}; see its log") from None
        except (OSError, ValueError, HTTPException) as error:
            raise ServingError(f"{self.url}{path} did not answer: {error}; see its log") from None
        if not isinstance(value, dict):
            raise ServingError(f"{self.url}{path} answered {shown(value)}; see its log")
        return value
