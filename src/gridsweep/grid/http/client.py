"""The HTTP client of all carbon providers, with retries, a request budget and a circuit breaker.

By default, no hour has more than 12 requests to a provider: 4 at once, plus the 8 that an hour refills.
"""

from __future__ import annotations

import base64
import copy
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gridsweep.carbon.traces import utc
from gridsweep.errors import AnswerError, LimitError, SignalError, UnreachableError
from gridsweep.grid.http.budget import CircuitBreaker, TokenBucket
from gridsweep.grid.http.cache import AnswerCache, key_of
from gridsweep.grid.http.calls import end_of_call
from gridsweep.grid.http.exchange import Request, Wire, exchange
from gridsweep.grid.http.origins import base_of, below, redirected
from gridsweep.grid.http.secrets import Secrets
from gridsweep.grid.http.verdicts import Answer, clean, own_words, parsed, passing, refusal, retry_after, strict_json
from gridsweep.grid.source import Fetched

if TYPE_CHECKING:
    import httpx2

DEADLINE_SECONDS = 30.0
TRIES = 3
FIRST_BACKOFF, MOST_BACKOFF = 1.0, 20.0
REDIRECTS = 3
SHORTEST_TOKEN = 8
"""Header values shorter than this are not credentials; redacting them would only garble messages."""

Flight = Future[Fetched]
_CREDENTIAL = re.compile("auth|token|key|secret|cookie", re.IGNORECASE)


def _now() -> datetime:
    return datetime.now(UTC)


