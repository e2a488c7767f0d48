import socket
import threading
import time
from datetime import timedelta

import httpx2
import pytest

from gridsweep.carbon.traces import HOUR
from gridsweep.testing.grid.behaviours import BEHAVIOURS, STATUSES, behaviour
from gridsweep.testing.grid.dialect import Grid
from gridsweep.testing.grid.electricity_maps import ElectricityMapsApi
from gridsweep.testing.grid.server import GridServer, Stranger, silent_address
from gridsweep.testing.grid.spoiling import moved
from gridsweep.testing.grid.transport import GridTransport
from gridsweep.testing.provider_contract import NOW, MovableClock, truth

PATH = "/v3/carbon-intensity/history?zone=DE"
API = ElectricityMapsApi()
TOKEN = {"auth-token": API.secrets["token"]}


def grid(clock=None):
    return Grid("DE", truth(), (clock or MovableClock()).now)


def get(url, **more):
    with httpx2.Client(verify=False, trust_env=False, timeout=2.0) as client:
        return client.get(url, headers=TOKEN, **more)


@pytest.fixture(scope="module")
def server():
    with GridServer(API, grid()) as server:
        yield server


@pytest.fixture(autouse=True)
def well_behaved(server):
    server.behave()


def test_it_answers_with_the_dialect_over_the_grid(server):
    body = get(server.url + PATH).json()
    assert [round(p["carbonIntensity"]) for p in body["history"]] == truth().between(
        NOW - 23 * HOUR, NOW
    ).values.tolist()


def test_it_keeps_what_it_was_asked(server):
    server.seen.clear()
    get(server.url + PATH)
    seen = server.seen[-1]
    assert (seen.at, seen.status, seen.request.method) == (NOW, 200, "GET")
    assert seen.request.params == {"zone": "DE"} and seen.request.headers["auth-token"] == TOKEN["auth-token"]
    assert server.count("history") == 1 and server.count("forecast") == 0


def test_it_misbehaves_for_the_next_requests_only(server):
    server.misbehave(behaviour("status-500"), 2)
    assert [get(server.url + PATH).status_code for _ in range(3)] == [500, 500, 200]
    assert server.spoiled == 2


def test_it_misbehaves_on_some_paths_only(server):
    server.misbehave(behaviour("status-500"), paths="forecast")
    assert get(server.url + PATH).status_code == 200 and server.spoiled == 0
    assert get(server.url + PATH.replace("history", "forecast")).status_code == 500


def test_a_behaviour_with_nothing_to_spoil_spoils_nothing(server):
    server.misbehave(behaviour("all-null"))
    assert get(f"{server.url}/v3/zones").status_code == 200 and server.spoiled == 0


@pytest.mark.parametrize("one", STATUSES, ids=[one.name for one in STATUSES])
def test_statuses_are_what_they_say(server, one):
    server.elsewhere = "http://elsewhere.invalid"
    server.misbehave(one)
    answer = get(server.url + PATH)
    codes = [int(part) for part in one.name.split("-") if part.isdigit() and len(part) == 3]
    assert answer.status_code == (codes[0] if codes else 302 if "redirect" in one.name else 400)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("cut-body", httpx2.RemoteProtocolError),
        ("reset-body", httpx2.ReadError),
        ("closed", httpx2.RemoteProtocolError),
        ("noise", httpx2.RemoteProtocolError),
        ("false-gzip", httpx2.DecodingError),
    ],
)
def test_a_connection_breaks_as_told_with_a_socket_and_without(server, name, error):
    server.misbehave(behaviour(name))
    with pytest.raises(error):
        get(server.url + PATH)
    double = GridTransport(API, grid())
    double.misbehave(behaviour(name))
    with httpx2.Client(transport=double) as client, pytest.raises(httpx2.RequestError):
        client.get("https://api.invalid" + PATH, headers=TOKEN)


def test_a_slow_answer_is_one_byte_a_second(server):
    server.misbehave(behaviour("slow-loris"))
    with httpx2.Client(verify=False, trust_env=False, timeout=0.3) as client, pytest.raises(httpx2.ReadTimeout):
        client.get(server.url + PATH, headers=TOKEN)


