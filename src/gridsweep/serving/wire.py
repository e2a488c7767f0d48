"""The part of OpenAI's wire format that editors use: validated requests, and replies as dictionaries."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal  # Any: replies as JSON

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options: temperature 0 takes the likeliest token; `seed` None gives a different text every time."""

    limit: int
    temperature: float
    top_p: float
    seed: int | None
    stops: Sequence[str]


MEANING: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "top_k": (-1, 0),
    "suffix": ("",),
    "best_of": (1,),
    "modalities": (["text"],),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "prompt_logprobs": (0,),
}
"""Fields that change what an answer means, each with the values that change nothing; null changes nothing either."""


class StreamOptions(BaseModel):
    include_usage: bool = False


class Asked(BaseModel):
    """Fields of both kinds of request.

    Unknown fields are ignored, because clients send many; those that would change the meaning of an answer are refused.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    meaning: ClassVar[dict[str, tuple[object, ...]]] = MEANING

    model: str = Field(max_length=500)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _means_the_same(cls, data: object) -> object:
        given = data if isinstance(data, dict) else {}
        for name, harmless in cls.meaning.items():
            value = given.get(name)
            if value is not None and value not in harmless:
                raise ValueError(f"{name} is not supported by this server; leave it out, or serve with vLLM")
        return data

    @property
    def echoed(self) -> str:
        """The text that the answer repeats before its own."""
        return ""

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def limit(self) -> int | None:
        """The largest number of tokens to generate."""
        return self.max_tokens


class CompletionAsked(Asked):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: bool | None = None

    @property
    def echoed(self) -> str:
        return self.text if self.echo else ""

    @property
    def limit(self) -> int:
        return self.max_tokens or 16

    @property
    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, str]:
        """Return the turn with its content as one text."""
        parts = self.content or ""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": parts if isinstance(parts, str) else "".join(p.text for p in parts)}


class ChatAsked(Asked):
    messages: Annotated[list[Turn], Field(min_length=1, max_length=1000)]
    max_completion_tokens: int | None = Field(None, ge=1)
    meaning: ClassVar = {**MEANING, "echo": (False,)}  # a conversation has no text of its own to repeat

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class Reply:
    """The frames of one reply: whole, or in chunks."""

    def __init__(self, kind: Literal["completion", "chat"], model: str):
        self.chat = kind == "chat"
        self.head: dict[str, object] = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, finish: str, usage: dict[str, int]) -> dict[str, object]:
        body = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": finish}
        return {**self.head, "object": kind, "choices": [choice], "usage": usage}

    def first(self) -> Iterator[str]:
        """Yield a chat's first chunk, which names the role."""
        if self.chat:
            yield self._chunk([self._choice({"role": "assistant", "content": ""}, None)])

    def piece(self, text: str) -> str:
        return self._chunk([self._choice({"content": text} if self.chat else text, None)])

    def last(self, finish: str, usage: dict[str, int] | None) -> Iterator[str]:
        yield self._chunk([self._choice({} if self.chat else "", finish)])
        if usage is not None:
            yield self._chunk([], usage=usage)
        yield "data: [DONE]\n\n"

    def _choice(self, body: object, finish: str | None) -> dict[str, object]:
        key = "delta" if self.chat else "text"
        return {"index": 0, key: body, "logprobs": None, "finish_reason": finish}

    def _chunk(self, choices: list[dict[str, object]], **more: object) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return event({**self.head, "object": kind, "choices": choices, **more})


def event(value: object) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def error(message: str, kind: str, code: str | int | None = None) -> dict[str, object]:
    """Return an error in OpenAI's format."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def cards(base: str, adapters: Sequence[str], length: int, **more: object) -> list[dict[str, Any]]:
    """Return the cards of adapters and of their base, by name; no path of this machine is told.

    The base comes last: clients that take the first model get the first adapter.
    """
    now = int(time.time())
    common = {"object": "model", "created": now, "owned_by": "gridsweep", "max_model_len": length, **more}
    last = {"id": base, **common, "root": base, "parent": None}
    return [*({"id": name, **common, "root": name, "parent": base} for name in adapters), last]


def listed(cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the reply of /v1/models."""
    return {"object": "list", "data": list(cards)}
