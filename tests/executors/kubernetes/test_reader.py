"""The reader pod: replaced when it cannot serve, not needed where nothing was written, never in the way of the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench import CLUSTER
from test_refusals import DELETED, LIMIT_RANGE, MINUTE
from test_scenarios import Stage, fresh

from gridsweep.carbon.traces import HOUR
from gridsweep.errors import EXECUTOR, ExecutorError
from gridsweep.executors.kubernetes.api import PODS
from gridsweep.executors.kubernetes.manifests.names import object_name
from gridsweep.executors.kubernetes.reader import reader_pod
from gridsweep.executors.kubernetes.volume import Mirrored
from gridsweep.state.events import Held, Lost, Pausing, Stopping
from gridsweep.testing.kubernetes.server import ApiServer

READER = object_name("contract", "reader")


@pytest.fixture
def stage(server: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    fresh(server)
    stage = Stage(server, tmp_path / "volume", mirror=tmp_path / "mirror")
    yield stage
    stage.close()


def stopped(stage: Stage) -> None:
    stage.tell(Stopping(stage.time, "Ctrl-C"))
    for attempt in stage.state.active.values():
        stage.tell(Pausing(stage.time, attempt.id, "Ctrl-C"))
    stage.executor.act(stage.state)


def readers(server: ApiServer) -> int:
    return sum(name == READER for verb, plural, name in server.requests if (verb, plural) == ("create", "pods"))


def test_undisturbed_through_the_reader(stage: Stage):
    stage.request()
    assert stage.run() == "ended" and readers(stage.server) == 1
    assert (stage.mirror / "experiments" / "e00" / "adapter").is_dir()


@pytest.mark.parametrize("why", ["no image", "held", "quota"])
def test_an_attempt_that_never_began_is_stopped_without_a_reader(stage: Stage, why: str):
    if why == "no image":
        stage.cluster.no_image = {CLUSTER.image}
    elif why == "quota":
        stage.cluster.gpu_quota = 0
    else:
        stage.cluster.hold = "no"
    stage.cluster.reader_hold = "no"
    stage.request()
    stage.turn(MINUTE), stage.turn(MINUTE)
    stopped(stage)
    assert stage.run(5, hours=MINUTE / 6) == "paused"
    assert readers(stage.server) == 0 and not any(isinstance(e, Lost) for e in stage.journal)


def test_with_an_image_that_cannot_be_pulled_the_sweep_ends_and_the_next_run_has_another(stage: Stage):
    stage.cluster.no_image = {CLUSTER.image}
    stage.request()
    assert stage.run(20, hours=MINUTE) == "lost" and "cannot be pulled" in stage.state.constants.refusal
    stage.choice = replace(CLUSTER, image="right")
    stage.begin_anew()
    stage.request()
    assert stage.run() == "ended"


def test_a_reader_of_another_image_is_replaced(stage: Stage):
    stage.cluster.reader_hold = "no"
    stage.api.create(PODS, reader_pod(replace(CLUSTER, image="wrong"), "contract", READER, "key"))
    stage.cluster.tick()
    stage.cluster.reader_hold = ""
    stage.request()
    assert stage.run() == "ended" and readers(stage.server) == 2


CANNOT = {
    "no node": ({"reader_hold": "0/1 nodes are available: 1 Insufficient cpu."}, "Insufficient cpu"),
    "a claim being deleted": ({"reader_hold": DELETED}, "is being deleted"),
}


@pytest.mark.parametrize("scenario", CANNOT)
def test_a_stop_ends_in_two_minutes_and_says_why_the_volume_cannot_be_read(stage: Stage, scenario: str):
    settings, said = CANNOT[scenario]
    for name, value in settings.items():
        setattr(stage.cluster, name, value)
    stage.request()
    for _ in range(3):
        stage.cluster.tick()
    stage.time += 2.1 * HOUR
    stage.turn(MINUTE), stage.turn(MINUTE), stage.turn(MINUTE)
    assert "which reads the volume to us" in stage.held and said in stage.held
    begun = stage.time
    stopped(stage)
    with pytest.raises(ExecutorError, match=said) as caught:
        for _ in range(40):
            stage.turn(MINUTE / 10)
    assert caught.value.exit_code == EXECUTOR and "nothing is lost" in str(caught.value)
    assert (stage.time - begun).total_seconds() <= 120
    stage.cluster.reader_hold = ""  # the next run reads what the worker had saved
    stage.begin_anew()
    assert stage.run(5, hours=0.01) == "paused" and stage.state.standings["e00"].step == 2
    assert not any(isinstance(e, Lost) for e in stage.journal)


def test_a_reader_that_waits_for_a_node_is_told_and_waited_for(stage: Stage):
    stage.cluster.reader_hold = "0/1 nodes are available: 1 Insufficient cpu."
    stage.request()
    for _ in range(20):
        stage.turn(1.0)
    assert stage.end == "" and "Insufficient cpu" in stage.held
    assert sum(isinstance(e, Held) for e in stage.journal) <= 4
    stage.cluster.reader_hold = ""
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


def test_a_reader_whose_claim_is_being_deleted_does_not_hang_the_loop(stage: Stage):
    stage.cluster.reader_hold = DELETED
    stage.request()
    with pytest.raises(ExecutorError, match="is being deleted"):
        for _ in range(30):
            stage.turn(MINUTE)
    assert stage.server.all("rayjobs")  # the work itself goes on


def test_a_reader_that_is_refused_is_told_and_not_taken_for_a_missing_right(stage: Stage):
    create = stage.api.create

    def refused(resource, body):
        if resource == PODS:
            from gridsweep.executors.kubernetes.api.client import _admission

            raise _admission(f'pods "{READER}" is forbidden: {LIMIT_RANGE}', f"pods {READER}")
        return create(resource, body)

    stage.api.create = refused
    stage.request()
    stage.turn(MINUTE), stage.turn(MINUTE)
    assert LIMIT_RANGE in stage.held and "Role" not in stage.held


def test_a_reader_on_a_node_that_is_gone_is_replaced(stage: Stage):
    stage.request()
    stage.turn(1.0), stage.turn(1.0)
    stage.server.ports.pop(READER)  # nothing answers there any more
    stage.turn(MINUTE)
    assert "does not answer" in stage.held
    for _ in range(5):
        stage.turn(MINUTE)
    assert stage.run() == "ended" and readers(stage.server) == 2


def test_logs_during_a_run_do_not_touch_the_loops_reader_and_say_how_old_they_are(stage: Stage):
    stage.request()
    for _ in range(3):
        stage.turn(1.0)
    (stage.files.store / "stints" / stage.name / "log.txt").write_text("a line\n")
    before = len(stage.server.requests)
    other = Mirrored(stage.mirror, stage.api, CLUSTER, "contract")
    stage.executor.files, ours = other, stage.executor.files
    lines = list(stage.executor.logs(stage.name))
    assert lines[0].startswith("(as of ") and "ago" in lines[0] and lines[1:] == ["a line"]
    assert stage.server.requests[before:] == []
    stage.executor.files = ours
    assert stage.run() == "ended" and readers(stage.server) == 1
    assert not any("(as of" in line for line in stage.executor.logs(stage.name))


def test_two_programs_at_a_time_have_readers_of_their_own(stage: Stage):
    assert Mirrored(stage.mirror, stage.api, CLUSTER, "contract", purpose="collect").reader.name != READER