class HttpClient:
    """The HTTP client of one provider's API; implements `source.Http`.

    `name` is the provider's name, for messages and the cache in `folder` (None: no cache). `deadline` is the time in
    seconds that one `get` may take with all its tries; requests of one call (`calls.one_call`) share its deadline.
    Transient failures (408, 425, 429, 5xx except 501, no connection) are tried `tries` times in all, with full jitter
    or when the server says. Clients of one provider may share `budget` and `breaker`. Secrets that `secrets` has read,
    and credentials that are sent, stay out of messages and of the cache. Raises `SignalError` for a base URL that is
    neither https nor this machine.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str,
        folder: Path | None = None,
        secrets: Secrets | None = None,
        deadline: float = DEADLINE_SECONDS,
        connect: float = 5.0,
        read: float = 15.0,
        tries: int = TRIES,
        budget: TokenBucket | None = None,
        breaker: CircuitBreaker | None = None,
        transport: httpx2.BaseTransport | None = None,
        now: Callable[[], datetime] = _now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ):
        self.name = name
        self._secrets = secrets or Secrets()
        self._redact = self._secrets.redact
        self._base = base_of(base_url, name)
        self._wire = Wire(connect, read, transport, proxies=self._base.scheme == "https")
        self._cache = AnswerCache(folder, name) if folder is not None else None
        self._deadline, self._tries = deadline, tries
        self._bucket = budget or TokenBucket()
        self._breaker = breaker or CircuitBreaker()
        self._now, self._monotonic, self._sleep, self._jitter = now, monotonic, sleep, jitter
        self._barred_until = float("-inf")
        self._trouble = ""
        self._one_at_a_time = threading.Lock()
        self._guard = threading.Lock()
        self._flights: dict[object, Flight] = {}

    def get(
        self,
        path: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        keep: timedelta = timedelta(0),
    ) -> Fetched:
        """Return the JSON at a path; identical concurrent requests share one answer. Raises `SignalError`."""
        begin = self._monotonic()
        end = min(begin + self._deadline, end_of_call(id(self), begin))
        pairs = tuple(params.items() if isinstance(params, Mapping) else params)
        sent = dict(headers or {})
        self._hide(sent, auth)
        same = (path, pairs, tuple(sorted(sent.items())), auth, keep)
        with self._guard:
            flight = self._flights.get(same)
            leads = flight is None
            if flight is None:
                flight = self._flights[same] = Flight()
        if not leads:
            return self._shared(flight, path, end)
        try:
            fetched = self._fetched(path, pairs, sent, auth, keep, end)
        except BaseException as error:
            flight.set_exception(error)
            raise
        else:
            flight.set_result(fetched)
            return fetched
        finally:
            with self._guard:
                del self._flights[same]

    def _hide(self, headers: Mapping[str, str], auth: tuple[str, str] | None) -> None:
        """Register credentials for redaction, whatever their origin, such as the token of a login."""
        for name, value in headers.items():
            secret = value.rpartition(" ")[2]  # the part after "Bearer"
            if _CREDENTIAL.search(name) and len(secret) >= SHORTEST_TOKEN:
                self._secrets.hide(secret)
        if auth:
            self._secrets.hide(auth[1])
            self._secrets.hide(base64.b64encode(":".join(auth).encode()).decode())

    def _shared(self, flight: Flight, path: str, end: float) -> Fetched:
        """Return the answer to an identical request in flight; a copy, because either caller may modify it."""
        try:
            error = flight.exception(max(0.0, end - self._monotonic()))
        except TimeoutError:
            error = UnreachableError(f"{self._asked(path)} did not answer in time")
        if isinstance(error, SignalError):
            raise type(error)(str(error), error.status)
        if error is not None:
            raise UnreachableError(f"{self._asked(path)} was interrupted")
        return copy.deepcopy(flight.result())

    def _fetched(
        self,
        path: str,
        pairs: tuple[tuple[str, str], ...],
        headers: dict[str, str],
        auth: tuple[str, str] | None,
        keep: timedelta,
        end: float,
    ) -> Fetched:
        """Return the answer from the cache, or else from the provider."""
        asked = self._asked(path)
        url = below(self._base, path, pairs, asked)
        plain = [(name, self._redact(value)) for name, value in pairs]  # an API key may be a parameter
        key = key_of(self.name, str(self._base), path, plain)
        cache = self._cache if keep > timedelta(0) else None
        if cache and (found := cache.load(key, utc(self._now()), keep)):
            try:
                return Fetched(strict_json(found[0]), found[1], cached=True)
            except ValueError:
                pass  # the file was modified: ask again
        if not self._one_at_a_time.acquire(timeout=max(0.0, end - self._monotonic())):
            raise UnreachableError(f"{asked} was not asked: another request took all the time")
        try:
            if self._monotonic() >= end:
                raise UnreachableError(f"{asked} was not asked: the requests before it took all the time")
            answer = self._answer(Request(url, asked, headers, auth), end)
        finally:
            self._one_at_a_time.release()
        if not 200 <= answer.status < 300:
            raise refusal(answer, asked, self._redact)
        body, fetched_at = parsed(answer, asked, self._redact), utc(self._now())
        text = answer.body.decode("utf-8", "replace") if cache else ""
        if cache and self._redact(text) == text:
            cache.save(key, text, fetched_at)
        return Fetched(body, fetched_at)

    def _answer(self, request: Request, end: float) -> Answer:
        """Return the first answer that a retry would not improve, or the last one in time; never a redirect."""
        failure: UnreachableError | None = None
        answer: Answer | None = None
        for attempt in range(self._tries):
            try:
                self._admit(request.asked)
            except SignalError:
                if answer is None and failure is None:
                    raise
                break  # the earlier failure says more than the refusal to try again
            try:
                answer, failure = self._followed(request, end), None
            except UnreachableError as error:
                answer, failure = None, error
            if answer is not None and not passing(answer.status):
                return answer
            pause = self._jitter() * min(MOST_BACKOFF, FIRST_BACKOFF * 2**attempt)
            if answer is not None and (wanted := retry_after(answer.headers, utc(self._now()))) is not None:
                self._barred_until = self._monotonic() + wanted
                pause = max(pause, wanted)
                if self._monotonic() + wanted >= end:
                    said = f"{answer.status}: {own_words(answer.body, self._redact)}"
                    left_alone = self._until(wanted, "it asks to be left alone")
                    raise LimitError(f"{request.asked} answered {said}; {left_alone}", answer.status)
            if attempt + 1 == self._tries or self._monotonic() + pause >= end:
                break
            self._sleep(pause)
        if answer is not None:
            return answer
        raise failure or UnreachableError(f"{request.asked} was not tried: tries is {self._tries}")

    def _admit(self, asked: str) -> None:
        """Count a request. Raises `SignalError` if the server, the breaker or the budget does not allow one now."""
        now = self._monotonic()
        if self._barred_until > now:
            raise LimitError(f"{asked} {self._until(self._barred_until - now, 'asked to be left alone')}")
        if wait := self._breaker.wait(now):
            raise UnreachableError(f"{asked} {self._until(wait, 'failed too often and is left alone')}{self._trouble}")
        if not self._bucket.take(now):
            wait = self._bucket.wait(now)
            raise LimitError(f"{asked} is not asked: {self._until(wait, 'the budget of requests is spent', 'next at')}")

    def _followed(self, request: Request, end: float) -> Answer:
        """Return the answer after at most three redirects, all to the same server."""
        for _ in range(REDIRECTS + 1):
            answer = self._exchanged(request, end)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            location = answer.headers.get("location", "")
            target = redirected(request.url, location, request.asked, answer.status, self._shown)
            request = Request(target, request.asked, request.headers, request.auth)
            if not self._bucket.take(self._monotonic()):
                raise LimitError(f"{request.asked} redirects, and the budget of requests is spent", answer.status)
        raise AnswerError(f"{request.asked} redirects more than {REDIRECTS} times", answer.status)

    def _exchanged(self, request: Request, end: float) -> Answer:
        try:
            answer = exchange(request, self._wire, end - self._monotonic(), self._shown)
        except UnreachableError as error:
            self._failed(str(error))
            raise
        except AnswerError:
            self._breaker.answered()
            raise
        if answer.status >= 500:
            self._failed(f"it answered {answer.status}")
        else:
            self._breaker.answered()
        return answer

    def _failed(self, why: str) -> None:
        self._breaker.failed(self._monotonic())
        self._trouble = f" (last: {why})"

    def _until(self, seconds: float, what: str, then: str = "until") -> str:
        return f"{what} {then} {utc(self._now()) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} UTC"

    def _asked(self, path: str) -> str:
        return f"{self.name}: {self._base.host}{self._base.path.rstrip('/')}/{self._shown(path.lstrip('/'))}"

    def _shown(self, text: str) -> str:
        return clean(text, self._redact)
