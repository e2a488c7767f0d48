"""Interpretation of an answer: its JSON body, or the error to raise. No requests are made here."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gridsweep.errors import AnswerError, CredentialError, LimitError, SignalError, UnreachableError

AGAIN = frozenset({408, 425, 429})
"""Transient statuses besides 5xx: a retry may succeed."""
LONGEST_WAIT = 3600.0
WORDS = 200

Redact = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. Header names are lower case; `body` is decompressed and within the size limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def passing(status: int) -> bool:
    """Return whether the status is transient, so that a retry may succeed."""
    return status in AGAIN or (status >= 500 and status != 501)  # 501 Not Implemented is permanent


def refusal(answer: Answer, asked: str, redact: Redact) -> SignalError:
    """Return the error for an unsuccessful answer; `asked` names provider and path."""
    status = answer.status
    text = f"{asked} answered {status}: {own_words(answer.body, redact) or 'nothing more'}"
    if status in (401, 403):
        advice = "look at carbon.token, or carbon.username and carbon.password, and at what the plan includes"
        return CredentialError(f"{text}; {advice}", status)
    if status == 429:
        return LimitError(f"{text}; the provider allows no more requests for now", status)
    if status == 404:
        return AnswerError(f"{text}; it has no data for this zone, or carbon.base_url is wrong", status)
    if passing(status):
        return UnreachableError(f"{text}; the provider has a problem that should pass", status)
    return AnswerError(f"{text}; the request is not what this provider takes (look at carbon.base_url)", status)


def own_words(body: bytes, redact: Redact) -> str:
    """Return the provider's own words: its error or message, the title of a page, or the start of its text."""
    text = body.decode("utf-8", "replace")
    try:
        said = _said(json.loads(text))
    except (ValueError, RecursionError):
        title = re.search(r"<title[^>]*>([^<]{1,1000})", text[:10_000], re.IGNORECASE)
        said = title[1] if title else ""
    return clean(said or text, redact)


def clean(text: str, redact: Redact) -> str:
    """Return one short line for a message, without secrets, control characters or text-direction marks."""
    line = "".join(" " if char.isspace() else char for char in redact(text[:20_000]))
    line = "".join(char for char in line if not unicodedata.category(char).startswith("C"))
    line = redact(" ".join(line.split()))  # again, because a removed character may have split a secret
    return line if len(line) <= WORDS else f"{line[: WORDS - 3]}..."


def parsed(answer: Answer, asked: str, redact: Redact) -> object:
    """Return the JSON of a success, whatever its content type. Raises `AnswerError`, also for NaN and Infinity."""
    status, text = answer.status, answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text:
        raise AnswerError(f"{asked} answered {status} with an empty body; try again later", status)
    if text.startswith(b"<"):
        kind = "XML" if text.startswith(b"<?xml") else "HTML"
        said = own_words(text, redact)
        raise AnswerError(
            f"{asked} answered {status} with {kind}, not JSON: {said}; look at carbon.base_url, and for a proxy or a "
            "log-in page on the way",
            status,
        )
    try:
        return strict_json(text)
    except ValueError as error:
        why = clean(str(error), redact)
    raise AnswerError(f"{asked} answered {status} with text that is not JSON, or is cut off ({why})", status)


def strict_json(text: bytes | str) -> object:
    """Parse JSON. Raises `ValueError`, also for NaN, Infinity and too deep nesting."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        pass
    raise ValueError("it is nested too deeply")


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds of the `Retry-After` header, one hour at most; None if it is missing or malformed.

    A date is compared with the server's own `Date` if there is one, because the clocks may differ.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value, re.ASCII):
        return min(LONGEST_WAIT, float(value[:20]))
    until = _http_date(value)
    if until is None:
        return None
    seconds = (until - (_http_date(headers.get("date", "")) or now)).total_seconds()
    return min(LONGEST_WAIT, max(0.0, seconds))


def _http_date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _said(value: object) -> str:
    """Return `error` and `message`, `error.message`, or the title and detail of problem details, joined; "" if none."""
    if not isinstance(value, dict):
        return ""
    found = [value.get(key) for key in ("error", "message", "title", "detail")]
    found = [inner.get("message") if isinstance(inner, dict) else inner for inner in found]
    return ": ".join(dict.fromkeys(part for part in found if isinstance(part, str) and part))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