def test_nobody_listens_where_nobody_is_said_to():
    with pytest.raises(httpx2.ConnectError):
        get(silent_address())


def test_a_redirect_leads_to_a_stranger_who_writes_down_what_he_hears(server):
    with Stranger() as stranger:
        server.elsewhere = stranger.url
        server.misbehave(behaviour("redirect-elsewhere"))
        get(server.url + PATH)
        assert stranger.heard == []
        get(server.url + PATH, follow_redirects=True)
        assert len(stranger.heard) == 1 and TOKEN["auth-token"] in stranger.heard[0]


def test_it_knows_how_many_were_asking_at_once():
    together = threading.Barrier(3, timeout=5)

    with GridServer(API, grid()) as server:
        assert server.most_in_flight == 0
        server.misbehave(behaviour("slow-loris"))

        def ask():
            together.wait()
            with httpx2.Client(verify=False, trust_env=False, timeout=0.4) as client, pytest.raises(httpx2.ReadTimeout):
                client.get(server.url + PATH, headers=TOKEN)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.most_in_flight == 3


def test_the_most_in_a_window_is_counted_by_the_grids_clock():
    clock = MovableClock()
    double = GridTransport(API, grid(clock))
    with httpx2.Client(transport=double) as client:
        for wait in (0, 1800, 1799, 1, 3600):
            clock.sleep(wait)
            client.get("https://api.invalid" + PATH, headers=TOKEN)
    assert double.most_in(HOUR) == 3 and double.most_in(timedelta(seconds=1)) == 1


def test_it_hangs_up_on_everybody_when_it_closes():
    before = threading.active_count()
    with GridServer(API, grid()) as server:
        address = server.url.removeprefix("http://").split(":")
        silent = [socket.create_connection((address[0], int(address[1]))) for _ in range(3)]
        server.misbehave(behaviour("slow-loris"))
        silent[0].sendall(f"GET {PATH} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        assert silent[0].recv(10)
        began = time.monotonic()
    assert time.monotonic() - began < 5 and threading.active_count() == before
    for connection in silent:
        connection.close()
    with pytest.raises(httpx2.ConnectError):
        get(server.url)


def test_nobody_is_reached_during_an_outage():
    clock = MovableClock()
    double = GridTransport(API, grid(clock), outages=[(NOW + HOUR, NOW + 2 * HOUR)])
    with httpx2.Client(transport=double) as client:

        def ask():
            return client.get("https://api.invalid" + PATH, headers=TOKEN).status_code

        assert ask() == 200
        clock.sleep(3600)
        with pytest.raises(httpx2.ConnectError):
            ask()
        clock.sleep(3600)
        assert ask() == 200 and double.refused == [NOW + HOUR]
        with double.outage(), pytest.raises(httpx2.ConnectError):
            ask()
        assert ask() == 200


@pytest.mark.parametrize("one", BEHAVIOURS, ids=[one.name for one in BEHAVIOURS])
def test_in_process_and_over_a_socket_the_same_comes(server, one):
    if one.place != "here" or one.delivery != "whole":
        return
    double = GridTransport(API, grid())
    for api in (server, double):
        api.elsewhere = "https://elsewhere.invalid"
        api.misbehave(one)
    bodies = []
    with httpx2.Client(transport=double) as inside, httpx2.Client(verify=False, trust_env=False) as outside:
        for client, base in ((inside, "https://api.invalid"), (outside, server.url)):
            with client.stream("GET", base + PATH, headers={**TOKEN, "host": "api.invalid"}) as answer:
                bodies.append((answer.status_code, b"".join(answer.iter_raw())))
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("2026-05-04T14", "2026-05-04T15"),
        ("2026-05-04T14:00Z", "2026-05-04T15:00Z"),
        ("2026-05-04T14:00:00Z", "2026-05-04T15:00:00Z"),
        ("2026-05-04T14:00:00.000Z", "2026-05-04T15:00:00.000Z"),
        ("2026-05-04T14:00:00+00:00", "2026-05-04T15:00:00+00:00"),
    ],
)
def test_a_time_that_is_moved_is_written_as_it_was(text, later):
    assert moved(text, HOUR) == later
