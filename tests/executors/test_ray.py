"""The Ray executor on a real Ray head, and on a double where a head would have to misbehave."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray_head import Head, free_port

from builders import FORK, attempts, losses, run_to_its_end, ten_steps, until
from gridsweep.errors import ExecutorError, GridsweepError
from gridsweep.executors.ray.executor import Ray
from gridsweep.executors.registry import executor_for
from gridsweep.policy.gates import Immediate
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.schedule.step import step
from gridsweep.state.events import Ended, Held, Lost, Paused, Requested
from gridsweep.sweep.clusters import ExecutorChoice, RayCluster
from gridsweep.testing.executor_contract import SLOW, Bench, Story, WorkerContract, expected_loss, stand_in, sweep_of


@pytest.fixture(scope="module")  # it takes a tenth of a core while it lives
def head() -> Iterator[Head]:
    head = Head()
    try:
        yield head
    finally:
        head.end()


class RayBench(Bench):
    def __init__(self, store: Path, cluster: RayCluster, timeout: float = 10.0):
        super().__init__(store)
        self.cluster, self.timeout = cluster, timeout

    def executor(self, command: Sequence[str]) -> Ray:
        return Ray(self.store, self.cluster, command, grace=3, timeout=self.timeout)

    def kill(self, attempt: str) -> None:
        os.kill(self.executor(()).folder(attempt).pid(), signal.SIGKILL)


class TestRay(WorkerContract):
    """What the worker writes is fetched."""

    @pytest.fixture
    def bench(self, head: Head, tmp_path: Path) -> RayBench:
        return RayBench(tmp_path / "store", RayCluster(head.address, resource="gpu_slot"))


def test_in_a_shared_folder_nothing_travels(head, tmp_path):
    bench = RayBench(tmp_path / "store", RayCluster(head.address, shared=str(tmp_path), resource="gpu_slot"))
    story = Story(bench, bench.executor(stand_in(misbehave="wait:e00")), sweep_of(1, steps=20))
    name = story.request()
    story.reach(name, 3)
    assert story.executor.folder(name).alive()  # the lock is held, and seen here
    story.pause(name)
    assert isinstance(story.finish(), Paused)
    story.die(bench.executor(stand_in()))
    story.request()
    assert isinstance(story.finish(), Ended)
    assert story.loss() == expected_loss(story.state.sweep, "e00")
    assert not list(head.folder.glob(f"r/*/logs/gridsweep/*{name.replace('/', '-')}"))


def test_a_head_that_does_not_answer_for_a_day_costs_nothing(head, tmp_path):
    bench = RayBench(tmp_path / "store", RayCluster(head.address, resource="gpu_slot"), timeout=0.5)
    story = Story(bench, bench.executor(stand_in(SLOW)), sweep_of(1, steps=60))
    story.state.patience = timedelta(minutes=10)
    name = story.request()
    story.reach(name, 3)
    head.freeze(True)
    try:
        heard = [event for _ in range(3) for event in story.look()]
        assert [event.kind for event in heard if event.kind != "Progressed"] == ["Held"]
        assert story.state.active[name].held == f"ray: {head.address} does not answer"
        assert story.executor.alive(story.state) and not story.executor.changed(story.state)
        reading = bench.world(story.executor).provider.read(bench.now())
        assert step(story.state, Immediate(), reading, bench.now() + timedelta(days=1)) == []
        story.executor.act(story.state)
    finally:
        head.freeze(False)
    assert isinstance(story.finish(), Ended)
    assert story.facts(Requested, Lost) == ["Requested"] and story.loss() == expected_loss(story.state.sweep, "e00")
    assert [event.why for event in story.journal if isinstance(event, Held)][-1] == ""


def test_one_that_was_submitted_before_the_loop_died_is_adopted(head, tmp_path):
    bench = RayBench(tmp_path / "store", RayCluster(head.address, resource="gpu_slot"))
    story = Story(bench, bench.executor(stand_in(SLOW)), sweep_of(1))
    name = story.request()
    record = story.executor._record(story.executor.job_id(name))
    record.unlink()  # it died before it could write that down
    story.die(bench.executor(stand_in()))
    story.executor.act(story.state)
    assert record.exists()
    assert isinstance(story.finish(), Ended)
    assert story.facts(Requested, Lost) == ["Requested"]
    assert story.loss() == expected_loss(story.state.sweep, "e00")


def test_what_waits_for_resources_is_held_and_can_be_given_up(head, tmp_path, monkeypatch):
    monkeypatch.setattr("gridsweep.executors.ray.executor.HELD_AFTER", 0.5)
    bench = RayBench(tmp_path / "store", RayCluster(head.address, resource="unobtainium"))
    story = Story(bench, bench.executor(stand_in()), sweep_of(1))
    name = story.request()
    story.until(lambda: bool(story.state.active[name].held))
    assert story.state.active[name].held.startswith("ray: Job has not started yet. It may be waiting for resources")
    story.pause(name)
    lost = story.finish()
    assert isinstance(lost, Lost) and lost.why == "enough"


# Real training


@pytest.mark.train
def test_four_experiments_of_ten_steps_end_as_on_this_machine_though_the_loop_is_killed(head, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(head.folder / "cache"))
    here, there = tmp_path / "here", tmp_path / "there"
    assert runs.run(ten_steps(ExecutorChoice(), tmp_path / "pairs.jsonl"), here).exit_code == 0
    ray = ExecutorChoice("ray", ray=RayCluster(head.address, resource="gpu_slot"))
    loop = FORK.Process(target=run_to_its_end, args=(ten_steps(ray, tmp_path / "pairs.jsonl"), there))
    loop.start()
    until(lambda: any((a.path / "worker.json").exists() for a in attempts(there)), 60)
    loop.kill()
    loop.join()
    assert runs.run(None, there).exit_code == 0
    wanted, found = RunFolder(here).read(), RunFolder(there).read()
    assert losses(found) == losses(wanted)
    assert [s.outcome.train_loss for s in found.standings.values()] == [
        s.outcome.train_loss for s in wanted.standings.values()
    ]
    assert all(len(standing.attempts) == 1 for standing in found.standings.values())
    assert len(list(there.glob("store/experiments/*/adapter/adapter_model.safetensors"))) == 4


# A dashboard that says what a test wants


class Double:
    """Answers every request with what `answers` holds for the first path that fits; remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                double.asked.append((self.command, self.path, self.headers["Authorization"]))
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                key = f"{self.command} {self.path}"
                status, said = next((a for start, a in double.answers.items() if key.startswith(start)), (200, {}))
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def is_asked(self, method: str, path: str) -> int:
        return sum(m == method and p.startswith(path) for m, p, _ in self.asked)

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def double() -> Iterator[Double]:
    double = Double()
    yield double
    double.end()


