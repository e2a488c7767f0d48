"""Servers that fail, stall, lie or lead astray, on real sockets and below HTTP."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
import traceback
import tracemalloc
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from loopback import Clock, Scripted, client, raw, serving

from gridsweep.errors import AnswerError, CredentialError, SignalError, UnreachableError
from gridsweep.grid import registry
from gridsweep.grid.http.calls import one_call
from gridsweep.grid.http.exchange import LARGEST, THREAD
from gridsweep.grid.http.secrets import Secrets
from gridsweep.sweep.sweep import CarbonSource

CANARY = "canary-Zq+81/=%s"
HOUR = timedelta(hours=1)
OK = b"HTTP/1.1 200 OK\r\n"


def threads() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


def on_the_clock(url: str, seconds: float = 0.4, **options):
    """A client on the real clock, as stalling servers are about real time."""
    return client(url, monotonic=time.monotonic, sleep=time.sleep, deadline=seconds, **options)


def drip(connection: socket.socket, over: threading.Event, start: bytes) -> None:
    connection.recv(4096)
    connection.sendall(start)
    while not over.wait(0.02):
        connection.sendall(b"x")


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n",
    ],
    ids=["status line", "header", "body", "body of known length"],
)
def test_a_server_that_drips_bytes_is_given_up_in_time_and_its_thread_ends(start):
    with raw(lambda connection, over: drip(connection, over, start)) as place:
        begin = time.monotonic()
        with pytest.raises(UnreachableError):
            on_the_clock(f"http://{place}").get("x")
        assert time.monotonic() - begin < 2
        for _ in range(100):
            if not threads():
                break
            time.sleep(0.02)
        assert threads() == 0


def test_all_requests_of_a_call_end_within_one_deadline():
    """A provider that reads history and forecast would else take twice as long from a server that drips."""
    with raw(lambda connection, over: drip(connection, over, b"HTTP/1.1 200 OK\r\n\r\n")) as place:
        http = on_the_clock(f"http://{place}", seconds=0.4)
        begin = time.monotonic()
        with one_call(0.5):
            with pytest.raises(UnreachableError, match="did not answer in time"):
                http.get("history")
            for _ in range(20):
                with pytest.raises(UnreachableError):
                    http.get("page")
            with pytest.raises(UnreachableError, match="was not asked: the requests before it took all the time"):
                http.get("forecast")
        assert time.monotonic() - begin < 1
        begin = time.monotonic()
        with pytest.raises(UnreachableError, match="did not answer in time"):
            http.get("another call")
        assert time.monotonic() - begin > 0.3


@pytest.mark.parametrize("name", ["uk", "electricity_maps", "carbon_aware_sdk"])
def test_reading_a_provider_that_drips_ends_within_its_deadline(monkeypatch, tmp_path, name):
    monkeypatch.setattr(registry, "READ_SECONDS", 0.5)
    (tmp_path / "token").write_text("t" * 20)
    (tmp_path / "token").chmod(0o600)
    token = None if name != "electricity_maps" else f"file:{tmp_path}/token"
    with raw(lambda connection, over: drip(connection, over, b"HTTP/1.1 200 OK\r\n\r\n")) as place:
        carbon = CarbonSource(name, "GB", None, base_url=f"http://{place}", token=token)
        source = registry.source_for(carbon, registry.means_for(name))
        begin = time.monotonic()
        with pytest.raises(SignalError):
            source.read(datetime.now(UTC))
        with pytest.raises(SignalError):
            source.zones() if name != "uk" else source.read(datetime.now(UTC))
        assert time.monotonic() - begin < 4


def test_a_server_that_says_nothing_is_given_up_in_time():
    with raw(lambda connection, over: over.wait(5) and None) as place:
        with pytest.raises(UnreachableError, match="did not answer in time"):
            on_the_clock(f"http://{place}").get("x")
        with pytest.raises(UnreachableError, match="ReadTimeout"):
            on_the_clock(f"http://{place}", seconds=5, read=0.05, tries=1).get("x")


def test_a_transport_that_cannot_be_cut_off_is_left_at_its_next_byte():
    class Endless(httpx2.SyncByteStream):
        def __iter__(self):
            while True:
                time.sleep(0.02)
                yield b" "

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Endless()))
    with pytest.raises(UnreachableError, match="did not answer in time"):
        on_the_clock("https://example.org", transport=transport).get("x")
    time.sleep(0.3)
    assert threads() == 0


def test_a_name_that_takes_for_ever_to_resolve_is_given_up_in_time():
    free = threading.Event()

    class Resolving(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            free.wait(10)
            raise httpx2.ConnectError("[Errno -3] Temporary failure in name resolution")

    begin = time.monotonic()
    with pytest.raises(UnreachableError, match="did not answer in time"):
        on_the_clock("https://example.org", transport=Resolving()).get("x")
    assert time.monotonic() - begin < 2
    free.set()


def test_a_name_that_does_not_exist_is_unreachable():
    transport = Scripted(httpx2.ConnectError("[Errno -2] Name or service not known"))
    with pytest.raises(UnreachableError, match=r"cannot be reached .*Name or service not known"):
        client("https://no-such-host.invalid", transport=transport).get("x")
    assert len(transport.requests) == 3


def test_a_port_where_nobody_listens_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    clock = Clock()
    with pytest.raises(UnreachableError, match="refused"):
        client(f"http://{place}", clock).get("x")
    assert len(clock.pauses) == 2


def test_a_server_that_speaks_no_tls_is_unreachable():
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw(talk) as place, pytest.raises(UnreachableError, match=r"ConnectError: .*SSL"):
        client(f"https://{place}").get("x")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000,
    ],
    ids=["nothing", "half a body", "no HTTP", "an endless header"],
)
def test_a_connection_that_breaks_off_is_tried_again_and_then_unreachable(said):
    clock, connections = Clock(), []

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connections.append(connection)
        connection.recv(4096)
        connection.sendall(said)

    with raw(talk) as place, pytest.raises(UnreachableError):
        client(f"http://{place}", clock).get("x")
    assert len(connections) == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty body"),
        (b" \n", "empty body"),
        (b"<html><head><title>Sign in &amp; pay</title>", "200 with HTML, not JSON: Sign in &amp; pay; "),
        (b"<!DOCTYPE html>", "HTML, not JSON"),
        (b'<?xml version="1.0"?><a/>', "XML, not JSON"),
        (b'{"zone": "DE", "history": [', "is cut off"),
        (b'{"value": NaN}', "NaN is no JSON"),
        (b'{"value": -Infinity}', "-Infinity is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"{} {}", "not JSON"),
    ],
    ids=range(12),
)
def test_a_success_that_is_not_json_is_a_bad_answer_and_not_asked_again(body, words):
    with (
        serving((200, {"Content-Type": "application/json"}, body)) as server,
        pytest.raises(AnswerError, match=words) as caught,
    ):
        client(server.url).get("x")
    assert caught.value.status == 200
    assert len(server.seen) == 1


@pytest.mark.parametrize("kind", ["text/html", "application/json; charset=latin-1", ""])
def test_json_is_json_whatever_it_is_called(kind):
    with serving((200, {"Content-Type": kind}, '\ufeff{"zone": "Île"}'.encode())) as server:
        assert client(server.url).get("x").body == {"zone": "Île"}


def test_a_compressed_answer_is_read():
    body = b"[" + b"1, " * 400_000 + b"1]"
    with serving((200, {"Content-Encoding": "gzip"}, gzip.compress(body, mtime=0))) as server:
        assert len(client(server.url).get("x").body) == 400_001
    assert server.seen[0].headers["accept-encoding"] == "gzip"


def test_a_body_that_is_announced_too_large_is_refused_unread():
    with (
        serving((200, {"Content-Length": str(LARGEST + 1)}, b"[]")) as server,
        pytest.raises(AnswerError, match="more than 5 MB"),
    ):
        client(server.url).get("x")


def test_a_body_that_turns_out_too_large_is_refused():
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" " * 2**20)

    with raw(talk) as place, pytest.raises(AnswerError, match="more than 5 MB"):
        client(f"http://{place}").get("x")


def test_a_small_body_that_inflates_is_refused_before_it_fills_the_memory():
    bomb = gzip.compress(bytes(300 * 2**20), 9)
    assert len(bomb) < LARGEST
    with serving((200, {"Content-Encoding": "gzip"}, bomb)) as server:
        tracemalloc.start()
        with pytest.raises(AnswerError, match="more than 5 MB"):
            client(server.url).get("x")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 25 * 2**20
        server.reply = lambda _: (400, {"Content-Encoding": "gzip"}, bomb)
        with pytest.raises(AnswerError, match="answered 400"):
            client(server.url).get("x")


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", gzip.compress(b"[1, 2, 3]" * 99, mtime=0)[:-9], "ends too early"),
        ("gzip", b"[1, 2, 3]", "damaged"),
        ("br", b"[1, 2, 3]", "encoding 'br', which was not asked for"),
    ],
)
def test_a_body_that_is_not_encoded_as_it_says_is_a_bad_answer(encoding, body, words):
    with serving((200, {"Content-Encoding": encoding}, body)) as server, pytest.raises(AnswerError, match=words):
        client(server.url).get("x")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "No recent data for zone \\"X\\""}', 'No recent data for zone "X"'),
        (b'{"status": "error", "message": "bad zone"}', "bad zone"),
        (b'{"error": {"code": "400 Bad Request", "message": "bad date"}}', "bad date"),
        (b'{"error": "Invalid scope", "message": "no access"}', "Invalid scope: no access"),
        (b'{"title": "One or more validation errors occurred.", "status": 400}', "One or more validation errors"),
        (b"Endpoint not available", "Endpoint not available"),
        (b"<html><title>403 Forbidden</title>", "403 Forbidden"),
        (b"bad\x1b[31m \x07zone\r\n\xe2\x80\xae", r"bad\[31m zone;"),
        (b"", "nothing more"),
        (b'{"error": null}', "null"),
        (b"[" * 100_000, r"\[\[\["),
        (b"\xff\xfe", "400: \ufffd\ufffd;"),
        (b"x" * 100_000, r"xxx\.\.\."),
    ],
    ids=range(13),
)
def test_a_refusal_carries_the_providers_own_words_in_one_short_line(body, words):
    with serving((400, {}, body)) as server, pytest.raises(AnswerError, match=words) as caught:
        client(server.url).get("x")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 420


def test_redirects_within_the_server_are_followed_with_its_headers_three_times():
    moved = (302, {"Location": "/v3/y?zone=DE"}, b"")
    with serving(moved, moved, (307, {"Location": "z"}, b""), b"1") as server:
        assert client(f"{server.url}/v3").get("x", headers={"auth-token": CANARY}).body == 1
        assert [seen.path for seen in server.seen] == ["/v3/x", "/v3/y?zone=DE", "/v3/y?zone=DE", "/v3/z"]
        assert all(seen.headers["auth-token"] == CANARY for seen in server.seen)
    with serving(moved) as server, pytest.raises(AnswerError, match="more than 3 times"):
        client(server.url).get("x")
    assert len(server.seen) == 4


def test_a_redirect_elsewhere_is_refused_and_gets_no_header():
    with serving(b"1") as other, serving((302, {}, b"")) as server:
        port = other.server_address[1]
        for location, words in {
            f"http://127.0.0.1:{port}/?key={CANARY}": "redirects to http://127.0.0.1",
            f"http://localhost:{server.server_address[1]}/": "redirects to http://localhost",
            "//example.org/": "redirects to http://example.org",
            "https://127.0.0.1/": "redirects to https://127.0.0.1",
            f"http://user:canary-Zq@127.0.0.1:{server.server_address[1]}/": "redirects to http://127.0.0.1",
            "ftp://example.org": "redirects to ftp://example.org",
            "": "redirects to nowhere",
            "http://127.0.0.1:canary/": "redirects to nowhere",
        }.items():
            server.reply = lambda _, location=location: (302, {"Location": location}, b"")
            with pytest.raises(AnswerError, match=words) as caught:
                client(server.url).get("x", headers={"auth-token": "t" * 9})
            assert "canary" not in str(caught.value)
        assert other.seen == []


def test_the_environments_proxy_is_not_asked_about_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving(b"1") as server:
        assert client(server.url).get("x").body == 1


def test_netrc_is_not_read(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\nmachine localhost login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    transport = Scripted(httpx2.Response(200, content=b"1"))
    client("https://localhost", transport=transport).get("x")
    assert "authorization" not in transport.requests[0].headers


def test_no_secret_is_in_an_error_a_log_or_the_cache_whatever_the_server_does_with_it(tmp_path, caplog):
    secrets = Secrets(environ={"TOKEN": CANARY})
    token, session = secrets.read("env:TOKEN"), "session-canary-77777777"
    caplog.set_level(logging.DEBUG)

    def echo(seen):
        said = f"{seen.path} {seen.headers} {CANARY}".replace('"', "'")
        status = int(seen.path.split("/")[1][:3])
        headers = {"Location": f"http://{session}.example.org/?k={CANARY}"} if status == 302 else {}
        return status, headers, f'{{"error": "{said}"}}'.encode()

    texts = []
    with serving(by=echo) as server:
        for status in (200, 302, 400, 401, 403, 404, 429, 500):
            http = client(server.url, secrets=secrets, folder=tmp_path, tries=1)
            for kind in ({"headers": {"Authorization": f"Bearer {session}"}}, {"auth": ("user", token)}):
                try:
                    http.get(f"{status}/{token}", {"api_key": token}, keep=HOUR, **kind)
                except SignalError as error:
                    texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
                    texts += [str(error.__cause__), str(error.__context__)]
        with pytest.raises(SignalError) as caught:
            http.get("200/x", headers={"auth-token": f"{CANARY}\r\nX: 1"})
        texts += ["".join(traceback.format_exception(caught.value)), repr(http), repr(vars(http))]
        broken = client(server.url, secrets=secrets, transport=Scripted(httpx2.ConnectError(f"no {CANARY}")))
        with pytest.raises(UnreachableError) as caught:
            broken.get("x", {"api_key": token})
        texts.append(str(caught.value))
    assert list(tmp_path.rglob("*.json")) == [], "an answer that holds a secret is not kept"
    texts += [record.getMessage() for record in caplog.records]
    assert len(texts) > 40 and any("***" in text for text in texts)
    for text in texts:
        for secret in (CANARY, session, "canary-Zq", "Y2FuYXJ5LVpxKzgx"):
            assert secret not in text


def test_a_secret_that_control_characters_keep_apart_is_hidden_too():
    secrets = Secrets(environ={"TOKEN": CANARY})
    secrets.read("env:TOKEN")
    with serving((400, {}, f"bad key {CANARY[:6]}\x00{CANARY[6:]}".encode())) as server:
        with pytest.raises(AnswerError, match=r"400: bad key \*\*\*;"):
            client(server.url, secrets=secrets).get("x")
        assert len(server.seen) == 1


def test_a_key_in_the_query_is_no_part_of_the_caches_key(tmp_path):
    secrets = Secrets(environ={"TOKEN": CANARY})
    with serving(b"1") as server:
        first = client(server.url, secrets=secrets, folder=tmp_path)
        first.get("x", {"api_key": secrets.read("env:TOKEN")}, keep=HOUR)
        renewed = Secrets(environ={"TOKEN": "another-token"})
        second = client(server.url, secrets=renewed, folder=tmp_path)
        assert second.get("x", {"api_key": renewed.read("env:TOKEN")}, keep=HOUR).cached
    (entry,) = tmp_path.rglob("*.json")
    assert "canary" not in entry.read_text()


def test_credentials_that_are_refused_say_where_to_look():
    with (
        serving((403, {}, b"<html><title>403 Forbidden</title></html>")) as server,
        pytest.raises(CredentialError, match=r"403 Forbidden; look at carbon\.token"),
    ):
        client(server.url).get("x")
