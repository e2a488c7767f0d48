"""The client's manners: when it asks again, when it waits, when it leaves a server alone."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import START, Clock, Scripted, client, serving

from gridsweep.errors import AnswerError, CredentialError, LimitError, SignalError, UnreachableError
from gridsweep.grid.http.budget import CircuitBreaker, TokenBucket
from gridsweep.grid.http.client import HttpClient
from gridsweep.grid.source import Fetched, Http

HOUR = timedelta(hours=1)
GOOD = httpx2.Response(200, content=b'{"zone": "DE"}')
REFUSED = httpx2.ConnectError("[Errno 111] Connection refused")


def answer(status: int, content: bytes = b"", **headers: str) -> httpx2.Response:
    return httpx2.Response(status, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})


def scripted(*script: Exception | httpx2.Response, clock: Clock | None = None, **options):
    transport = Scripted(*script)
    return client("http://localhost/v3", clock, transport=transport, **options), transport


def test_it_asks_below_the_base_url_with_parameters_headers_and_basic_auth():
    with serving(b'{"a": [1, null]}') as server:
        http: Http = client(f"{server.url}/v3/")
        fetched = http.get("/past range/x", [("a", "1"), ("a", "+0:00 &")], headers={"auth-token": "t" * 9})
        http.get("login", auth=("user", "password"))
    assert fetched == Fetched({"a": [1, None]}, START)
    first, second = server.seen
    assert first.path == "/v3/past%20range/x?a=1&a=%2B0%3A00+%26"
    assert first.headers["auth-token"] == "t" * 9
    assert first.headers["user-agent"] == "gridsweep"
    assert "authorization" not in first.headers
    assert second.headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="


@pytest.mark.parametrize("path", ["../admin", "a/../../b", "a/./b"])
def test_a_path_never_leaves_the_base_url(path):
    http, transport = scripted(GOOD)
    with pytest.raises(SignalError, match=r"carbon\.zone"):
        http.get(path)
    http.get("a?b=c#d/%2e%2e/x")
    assert [request.url.raw_path for request in transport.requests] == [b"/v3/a%3Fb%3Dc%23d/%252e%252e/x"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_passes_is_asked_again_with_jittered_growing_pauses(status):
    clock = Clock()
    http, transport = scripted(answer(status), answer(status), GOOD, clock=clock, jitter=lambda: 0.5)
    assert http.get("x").body == {"zone": "DE"}
    assert clock.pauses == [0.5, 1.0]
    assert len(transport.requests) == 3


@pytest.mark.parametrize(
    "error", [REFUSED, httpx2.ReadTimeout("slow"), httpx2.RemoteProtocolError("cut"), httpx2.ReadError("reset")]
)
def test_a_connection_that_fails_is_tried_again(error):
    http, transport = scripted(error, error, GOOD)
    assert http.get("x").body == {"zone": "DE"}
    assert len(transport.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, AnswerError),
        (401, CredentialError),
        (403, CredentialError),
        (404, AnswerError),
        (409, AnswerError),
        (418, AnswerError),
        (304, AnswerError),
    ],
)
def test_what_does_not_pass_is_asked_once(status, error):
    clock = Clock()
    http, transport = scripted(answer(status, b'{"error": "Invalid zone"}'), clock=clock)
    with pytest.raises(error, match=f"^tester: localhost/v3/x answered {status}: Invalid zone; ") as caught:
        http.get("x")
    assert (type(caught.value), caught.value.status) == (error, status)
    assert (len(transport.requests), clock.pauses) == (1, [])


@pytest.mark.parametrize(("status", "error"), [(429, LimitError), (503, UnreachableError), (408, UnreachableError)])
def test_the_last_of_three_tries_decides_and_nothing_of_it_is_left_for_the_next_get(status, error):
    bad = answer(status, b"busy")
    http, transport = scripted(bad, bad, bad, GOOD)
    with pytest.raises(error, match="busy") as caught:
        http.get("x")
    assert (caught.value.status, len(transport.requests)) == (status, 3)
    assert http.get("x").body == {"zone": "DE"}


def test_pauses_are_capped_at_twenty_seconds_and_end_with_the_deadline():
    clock = Clock()
    http, _ = scripted(REFUSED, clock=clock, tries=99, deadline=70.0, breaker=CircuitBreaker(99))
    with pytest.raises(UnreachableError):
        http.get("x")
    assert clock.pauses == [1, 2, 4, 8, 16, 20]


def test_retry_after_is_obeyed_within_the_deadline():
    clock = Clock()
    date = "Thu, 15 Oct 2026 12:00:12 GMT"
    http, transport = scripted(answer(429, retry_after="7"), answer(503, retry_after=date), GOOD, clock=clock)
    assert http.get("x").body == {"zone": "DE"}
    assert clock.pauses == [7, 5]
    assert len(transport.requests) == 3


def test_a_retry_after_beyond_the_deadline_is_not_slept_but_bars_the_provider_until_then():
    clock = Clock()
    http, transport = scripted(answer(429, b'{"message": "slow down"}', retry_after="600"), GOOD, clock=clock)
    with pytest.raises(LimitError, match=r"429: slow down; it asks .* until 2026-10-15 12:10:00 UTC") as caught:
        http.get("x")
    assert caught.value.status == 429
    clock.seconds = 599
    with pytest.raises(LimitError, match="asked to be left alone until 2026-10-15 12:10:00 UTC"):
        http.get("another")
    assert (len(transport.requests), clock.pauses) == (1, [])
    clock.seconds = 600
    assert http.get("x").body == {"zone": "DE"}


def test_a_retry_after_of_days_bars_for_one_hour_only():
    clock = Clock()
    http, _ = scripted(answer(503, retry_after="999999"), GOOD, clock=clock)
    with pytest.raises(LimitError, match="13:00:00"):
        http.get("x")
    clock.seconds = 3600
    assert http.get("x").body == {"zone": "DE"}


def test_every_try_is_counted_and_a_spent_budget_says_when_the_next_one_is():
    clock = Clock()
    http, transport = scripted(answer(500), answer(500), GOOD, clock=clock, budget=TokenBucket())
    http.get("x")
    http.get("x")
    with pytest.raises(LimitError, match="budget of requests is spent next at 2026-10-15 12:07:30 UTC"):
        http.get("x")
    assert len(transport.requests) == 4
    clock.seconds = 453
    http.get("x")


def test_a_try_that_the_budget_forbids_leaves_the_error_that_was():
    http, transport = scripted(answer(500, b"out of order"), budget=TokenBucket(1))
    with pytest.raises(UnreachableError, match="out of order"):
        http.get("x")
    assert len(transport.requests) == 1


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1200), st.sampled_from([200, 302, 404, 429, 500, 0])), max_size=60))
def test_no_rolling_hour_has_more_than_twelve_requests_whatever_comes_back(script):
    clock, times = Clock(), []
    status = 200

    def respond(request: httpx2.Request) -> httpx2.Response:
        times.append(clock.seconds)
        if not status:
            raise REFUSED
        return httpx2.Response(status, content=b"1", headers={"location": "/v3/x"} if status == 302 else {})

    http = HttpClient(
        "https://example.org",
        name="tester",
        transport=httpx2.MockTransport(respond),
        now=clock.now,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
    )
    for gap, status in script:  # noqa: B007
        clock.seconds += gap
        with suppress(SignalError):
            http.get("x")
    assert all(sum(start <= other < start + 3600 for other in times) <= 12 for start in times)


def test_after_five_failures_the_server_is_left_alone_and_one_probe_decides():
    clock = Clock()
    http, transport = scripted(REFUSED, clock=clock, tries=5)
    with pytest.raises(UnreachableError, match="Connection refused"):
        http.get("x")
    with pytest.raises(UnreachableError, match=r"left alone until 2026-10-15 12:00:45 UTC \(last: .*refused"):
        http.get("x")
    assert len(transport.requests) == 5
    clock.seconds += 30
    with pytest.raises(UnreachableError, match="Connection refused"):
        http.get("x")
    assert len(transport.requests) == 6
    clock.seconds += 60
    transport.script = [GOOD]
    assert http.get("x").body == {"zone": "DE"}
    assert http.get("x").body == {"zone": "DE"}


def test_failures_that_are_not_in_a_row_do_not_open_the_breaker():
    http, transport = scripted(*[REFUSED, REFUSED, GOOD] * 5)
    for _ in range(5):
        assert http.get("x").body == {"zone": "DE"}
    assert len(transport.requests) == 15


def test_refusals_and_bad_answers_do_not_open_the_breaker():
    http, transport = scripted(answer(404), answer(429), answer(200, b"<html>"))
    for _ in range(9):
        with pytest.raises((AnswerError, LimitError)):
            http.get("x")
    assert len(transport.requests) >= 9


def test_an_answer_is_kept_as_long_as_was_asked_and_never_without(tmp_path):
    clock = Clock()
    http, transport = scripted(GOOD, clock=clock, folder=tmp_path)
    http.get("x")
    assert list(tmp_path.rglob("*.json")) == []
    first = http.get("x", {"zone": "DE"}, keep=HOUR)
    clock.seconds = 3600
    again, _ = scripted(answer(500), clock=clock, folder=tmp_path)
    found = again.get("x", {"zone": "DE"}, headers={"auth-token": "another"}, keep=HOUR)
    assert (found.body, found.fetched_at, found.cached, first.cached) == (first.body, START, True, False)
    for params, keep in (({"zone": "DE"}, HOUR / 2), ({"zone": "FR"}, HOUR), ({"zone": "DE"}, HOUR * 0)):
        with pytest.raises(SignalError):
            again.get("x", params, keep=keep)
    assert len(transport.requests) == 2


def test_only_good_answers_are_kept_and_a_changed_file_is_asked_again(tmp_path):
    http, transport = scripted(answer(404), answer(200, b"<html>"), GOOD, folder=tmp_path)
    for _ in range(2):
        with pytest.raises(AnswerError):
            http.get("x", keep=HOUR)
    assert list(tmp_path.rglob("*.json")) == []
    http.get("x", keep=HOUR)
    (entry,) = tmp_path.rglob("*.json")
    entry.write_text(entry.read_text().replace('{\\"zone', '{{\\"zone'))
    assert http.get("x", keep=HOUR) == Fetched({"zone": "DE"}, START)
    assert len(transport.requests) == 4


def test_a_cache_that_cannot_be_written_fails_no_request(tmp_path):
    (tmp_path / "file").write_text("")
    http, _ = scripted(GOOD, folder=tmp_path / "file")
    assert http.get("x", keep=HOUR).body == {"zone": "DE"}


def test_who_asks_the_same_at_the_same_time_shares_one_answer_and_nobody_elses_copy():
    started, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> tuple[int, dict[str, str], bytes]:
        started.set()
        go_on.wait(10)
        return 200, {}, b"[1]"

    with serving(by=slow) as server, ThreadPoolExecutor(9) as pool:
        http = client(server.url)
        first = pool.submit(http.get, "x")
        started.wait(10)
        others = [pool.submit(http.get, "x") for _ in range(7)]
        different = pool.submit(http.get, "x", headers={"auth-token": "somebody else"})
        while len(http._flights) < 2:
            pass
        threading.Event().wait(0.1)
        assert len(server.seen) == 1, "one request at a time"
        go_on.set()
        bodies = [future.result(10).body for future in (first, *others, different)]
    assert bodies == [[1]] * 9
    assert len({id(body) for body in bodies}) == 9
    assert len(server.seen) == 2
    assert http._flights == {}


def test_who_shares_an_answer_shares_its_error():
    started, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> tuple[int, dict[str, str], bytes]:
        started.set()
        go_on.wait(10)
        return 404, {}, b"nothing"

    with serving(by=slow) as server, ThreadPoolExecutor(2) as pool:
        http = client(server.url)
        first = pool.submit(http.get, "x")
        started.wait(10)
        second = pool.submit(http.get, "x")
        threading.Event().wait(0.1)
        go_on.set()
        errors = [future.exception(10) for future in (first, second)]
    assert [type(error) for error in errors] == [AnswerError] * 2
    assert errors[0] is not errors[1] and str(errors[0]) == str(errors[1])
    assert len(server.seen) == 1


def test_without_httpx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(SignalError, match=r"pip install 'gridsweep\[live\]'"):
        client("https://example.org")


@pytest.mark.parametrize(
    "url", ["https://api.example.org/v3", "http://127.0.0.1:80", "http://localhost", "http://[::1]"]
)
def test_https_is_for_everybody_and_http_for_this_machine(url):
    client(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://10.0.0.1",
        "http://169.254.169.254/latest/meta-data",
        "ftp://example.org",
        "file:///etc/passwd",
        "example.org",
        "https://",
        "",
        "https://user:canary@example.org",
        "https://example.org/v3?api_key=canary",
        "https://example.org/#canary",
        "https://user:canary@exa mple.org:99999",
    ],
)
def test_a_base_url_that_no_secret_should_be_sent_to_is_refused_without_echo(url):
    with pytest.raises(SignalError, match=r"carbon\.base_url of tester") as caught:
        client(url)
    assert "canary" not in str(caught.value)
