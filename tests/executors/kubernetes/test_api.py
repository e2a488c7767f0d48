"""The HTTP layer: what is asked again, what is not, watches, credentials, and no secret anywhere."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bench import CLUSTER, api_of

from builders import until
from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import (
    JOBS,
    Api,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    Server,
    Unreachable,
    Watch,
    server_for,
)
from gridsweep.executors.kubernetes.preflight import check_cluster
from gridsweep.testing.kubernetes.server import ApiServer

CANARY = "canary-token-5e0a"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def api(server: ApiServer) -> Iterator[Api]:
    api = api_of(server, sleep=lambda seconds: slept.append(seconds), jitter=lambda: 1.0, clock=lambda: sum(slept))
    slept: list[float] = []
    api.slept = slept
    yield api
    api.close()


def job(name: str, **labels: str) -> dict:
    return {"metadata": {"name": name, "labels": labels}, "spec": {}}


def test_objects(api: Api):
    made = api.create(JOBS, job("a", sweep="x"))
    api.create(JOBS, job("b", sweep="y"))
    assert [o["metadata"]["name"] for o in api.list(JOBS, "sweep=x")[0]] == ["a"]
    changed = api.patch(JOBS, "a", {"spec": {"suspend": True}})
    assert api.get(JOBS, "a") == changed and changed["spec"] == {"suspend": True}
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"suspend": False}}
    with pytest.raises(Conflict, match="modified"):
        api.patch(JOBS, "a", stale)
    with pytest.raises(Conflict, match="already exists"):
        api.create(JOBS, job("a"))
    with pytest.raises(Conflict, match="UID"):
        api.delete(JOBS, "a", uid="another")
    api.delete(JOBS, "a", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        api.get(JOBS, "c")


def test_long_lists_come_in_pages(api: Api, server: ApiServer):
    for number in range(1201):
        server.put("rayjobs", job(f"j{number}"))
    assert len(api.list(JOBS)[0]) == 1201 and server.count("list", "rayjobs") == 3


def test_backoff_grows_and_the_server_may_ask_for_more(api: Api, server: ApiServer):
    server.fail(code=503, times=3)
    api.list(JOBS)
    assert api.slept == [0.25, 0.5, 1.0]
    api.slept.clear()
    server.fail(code=429, headers={"Retry-After": "4"})
    api.list(JOBS)
    assert api.slept == [4.0]


@pytest.mark.parametrize(
    "how", [{"code": 500}, {"how": "drop"}, {"how": "garbage"}, {"code": 429, "headers": {"Retry-After": "86400"}}]
)
def test_patience_ends(api: Api, server: ApiServer, how: dict):
    server.fail(times=99, **how)
    with pytest.raises(Unreachable, match="nothing is lost"):
        api.list(JOBS)
    assert sum(api.slept) <= 5.0


def test_what_is_refused_is_not_asked_again(api: Api, server: ApiServer):
    for code, error in ((400, ApiError), (403, Forbidden), (404, NotFound), (409, Conflict), (410, Expired)):
        server.fail(code=code)
        with pytest.raises(error):
            api.list(JOBS)
    assert api.slept == [] and server.count("list", "rayjobs") == 5


def test_a_token_never_follows_a_redirect(server: ApiServer):
    api = Api(Server(server.url, token=lambda: CANARY, trust_env=False), "gridsweep", patience=1.0)
    server.fail(code=307, headers={"Location": "http://127.0.0.1:9/elsewhere"})
    with pytest.raises(ApiError, match="307"):
        api.list(JOBS)
    api.close()


# -- watches


def woken(api: Api) -> tuple[Watch, threading.Event]:
    event = threading.Event()
    return Watch(api, JOBS, "sweep=x", event.set), event


@pytest.mark.parametrize("trouble", ["none", "dropped", "gone", "restarted", "denied once", "truncated list"])
def test_a_watch_wakes_whatever_happens_to_it(server: ApiServer, trouble: str):
    api = api_of(server)
    watch, event = woken(api)
    until(lambda: event.is_set() and server.count("watch", "rayjobs"))
    event.clear()
    if trouble == "dropped":
        server.drop_watches()
    elif trouble == "gone":
        server.compact()
        server.fail(verb="watch", code=410)
        server.drop_watches()
    elif trouble == "restarted":
        with server.down():
            server.put("rayjobs", job("unseen", sweep="x"))
    elif trouble == "denied once":
        server.fail(verb="watch", code=403)
        server.drop_watches()
    elif trouble == "truncated list":
        server.fail(verb="list", how="truncate")
        server.drop_watches()
    server.put("rayjobs", job("a", sweep="x"))
    assert event.wait(10)
    watch.close()
    until(lambda: server.drop_watches() or watch.left(0.05))
    api.close()


def test_a_watch_from_a_version_that_is_forgotten_is_told_so(api: Api, server: ApiServer):
    _, version = api.list(JOBS)
    server.put("rayjobs", job("a"))
    server.compact()
    with pytest.raises(Expired):
        list(api.watch(JOBS, "", version))


# -- credentials


def config(tmp_path: Path, user: dict, **cluster) -> dict[str, str]:
    path = tmp_path / "config"
    named = {"server": "http://127.0.0.1:1", **cluster}
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": named}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return {"KUBECONFIG": str(path)}


def test_tokens_from_a_kubeconfig(tmp_path: Path):
    (tmp_path / "token").write_text(CANARY + "\n")
    printed = json.dumps({"status": {"token": CANARY}})
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print({printed!r})"],
    }
    for user in ({"token": CANARY}, {"tokenFile": "token"}, {"exec": program}):
        server = server_for(None, config(tmp_path, user))
        assert server.headers() == {"Authorization": f"Bearer {CANARY}"}
        assert CANARY not in repr(server)
    assert server_for(None, config(tmp_path, {})).headers() == {}


BROKEN = {
    "no file": (lambda t: {"KUBECONFIG": str(t / "none")}, None, "no cluster is configured"),
    "another context": (lambda t: config(t, {"token": CANARY}), "there", "no context 'there' .it has: here"),
    "no YAML": (
        lambda t: {"KUBECONFIG": str((t / "x", (t / "x").write_text(f"a: [{CANARY}"))[0])},
        None,
        "cannot read",
    ),
    "a list": (
        lambda t: {"KUBECONFIG": str((t / "x", (t / "x").write_text(f"- {CANARY}"))[0])},
        None,
        "cannot be used",
    ),
    "a bad authority": (
        lambda t: config(t, {"token": CANARY}, server="https://x", **{"certificate-authority-data": "%%"}),
        None,
        "cannot be used",
    ),
    "a certificate that is none": (
        lambda t: config(
            t,
            {k: base64.b64encode(CANARY.encode()).decode() for k in ("client-certificate-data", "client-key-data")},
            server="https://x",
        ),
        None,
        "cannot be used",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_kubeconfig_that_cannot_be_used_is_said_without_its_secrets(tmp_path: Path, name: str):
    make, context, said = BROKEN[name]
    with pytest.raises(ExecutorError, match=said) as caught:
        server_for(context, make(tmp_path))
    assert CANARY not in str(caught.value) and caught.value.__suppress_context__ is not None


def test_a_program_that_gives_no_token_is_named_and_what_it_says_is_not(tmp_path: Path):
    program = {"apiVersion": "v1", "command": sys.executable, "args": ["-c", f"print({CANARY!r}); exit(1)"]}
    server = server_for(None, config(tmp_path, {"exec": program}))
    with pytest.raises(ExecutorError, match="gave no token") as caught:
        server.headers()
    assert CANARY not in str(caught.value)


def test_no_error_shows_a_token(server: ApiServer):
    api = Api(Server(server.url, token=lambda: CANARY, trust_env=False), "gridsweep", patience=0.1)
    for how in (
        {"code": 401, "times": 2},
        {"code": 403},
        {"code": 500, "times": 9},
        {"how": "drop", "times": 9},
        {"code": 422},
    ):
        server.faults.clear()
        server.fail(**how)
        with pytest.raises(ExecutorError) as caught:
            api.get(JOBS, "a")
        assert CANARY not in f"{caught.value!r}{caught.value.__cause__!r}"
    api.close()


# -- what is found before anything is submitted


def claim(server: ApiServer, phase: str = "Bound", **spec: str) -> None:
    meta = {"name": CLUSTER.volume}
    server.put("persistentvolumeclaims", {"metadata": meta, "spec": spec, "status": {"phase": phase}})


def test_a_cluster_that_has_all(api: Api, server: ApiServer):
    claim(server)
    check_cluster(api, CLUSTER, outside=True)


@pytest.mark.parametrize("what", ["create rayjobs", "delete rayjobs", "list pods", "get pods/proxy"])
def test_all_rights_that_are_missing_are_named_at_once(api: Api, server: ApiServer, what: str):
    claim(server)
    verb, _, plural = what.partition(" ")
    server.forbid(verb, plural)
    server.forbid("watch", "rayjobs")
    with pytest.raises(Forbidden, match=r"watch rayjobs\.ray\.io") as caught:
        check_cluster(api, CLUSTER, outside=True)
    assert f"{verb} {plural}" in str(caught.value).replace(".ray.io", "")


def test_a_cluster_without_kuberay(api: Api, server: ApiServer):
    server.kinds.remove("rayjobs")
    with pytest.raises(ExecutorError, match="install the KubeRay operator"):
        check_cluster(api, CLUSTER, outside=True)


def test_volumes_that_cannot_be(api: Api, server: ApiServer):
    with pytest.raises(ExecutorError, match="there is no volume claim gridsweep-store"):
        check_cluster(api, CLUSTER, outside=False)
    claim(server, "Pending")
    with pytest.raises(ExecutorError, match="names no StorageClass"):
        check_cluster(api, CLUSTER, outside=False)
    server.change("persistentvolumeclaims", CLUSTER.volume, {"spec": {"storageClassName": "nfs"}})
    check_cluster(api, CLUSTER, outside=False)  # it may be bound when its first pod comes
    server.change("persistentvolumeclaims", CLUSTER.volume, {"status": {"phase": "Lost"}})
    with pytest.raises(ExecutorError, match="is gone"):
        check_cluster(api, CLUSTER, outside=False)


def test_a_claim_that_is_being_deleted_is_named_first(api: Api, server: ApiServer):
    claim(server)
    server.change("persistentvolumeclaims", CLUSTER.volume, {"metadata": {"deletionTimestamp": "2024-06-10T00:00:00Z"}})
    with pytest.raises(ExecutorError, match="is being deleted; wait until it is gone"):
        check_cluster(api, CLUSTER, outside=False)


def test_no_cluster_at_all(tmp_path: Path):
    server = server_for(None, config(tmp_path, {}))
    api = Api(server, "gridsweep", patience=0.2)
    with pytest.raises(Unreachable, match="look at the network"):
        check_cluster(api, CLUSTER, outside=True)
    api.close()
