"""One request at a time to a server on loopback, down to the headers."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def chunks(self) -> list[Any]:
        """The values of a stream, which must be framed well and end as it should."""
        *events, end, nothing = self.text.split("\n\n")
        assert (end, nothing) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


@dataclass
class Server:
    """A running server, and one request at a time to it."""

    port: int

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            told = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, told, reply.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def complete(self, model: str = "e00", prompt: str = "def main(", **more: Any) -> Answer:
        asked = {"model": model, "prompt": prompt, "max_tokens": 24, "temperature": 0, **more}
        return self.ask("POST", "/v1/completions", asked)

    def chat(self, model: str = "e00", content: object = "Write a loop.", **more: Any) -> Answer:
        messages = [{"role": "user", "content": content}]
        asked = {"model": model, "messages": messages, "max_tokens": 24, "temperature": 0, **more}
        return self.ask("POST", "/v1/chat/completions", asked)