def submitted(double: Double, tmp_path: Path) -> tuple[Story, str, dict]:
    """A sweep whose only attempt was submitted to the double; and the job as a dashboard tells of it."""
    bench = RayBench(tmp_path / "store", RayCluster(double.address))
    double.answers = {"GET /api/jobs/": (404, b"Job does not exist")}
    story = Story(bench, bench.executor(stand_in()), sweep_of(1))
    name = story.request()
    job = {"status": "RUNNING", "message": "", "error_type": None, "start_time": 1000, "end_time": None}
    return story, name, job | {"driver_node_id": None, "metadata": {}}


def test_jobs_that_a_restarted_head_forgot_are_lost(double, tmp_path):
    story, _, _ = submitted(double, tmp_path)
    story.executor.act(story.state)
    assert double.is_asked("POST", "/api/jobs/") == 1  # it is not submitted again
    assert story.executor.changed(story.state) and not story.executor.alive(story.state)
    (lost,) = story.look()
    assert isinstance(lost, Lost) and lost.why.endswith("was its head restarted?")


@pytest.mark.parametrize("status", ["STOPPED", "FAILED", "SUCCEEDED"])
def test_whatever_a_job_without_a_result_ended_as_it_is_lost(double, tmp_path, status):
    story, _, job = submitted(double, tmp_path)
    double.answers = {"GET /api/jobs/": (200, job | {"status": status, "message": "runtime_env setup failed\nmore"})}
    (lost,) = story.look()
    assert isinstance(lost, Lost) and lost.why == "runtime_env setup failed"


