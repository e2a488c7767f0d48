"""Good and bad behaviours of an API, and the result expected of a provider; the same for every dialect.

A behaviour changes the good answer to one request. If it cannot change an answer, for instance a body without points
or without a zone's name, the good answer is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from gridsweep.errors import AnswerError, CredentialError, LimitError, SignalError, UnreachableError
from gridsweep.testing.grid.spoiling import (
    Change,
    as_if,
    bomb,
    constant,
    doubled,
    each,
    echoed,
    edited,
    emptied,
    gapped,
    huge,
    last_tomorrow,
    limited_until,
    list_removed,
    literal,
    numbers,
    of_good,
    other_zone,
    overlapping,
    redirect,
    removed,
    status,
    unordered,
    whole,
    widened,
)

Tells = Literal["truth", "part", "nothing", "zero"]
"""The content of a reading: all of the good answer; a correct part of it; no slot at all; zeros."""
Delivery = Literal["whole", "cut", "reset", "drip", "close", "noise"]
"""The delivery of the bytes: complete; ended halfway; reset halfway; a byte a second; none at all; not HTTP."""
Place = Literal["here", "tls", "unnamed", "refused"]
"""The configured place of the API: here; behind false TLS; at a name that does not resolve; on a closed port."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The allowed results of a behaviour: one of `errors` or, if `tells` is given, a reading with that content."""

    errors: tuple[type[SignalError], ...] = ()
    tells: Tells | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One way of answering, by name."""

    name: str
    expected: Expected
    change: Change = field(default=lambda exchange: exchange.good)
    delivery: Delivery = "whole"
    place: Place = "here"


HTML = b"<html><head><title>403 Forbidden</title></head><body><center>nginx</center></body></html>"
DEEP = b"[" * 200_000 + b"]" * 200_000
ANSWER = Expected((AnswerError,))
NOTHING = Expected((AnswerError,), "nothing")
PART = Expected((AnswerError,), "part")
TRUTH = Expected((), "truth")
EITHER = Expected((AnswerError,), "truth")
REFUSED = Expected((CredentialError,))
DOWN = Expected((UnreachableError,))
LIMIT = Expected((LimitError,))
SOME = Expected((SignalError,))
BROKEN = Expected((UnreachableError, AnswerError))

GOOD = Behaviour("good", TRUTH)
POINTS = (
    Behaviour("empty-list", PART, edited(emptied)),
    Behaviour("all-null", NOTHING, each(constant(None))),
    Behaviour("some-null", PART, each(constant(None), every=2)),
    Behaviour("no-value-key", ANSWER, each(removed)),
    Behaviour("no-time-key", ANSWER, each(removed, time=True)),
    Behaviour("no-list", ANSWER, edited(list_removed)),
    Behaviour("extra-keys", TRUTH, edited(widened)),
    Behaviour("string-numbers", EITHER, each(lambda old, point: str(old))),
    Behaviour("word-values", NOTHING, each(constant("n/a"))),
    Behaviour("object-values", NOTHING, each(constant({"value": 1}))),
    Behaviour("true-values", NOTHING, each(constant(True))),
    Behaviour("negative", NOTHING, each(constant(-5.0))),
    Behaviour("zero", Expected((AnswerError,), "zero"), each(lambda old, point: "0" if isinstance(old, str) else 0)),
    Behaviour("absurd", NOTHING, each(constant(1e9))),
    Behaviour("nan-literal", NOTHING, literal("NaN")),
    Behaviour("infinity-literal", NOTHING, literal("-Infinity")),
    Behaviour("endless-number", NOTHING, literal("9" * 5000)),
    Behaviour("float-overflow", NOTHING, literal("1e999")),
    Behaviour("points-no-objects", ANSWER, edited(numbers)),
    Behaviour("duplicated", TRUTH, edited(doubled)),
    Behaviour("unordered", TRUTH, edited(unordered)),
    Behaviour("gapped", PART, edited(gapped)),
    Behaviour("overlapping", PART, edited(overlapping)),
    Behaviour("wrong-zone", ANSWER, other_zone),
    Behaviour("future-dated", PART, edited(last_tomorrow)),
    Behaviour("clock-ahead", PART, as_if(timedelta(days=1))),
    Behaviour("three-days-old", PART, as_if(timedelta(days=-3))),
    Behaviour("naive-times", EITHER, each(lambda old, p: re.sub(r"(Z|[+-]\d\d:\d\d)$", "", str(old)), time=True)),
    Behaviour("bad-times", ANSWER, each(constant("yesterday"), time=True)),
    Behaviour("number-times", ANSWER, each(constant(1790000000), time=True)),
    Behaviour("year-one", PART, each(constant("0001-01-01T00:00:00+23:00"), time=True, every=0)),
    Behaviour("year-9999", PART, each(constant("9999-12-31T23:59:59-23:00"), time=True, every=0)),
)
BODIES = (
    Behaviour("top-list", ANSWER, whole(b"[1, 2, 3]")),
    Behaviour("top-string", ANSWER, whole(b'"fine"')),
    Behaviour("top-null", ANSWER, whole(b"null")),
    Behaviour("top-empty-object", ANSWER, whole(b"{}")),
    Behaviour("error-in-200", ANSWER, whole(b'{"error": "no data today", "message": "no data today"}')),
    Behaviour("deep", ANSWER, whole(DEEP)),
    Behaviour("huge", ANSWER, lambda exchange: whole(huge())(exchange)),
    Behaviour("gzip-bomb", ANSWER, lambda exchange: whole(bomb(), content_encoding="gzip")(exchange)),
    Behaviour("false-gzip", BROKEN, whole(b"this is no gzip", content_encoding="gzip")),
    Behaviour("truncated-json", ANSWER, of_good(lambda good: replace(good, body=good.body[: len(good.body) // 2]))),
    Behaviour("html-200", ANSWER, whole(HTML, content_type="text/html")),
    Behaviour("empty-200", ANSWER, whole(b"")),
    Behaviour("no-content", ANSWER, whole(b"", 204)),
    Behaviour("invalid-utf8", ANSWER, whole(b'{"data": "\xff\xfe\xfa"}')),
    Behaviour("byte-order-mark", EITHER, of_good(lambda good: replace(good, body=b"\xef\xbb\xbf" + good.body))),
    Behaviour("plain-text-type", TRUTH, of_good(lambda good: replace(good, headers={"content-type": "text/plain"}))),
)
STATUSES = (
    Behaviour("html-403", REFUSED, whole(HTML, 403, "text/html")),
    *(Behaviour(f"status-{code}", REFUSED, status(code)) for code in (401, 403)),
    *(Behaviour(f"status-{code}", SOME, status(code)) for code in (400, 404, 409, 418)),
    *(Behaviour(f"status-{code}", DOWN, status(code)) for code in (408, 425, 500, 502, 503, 504)),
    Behaviour("status-503-day", Expected((UnreachableError, LimitError)), status(503, retry_after="86400")),
    Behaviour("status-429", LIMIT, status(429)),
    Behaviour("status-429-seconds", LIMIT, status(429, retry_after="1")),
    Behaviour("status-429-date", LIMIT, limited_until),
    Behaviour("status-429-day", LIMIT, status(429, retry_after="86400")),
    Behaviour("status-429-odd", LIMIT, status(429, retry_after="soon")),
    Behaviour("status-429-negative", LIMIT, status(429, retry_after="-5")),
    Behaviour("echo-headers", SOME, echoed),
    Behaviour("redirect-elsewhere", SOME, lambda exchange: redirect(exchange, exchange.elsewhere)),
    Behaviour("redirect-loop", SOME, lambda exchange: redirect(exchange, "")),
)
CONNECTIONS = (
    Behaviour("cut-body", BROKEN, delivery="cut"),
    Behaviour("reset-body", BROKEN, delivery="reset"),
    Behaviour("slow-loris", DOWN, delivery="drip"),
    Behaviour("closed", BROKEN, delivery="close"),
    Behaviour("noise", BROKEN, delivery="noise"),
    Behaviour("tls-failure", DOWN, place="tls"),
    Behaviour("no-such-host", DOWN, place="unnamed"),
    Behaviour("connection-refused", DOWN, place="refused"),
)
BEHAVIOURS: tuple[Behaviour, ...] = (GOOD, *POINTS, *BODIES, *STATUSES, *CONNECTIONS)


def behaviour(name: str) -> Behaviour:
    """Return the canned behaviour of that name."""
    return next(one for one in BEHAVIOURS if one.name == name)
