"""`python -m gridsweep.serving.server`: a small OpenAI-compatible server for trials on FastAPI, transformers and PEFT.

`gridsweep serve` starts this program if vLLM is not installed. The key comes from the environment (GRIDSWEEP_API_KEY).
With --leave-with-parent the server ends when its standard input closes, so that no crash leaves it behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar  # a reply as JSON

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError

from gridsweep.errors import GridsweepError
from gridsweep.serving import wire
from gridsweep.serving.access import key_for
from gridsweep.serving.connections import BACKLOG, Connection
from gridsweep.serving.guard import App, Guard
from gridsweep.serving.servable import Servable, servable, shown, together
from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import Dataset, Model
from gridsweep.train.model import offline_if_local

if TYPE_CHECKING:  # the engine imports torch, which takes seconds; errors of the adapters are reported before that
    from gridsweep.serving.engine import Engine, Generation

CHAT_TOKENS = 512
"""Longest answer of a chat in tokens if the client sets no limit."""

A = TypeVar("A", bound=wire.Asked)


class Refused(Exception):
    """The request cannot be answered."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.code = status, code


def application(engine: Engine, base: Model, adapters: Sequence[Servable]) -> FastAPI:
    """Return the application with its routes; errors have OpenAI's format."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    ids = [*(adapter.name for adapter in adapters), base.id]
    template = "the model's" if engine.has_chat_template else "the training's"

    def cards() -> list[dict[str, Any]]:
        return wire.cards(base.id, [adapter.name for adapter in adapters], engine.length, chat_template=template)

    @app.get("/health")
    def health() -> Response:
        return Response()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return wire.listed(cards())

    @app.get("/v1/models/{id:path}")
    def model(id: str) -> dict[str, Any]:
        found = next((card for card in cards() if card["id"] == id), None)
        if found is None:
            raise Refused(404, _no_model(id, ids), "model_not_found")
        return found

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        asked = await _asked(wire.CompletionAsked, request, ids)
        return await _reply("completion", asked, lambda: engine.prompt(asked.text), engine)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = await _asked(wire.ChatAsked, request, ids)
        turns = [turn.plain() for turn in asked.messages]
        return await _reply("chat", asked, lambda: engine.chat(turns), engine)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        kind = "not_found_error" if error.status == 404 else "invalid_request_error"
        return JSONResponse(wire.error(str(error), kind, error.code), error.status)

    @app.exception_handler(500)
    async def failed(request: Request, error: Exception) -> Response:
        """Answer as the guard does; the error is raised again and stands in the log."""
        what = f"the server failed ({type(error).__name__}); its log says more"
        return JSONResponse(wire.error(what, "server_error"), 500)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: HTTPException) -> Response:
        paths = "GET /health, GET /v1/models, GET /v1/models/NAME, POST /v1/completions, POST /v1/chat/completions"
        return JSONResponse(wire.error(f"no such path; use {paths}", "not_found_error"), error.status_code)

    return app


async def _asked(kind: type[A], request: Request, ids: Sequence[str]) -> A:
    """Return the validated request. Raise `Refused` if it is not valid."""
    try:
        asked = kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Refused(400, f"{field + ': ' if field else ''}{first['msg'].removeprefix('Value error, ')}") from None
    if asked.model not in ids:
        raise Refused(404, _no_model(asked.model, ids), "model_not_found")
    return asked


def _no_model(id: str, ids: Sequence[str]) -> str:
    message = f"the model {shown(id)} does not exist; choose from: {', '.join(ids)}"
    prefix, colon, name = id.rpartition(":")
    return f"{message}. Use the adapter's name alone: {name}" if colon and prefix and name in ids else message


async def _reply(
    kind: Literal["completion", "chat"], asked: wire.Asked, encode: Callable[[], list[int]], engine: Engine
) -> Response:
    """Return the answer to a request, whole or in chunks. Raise `Refused` if the prompt leaves no room."""
    try:
        prompt = await run_in_threadpool(encode)
    except ValueError as error:
        raise Refused(400, str(error)) from None
    room = engine.length - len(prompt)
    if not prompt or room < 1:
        size = f"the prompt has {len(prompt)} tokens; the model takes 1 to {engine.length - 1}"
        raise Refused(400, size, "context_length_exceeded")
    limit = min(asked.limit or CHAT_TOKENS, room)
    sampling = wire.Sampling(limit, asked.temperature, asked.top_p, asked.seed, asked.stops)
    made, reply = engine.generate(asked.model, prompt, sampling), wire.Reply(kind, asked.model)
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return StreamingResponse(_chunks(reply, asked.echoed, made, usage), media_type="text/event-stream")
    text = asked.echoed + await run_in_threadpool("".join, made)
    return JSONResponse(reply.whole(text, made.finish, made.usage))


def _chunks(reply: wire.Reply, echoed: str, made: Generation, usage: bool) -> Iterator[str]:
    yield from reply.first()
    if echoed:
        yield reply.piece(echoed)
    for piece in made:
        yield reply.piece(piece)
    yield from reply.last(made.finish, made.usage if usage else None)


def names(host: str) -> set[str]:
    """Return the names of a server on `host`, besides its addresses and localhost."""
    return {host, socket.gethostname(), socket.getfqdn()} if host not in ("127.0.0.1", "::1") else set()


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the model and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m gridsweep.serving.server", description=__doc__)
    parser.add_argument("--base", required=True, help="as the sweep names it")
    parser.add_argument("--revision")
    parser.add_argument("--adapter", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--chat-template", type=Path, metavar="FILE", help="in place of the tokenizer's")
    parser.add_argument("--encoding", type=int, default=1, help="the version of the training's encoding")
    parser.add_argument("--date", type=datetime.fromisoformat, help="what a template that writes today's date gets")
    parser.add_argument("--leave-with-parent", action="store_true")
    given = parser.parse_args(arguments)
    if given.leave_with_parent:
        threading.Thread(target=_leave_with_parent, daemon=True).start()
    taught = Taught(given.encoding, given.date)
    try:
        template = given.chat_template.read_text(encoding="utf-8") if given.chat_template else None
        base = Model(given.base, given.revision, template)
        key = key_for(given.host, os.environ)
        pairs = [word.partition("=") for word in given.adapter]
        adapters = [servable(name, Path(folder), base) for name, _, folder in pairs]
        together(adapters)
        offline_if_local(base, Dataset("stdlib"))
        from gridsweep.serving.engine import Engine

        app: App = Guard(application(Engine(base, adapters, taught), base, adapters), names(given.host), key)
    except (GridsweepError, OSError) as error:
        sys.exit(f"error: {error}")
    config = uvicorn.Config(
        app,
        host=given.host,
        port=given.port,
        http=Connection,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=5,
        access_log=False,
        backlog=BACKLOG,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