def test_a_job_that_got_no_resources_in_time_is_submitted_again(double, tmp_path):
    story, name, job = submitted(double, tmp_path)
    timeout = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "message": "failed to start"}
    double.answers = {"GET /api/jobs/": (200, job | timeout)}
    assert [event.kind for event in story.look()] == ["Held"]
    story.executor.act(story.state)
    id = story.executor.job_id(name)
    assert (double.is_asked("DELETE", f"/api/jobs/{id}"), double.is_asked("POST", "/api/jobs/")) == (1, 2)


@pytest.mark.parametrize("answer", [(500, b"?"), (503, b"?"), (429, b"?"), (401, b"?"), (403, b"?"), (200, b"<html>")])
def test_an_answer_that_says_nothing_of_a_job_is_no_loss(double, tmp_path, answer):
    story, name, _ = submitted(double, tmp_path)
    double.answers = {"GET": answer, "POST": answer}
    assert [event.kind for event in story.look()] == ["Held"]
    story.executor.act(story.state)
    assert story.executor.alive(story.state) and story.state.active[name].held
    with pytest.raises(ExecutorError, match=double.address):
        story.executor.ready()


def test_a_job_of_that_name_that_is_not_ours_is_left_alone(double, tmp_path):
    bench = RayBench(tmp_path / "store", RayCluster(double.address))
    job = {"status": "RUNNING", "metadata": {"gridsweep_stint": "another"}}
    double.answers = {"GET /api/jobs/": (200, job)}
    story = Story(bench, bench.executor(stand_in()), sweep_of(1))
    with pytest.raises(ExecutorError, match="that is not ours"):
        story.request()
    assert not double.is_asked("POST", "")


def test_a_token_is_sent_nowhere_else_and_told_to_nobody(double, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "canary")
    cluster = RayCluster(double.address, token="env:MY_TOKEN")
    double.answers = {"GET /api/jobs/": (302, b""), "POST": (400, b"bad canary")}
    ray = Ray(tmp_path / "store", cluster, stand_in())
    with pytest.raises(ExecutorError):
        ray.api.job("x")
    with pytest.raises(ExecutorError, match=r"answers 400: bad \*\*\*"):
        ray.api.submit({})
    assert {token for _, _, token in double.asked} == {"Bearer canary"}
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(ExecutorError, match="there is no token in env:MY_TOKEN"):
        ray.api.job("x")


def test_where_nobody_answers_or_ray_is_old_no_run_begins(double, tmp_path):
    nobody = RayCluster(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(GridsweepError, match="does not answer; start a cluster there") as error:
        runs.run(replace(sweep_of(1), executor=ExecutorChoice("ray", ray=nobody)), tmp_path)
    assert error.value.exit_code == 5 and not RunFolder(tmp_path).submitted()
    double.answers = {"GET /api/version": (200, {"ray_version": "2.53.0"})}
    with pytest.raises(ExecutorError, match=r"runs Ray 2\.53\.0; 2\.54 or newer is needed"):
        Ray(tmp_path / "store", RayCluster(double.address)).ready()


def test_a_store_is_made_where_the_cluster_sees_it(tmp_path):
    (tmp_path / "shared").mkdir()
    sweep = replace(sweep_of(1), executor=ExecutorChoice("ray", ray=RayCluster(shared=str(tmp_path / "shared"))))
    executor_for(sweep, tmp_path / "run" / "store")
    executor_for(sweep, tmp_path / "run" / "store")
    assert (tmp_path / "run" / "store").resolve() == tmp_path / "shared" / "contract-run"
    (tmp_path / "elsewhere" / "store").mkdir(parents=True)
    with pytest.raises(ExecutorError, match="does not lie in"):
        executor_for(sweep, tmp_path / "elsewhere" / "store")
    with pytest.raises(ExecutorError, match="belongs to another run"):
        executor_for(sweep, tmp_path / "other" / "run" / "store")
