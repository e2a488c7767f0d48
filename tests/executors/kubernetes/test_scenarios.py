"""What a cluster can do to an attempt, and what becomes of it: one row a scenario, one defined outcome each.

Real HTTP, a virtual clock, no processes: a worker makes a step an hour, twelve to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bench import CLUSTER, api_of

from gridsweep.carbon.traces import HOUR
from gridsweep.errors import EXECUTOR, ExecutorError
from gridsweep.executors.kubernetes.api import Api, Forbidden, Unreachable
from gridsweep.executors.kubernetes.executor import Kubernetes
from gridsweep.executors.kubernetes.manifests.names import STORE, store_of
from gridsweep.executors.kubernetes.volume import Mirrored, Mounted
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import Ended, Event, Held, Lost, Paused, Pausing, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.stints import Member, Stint
from gridsweep.testing.executor_contract import sweep_of
from gridsweep.testing.kubernetes.operator import Cluster
from gridsweep.testing.kubernetes.server import ApiServer
from gridsweep.testing.kubernetes.store import SERVED
from gridsweep.testing.kubernetes.virtual import VirtualKubelet

BEGIN = datetime(2024, 6, 10, tzinfo=UTC)
STEPS = 12


class Stage:
    """One experiment on a cluster whose time stands still until it is told to pass."""

    def __init__(
        self, server: ApiServer, tmp: Path, cluster: KubernetesCluster = CLUSTER, *, mirror: Path | None = None
    ):
        self.server, self.time, self.choice, self.mirror = server, BEGIN, cluster, mirror
        self.kubelet = VirtualKubelet(tmp, lambda: self.time, HOUR)
        self.cluster = Cluster(server, self.kubelet)
        self.cluster.clock = self.seconds
        self.files = Mounted(Path(store_of("contract").replace(STORE, str(tmp), 1)))
        self.journal: list[Event] = [Submitted(BEGIN, sweep_of(1, steps=STEPS))]
        self.state = State(self.journal)
        self.name = ""
        self.apis: list[Api] = []
        self.begin_anew()

    def seconds(self) -> float:
        return (self.time - BEGIN) / timedelta(seconds=1)

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def rest(self, seconds: float) -> None:
        self.sleep(seconds)
        self.cluster.tick()

    def begin_anew(self) -> None:
        """Another loop takes over: nothing is left but the journal and the cluster."""
        self.api = api_of(self.server, patience=20.0, clock=self.seconds, sleep=self.sleep)
        self.apis.append(self.api)
        if self.mirror is not None:
            self.files = Mirrored(self.mirror, self.api, self.choice, "contract", clock=self.seconds)
        self.executor = Kubernetes(
            self.choice, self.api, self.files, settle=5.0, relist=1.0, clock=self.seconds, sleep=self.rest, watch=False
        )
        self.state = State(self.journal)

    def close(self) -> None:
        for work in self.cluster._works.values():
            work.kill()
        for api in self.apis:
            api.close()

    def tell(self, *events: Event) -> None:
        for event in events:
            self.journal.append(event)
            self.state.apply(event)

    def request(self) -> None:
        stint = Stint((Member("e00", self.state.standings["e00"].step, STEPS),))
        self.name = f"{stint.id}/{self.state.tries.get(stint.id, 0) + 1}"
        self.tell(Requested(self.time, self.name, stint, "d0", "a test"))
        self.executor.act(self.state)

    def turn(self, hours: float = 0.01) -> list[Event]:
        """Let time pass, the cluster move and the loop look and act once; what was new."""
        self.time += timedelta(hours=hours)
        for _ in range(3):
            self.cluster.tick()
        events = list(self.executor.observe(self.state, self.time))
        self.tell(*events)
        self.executor.act(self.state)
        return events

    def run(self, turns: int = 40, hours: float = 1.0) -> str:
        """Until the attempt is closed, or for so many turns; how it ended."""
        for _ in range(turns):
            if not self.state.active:
                break
            self.turn(hours)
        self.cluster.tick()
        return self.end

    @property
    def end(self) -> str:
        return self.state.attempts[self.name].end

    @property
    def held(self) -> str:
        return self.state.attempts[self.name].held

    def job(self) -> dict:
        (job,) = self.server.all("rayjobs")
        return job

    def status(self, **status: str) -> None:
        self.server.change("rayjobs", self.job()["metadata"]["name"], {"status": status})

    def under_way(self) -> None:
        """Requested, running, three steps done."""
        self.request()
        for _ in range(4):
            self.turn(1.0)
        assert self.state.attempts[self.name].running_at

    def kinds(self) -> list[str]:
        return [e.kind for e in self.journal if isinstance(e, Requested | Running | Paused | Ended | Lost)]


@pytest.fixture
def stage(server: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    fresh(server)
    stage = Stage(server, tmp_path)
    yield stage
    stage.close()


def fresh(server: ApiServer) -> None:
    """Make a server as new, for another test."""
    server.objects.clear(), server.requests.clear(), server.faults.clear(), server.forbidden.clear()
    server.kinds, server.rights, server.job_quota, server.policy = set(SERVED), None, None, ""


def test_undisturbed(stage: Stage):
    stage.request()
    assert stage.run() == "ended"
    assert stage.kinds() == ["Requested", "Running", "Ended"]
    assert stage.state.standings["e00"].status == "done"
    assert stage.server.all("rayjobs") == []  # deleted once its results were journaled
    assert len(stage.kubelet.started) == 1


# -- what holds an attempt back is told, and is no loss


def waiting(reason: str, message: str) -> Callable[[Stage], None]:
    def do(stage: Stage) -> None:
        stage.cluster.hold = "x"
        stage.cluster.tick()
        container = {"name": "ray-head", "state": {"waiting": {"reason": reason, "message": message}}}
        pod = stage.server.all("pods")[0]["metadata"]["name"]
        stage.server.change("pods", pod, {"status": {"conditions": None, "containerStatuses": [container]}})
        stage.cluster.tick = lambda: None  # the kubelet's word stands

    return do


def unschedulable(message: str) -> Callable[[Stage], None]:
    return lambda stage: setattr(stage.cluster, "hold", message)


def as_stage(stage_: str, message: str = "") -> Callable[[Stage], None]:
    def do(stage: Stage) -> None:
        stage.status(jobDeploymentStatus=stage_, message=message)
        stage.cluster.tick = lambda: None

    return do


def labelled_for_kueue(stage: Stage) -> None:
    name = stage.job()["metadata"]["name"]
    labels = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}, "spec": {"suspend": True}}
    stage.server.change("rayjobs", name, labels)


def suspended(stage: Stage) -> None:
    stage.server.change("rayjobs", stage.job()["metadata"]["name"], {"spec": {"suspend": True}})


HELD = {
    "no GPU is free": (unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "Insufficient"),
    "a taint": (unschedulable("0/3 nodes are available: 3 node(s) had untolerated taint."), "taint"),
    "the container is being made": (waiting("ContainerCreating", ""), "being made"),
    "suspended by hand": (suspended, "Kubernetes: its RayJob is suspended"),
    "suspended by Kueue": (labelled_for_kueue, "Kueue: its RayJob is suspended"),
    "suspending": (as_stage("Suspending"), "suspended"),
    "retrying": (as_stage("Retrying"), "KubeRay: its RayJob is Retrying"),
    "waiting": (as_stage("Waiting"), "KubeRay: its RayJob is Waiting"),
    "a state of the future": (as_stage("Pondering", "deep thought"), "KubeRay: deep thought"),
}


@pytest.mark.parametrize("scenario", HELD)
def test_held(stage: Stage, scenario: str):
    do, said = HELD[scenario]
    stage.request()
    do(stage)
    stage.turn(), stage.turn(1.0), stage.turn(1.0)
    assert said in stage.held and stage.end == ""
    assert sum(isinstance(e, Held) for e in stage.journal) == 1  # told when it changes, not at every look
    assert len(stage.server.all("rayjobs")) == 1 and stage.kubelet.started == []


@pytest.mark.parametrize("how", ["scheduler", "suspend"])
def test_what_was_held_goes_on_when_it_is_let_go(stage: Stage, how: str):
    stage.request()
    unschedulable("no")(stage) if how == "scheduler" else suspended(stage)
    stage.turn(), stage.turn(1.0)
    assert stage.held
    stage.cluster.hold = ""
    stage.server.change("rayjobs", stage.job()["metadata"]["name"], {"spec": {"suspend": False}})
    assert stage.run() == "ended"
    assert len(stage.kubelet.started) == 1


def test_held_by_compute_gardener_and_its_figures_read_back(server, tmp_path):
    from gridsweep.accounting.compute_gardener import from_facts

    server.objects.clear()
    stage = Stage(server, tmp_path, KubernetesCluster(gate="compute-gardener"))
    stage.cluster.intensity = 1180.0
    stage.request()
    stage.turn()
    assert stage.held == "Compute Gardener: Current carbon intensity (1180.00) exceeds threshold (1000.00)"
    stage.cluster.intensity = 110.0
    assert stage.run() == "ended"
    read = from_facts(stage.state.facts)["e00"]
    assert (read.initial_intensity, read.bind_intensity) == (1180.0, 110.0)
    assert read.delayed_at and read.bound_at and read.delayed_at <= read.bound_at
    stage.close()


# -- what ends an attempt without a result: Lost, with the last checkpoint; the next one goes on


def checkpointed(stage: Stage, step: int = 2) -> None:
    folder = AttemptFolder(stage.files.store / "stints" / stage.name)
    with folder.saving("e00", step) as draft:
        (draft / "step.txt").write_text(str(step))


def deleted_by_hand(stage: Stage) -> None:
    stage.server.remove("rayjobs", stage.job()["metadata"]["name"])
    for pod in stage.server.all("pods"):
        stage.server.remove("pods", pod["metadata"]["name"])


def failed(reason: str, message: str = "boom", job: str = "FAILED") -> Callable[[Stage], None]:
    def do(stage: Stage) -> None:
        stage.status(jobDeploymentStatus="Failed", jobStatus=job, reason=reason, message=message)

    return do


def complete_without_result(stage: Stage) -> None:
    stage.status(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")


def pod_deleted(stage: Stage) -> None:
    for pod in stage.server.all("pods"):
        stage.server.remove("pods", pod["metadata"]["name"])


def suspended_at_work(stage: Stage) -> None:
    pod_deleted(stage)
    stage.status(jobDeploymentStatus="Suspended")
    stage.cluster.tick = lambda: None


LOST = {
    "deleted by hand": (deleted_by_hand, "deleted by another client"),
    "evicted": (lambda s: s.cluster.evict(s.name), "its pod was evicted: The node was low on resource: memory."),
    "killed": (lambda s: s.cluster.kill(s.name), "AppFailed"),
    "the pod deleted under it": (pod_deleted, "head pod went away"),
    "failed": (failed("AppFailed"), "AppFailed): boom"),
    "stopped in Ray": (failed("AppFailed", job="STOPPED"), "AppFailed"),
    "submission failed": (failed("SubmissionFailed"), "SubmissionFailed"),
    "validation failed": (
        lambda s: s.status(jobDeploymentStatus="ValidationFailed", jobStatus="FAILED", message="bad spec"),
        "KubeRay refuses the RayJob: bad spec",
    ),
    "no worker in the image": (failed("AppFailed", "x\nModuleNotFoundError: No module named 'gridsweep'"), "no worker"),
    "complete, and no result": (complete_without_result, "there is no result"),
    "suspended while it ran": (suspended_at_work, "suspended while it ran"),
}


@pytest.mark.parametrize("scenario", LOST)
def test_lost_with_its_checkpoint_and_the_rest_goes_on(stage: Stage, scenario: str):
    do, said = LOST[scenario]
    stage.under_way()
    checkpointed(stage)
    tick = stage.cluster.tick
    do(stage)
    stage.run(5, hours=0.01)
    assert stage.end == "lost" and said in stage.state.attempts[stage.name].reason
    assert stage.state.standings["e00"].step == 2
    stage.cluster.tick = tick
    stage.request()
    assert stage.run() == "ended"
    assert stage.kinds().count("Requested") == 2 == len(stage.kubelet.started)
    assert stage.server.all("rayjobs") == []


@pytest.mark.parametrize("vanish", [False, True])
def test_a_time_to_live_that_runs_out_before_we_look_loses_no_result(stage: Stage, vanish: bool):
    stage.under_way()
    stage.cluster.ttl, stage.cluster.vanish = 0.0, vanish
    stage.time += 20 * HOUR
    for _ in range(6):
        stage.time += HOUR / 60
        stage.cluster.tick()
    assert stage.server.all("pods") == [] and bool(stage.server.all("rayjobs")) is not vanish
    stage.turn()
    assert stage.end == "ended"


def test_evicted_before_its_worker_began_another_pod_takes_its_place(stage: Stage):
    stage.request()
    stage.cluster.hold = "no"
    stage.turn()
    name = stage.server.all("pods")[0]["metadata"]["name"]
    stage.server.change("pods", name, {"status": {"phase": "Failed", "reason": "Evicted"}})
    stage.turn()
    assert stage.end == ""
    stage.server.remove("pods", name)
    stage.cluster.hold = ""
    assert stage.run() == "ended"


def test_a_deadline_of_kuberay_gives_the_worker_time_for_its_result(stage: Stage):
    stage.under_way()
    stage.status(jobDeploymentStatus="Failed", jobStatus="RUNNING", reason="DeadlineExceeded", message="too long")
    assert stage.run(5, hours=0.01) == "paused"  # deleted, so that the pod's preStop asked the worker to save
    assert 3 <= stage.state.standings["e00"].step < STEPS


def test_deleted_by_hand_with_time_it_pauses(stage: Stage):
    stage.under_way()
    stage.server.mark_deleted("rayjobs", stage.job()["metadata"]["name"])
    assert stage.run(5, hours=0.01) == "paused"


def test_a_pod_that_does_not_leave_is_not_taken_for_gone(stage: Stage):
    stage.under_way()
    work = next(iter(stage.cluster._works.values()))
    work.stop = lambda: False
    stage.cluster.grace = 1e9
    stage.server.mark_deleted("rayjobs", stage.job()["metadata"]["name"])
    stage.run(3, hours=0.01)
    assert stage.end == "" and "being stopped" in stage.held
    assert stage.server.count("create", "rayjobs") == 1


# -- pausing


def test_paused_while_it_runs_and_gone_on(stage: Stage):
    stage.under_way()
    stage.tell(Pausing(stage.time, stage.name, "enough"))
    stage.executor.act(stage.state)
    assert stage.run(5, hours=0.01) == "paused"
    kept = stage.state.standings["e00"].step
    stage.request()
    assert stage.run() == "ended"
    assert stage.state.attempts[stage.name].stint.members[0].from_step == kept


@pytest.mark.parametrize("made", [True, False])
def test_paused_before_it_began_is_paused_and_not_lost(stage: Stage, made: bool):
    stage.cluster.hold = "no"
    if made:
        stage.request()
        stage.turn()
    else:
        stage.executor.act = lambda state: None
        stage.request()
        del stage.executor.act
    stage.tell(Pausing(stage.time, stage.name, "enough"))
    stage.executor.act(stage.state)
    assert stage.run(5, hours=0.01) == "paused"
    assert stage.state.attempts[stage.name].reason == "enough" and stage.state.standings["e00"].status == "waiting"
    assert stage.state.standings["e00"].fruitless == 0
    assert stage.server.all("rayjobs") == [] == stage.kubelet.started


# -- requests that fail in passing change nothing

PASSING = {
    f"{how} {code} to {verb} {plural}".replace(" 0 ", " "): dict(verb=verb, plural=plural, how=how, code=code, **more)
    for verb, plural in (("create", "rayjobs"), ("list", "rayjobs"), ("list", "pods"), ("delete", "rayjobs"))
    for how, code, more in (
        ("status", 429, {"headers": {"Retry-After": "3"}}),
        ("status", 500, {}),
        ("status", 503, {"times": 3}),
        ("drop", 0, {}),
        ("late", 0, {}),
        ("truncate", 0, {}),
        ("garbage", 0, {}),
    )
}


@pytest.mark.parametrize("scenario", PASSING)
def test_what_fails_in_passing(stage: Stage, scenario: str):
    fault = PASSING[scenario]
    stage.server.fail(**fault)
    stage.request()
    assert stage.run() == "ended"
    assert stage.kinds() == ["Requested", "Running", "Ended"]
    assert stage.server.faults[0].times == 0 and len(stage.kubelet.started) == 1
    assert stage.server.all("rayjobs") == []


def test_throttled_for_longer_than_our_patience_nothing_is_lost(stage: Stage):
    stage.under_way()
    stage.server.fail(verb="list", code=429, headers={"Retry-After": "60"}, times=20)
    stage.turn()
    assert "has not answered since" in stage.held and stage.end == ""
    stage.server.faults.clear()
    stage.turn()
    assert not stage.held.strip(": ")
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


# -- what will not pass is said, and costs nothing


@pytest.mark.parametrize(
    ("verb", "plural"), [("list", "rayjobs"), ("create", "rayjobs"), ("delete", "rayjobs"), ("list", "pods")]
)
def test_a_right_that_is_missing_is_named(stage: Stage, verb: str, plural: str):
    stage.server.forbid(verb, plural)
    with pytest.raises(Forbidden) as caught:
        stage.request()
        stage.run()
    kind = "rayjobs.ray.io" if plural == "rayjobs" else plural
    assert f"not allowed to {verb} {kind}" in str(caught.value) and caught.value.exit_code == EXECUTOR
    stage.server.forbidden.clear()
    stage.begin_anew()
    stage.executor.act(stage.state)
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


def test_without_kuberay(stage: Stage):
    stage.server.kinds.remove("rayjobs")
    with pytest.raises(ExecutorError, match="install the KubeRay operator"):
        stage.request()


def test_refused_for_good(stage: Stage):
    stage.server.fail(verb="create", plural="rayjobs", code=422)
    with pytest.raises(ExecutorError, match=r"refused to create rayjobs.ray.io e00-.* \(422\)"):
        stage.request()


def test_our_login_is_over(stage: Stage):
    stage.under_way()
    stage.server.fail(code=401, times=9)
    with pytest.raises(Forbidden, match="does not accept our credentials"):
        stage.turn()
    stage.server.faults.clear()
    stage.begin_anew()
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


def somebody_elses(stage: Stage, **changes) -> None:
    """A RayJob under the name that ours will have."""
    other = Stage(stage.server, Path("/nowhere"))
    if changes:
        other.journal[0] = Submitted(BEGIN - HOUR, other.state.sweep)
        other.state = State(other.journal)
    other.request()
    if not changes:
        name = other.job()["metadata"]["name"]
        stage.server.change("rayjobs", name, {"metadata": {"annotations": None}})
    other.close()


@pytest.mark.parametrize("changes", [{}, {"submitted": "earlier"}])
def test_a_name_that_is_taken(stage: Stage, changes: dict):
    somebody_elses(stage, **changes)
    with pytest.raises(ExecutorError, match="the name is taken") as caught:
        stage.request()
    assert caught.value.exit_code == EXECUTOR
    assert len(stage.server.all("rayjobs")) == 1 and stage.server.count("delete", "rayjobs") == 0


def test_the_volume_holds_an_earlier_run(stage: Stage):
    stage.under_way()
    stage.run()
    stage.server.objects.clear()
    stage.time += 100 * HOUR
    again = Submitted(stage.time, stage.state.sweep)
    stage.journal[:] = [again]
    stage.begin_anew()
    stage.request()
    with pytest.raises(ExecutorError, match="of an earlier run"):
        stage.run(3)


# -- loops that die, and two of them


def test_a_loop_that_died_after_creating_adopts(stage: Stage):
    stage.server.fail(verb="create", plural="rayjobs", how="late", times=99)
    stage.request()  # made, and never heard of
    stage.server.faults.clear()
    stage.begin_anew()
    stage.executor.act(stage.state)
    assert stage.run() == "ended"
    assert len(stage.kubelet.started) == 1


def test_it_ended_while_nobody_looked(stage: Stage):
    stage.under_way()
    stage.time += 48 * HOUR
    for _ in range(5):
        stage.cluster.tick()
    stage.begin_anew()
    stage.turn()
    assert stage.end == "ended"
    assert stage.state.attempts[stage.name].ended_at < BEGIN + 14 * HOUR  # when it did, not when it was seen


def test_the_cluster_was_made_anew_while_nobody_looked(stage: Stage):
    stage.under_way()
    checkpointed(stage)
    stage.server.objects.clear()
    stage.begin_anew()
    stage.run(3, hours=0.01)
    assert stage.end == "lost" and stage.state.standings["e00"].step == 2


def test_leftovers_of_what_ended_are_deleted_and_what_is_not_ours_stays(stage: Stage):
    stage.under_way()
    job = stage.job()
    stage.server.forbid("delete", "rayjobs")
    with pytest.raises(Forbidden):
        stage.run()
    stage.server.forbidden.clear()
    foreign = {**job, "metadata": {**job["metadata"], "name": "foreign", "annotations": {}}}
    stage.server.put("rayjobs", foreign)
    stage.begin_anew()
    stage.executor.act(stage.state)
    stage.cluster.tick()
    assert [job["metadata"]["name"] for job in stage.server.all("rayjobs")] == ["foreign"]


def test_devices_described_anew_on_the_way_are_no_other_work(stage: Stage):
    from dataclasses import replace

    from gridsweep.state.events import Resumed
    from gridsweep.sweep.stints import Device

    stage.under_way()
    sweep = replace(stage.state.sweep, devices=(Device("d0", power_w=350.0), Device("d1")))
    stage.tell(Resumed(stage.time, 2, sweep, ("devices",)))
    stage.begin_anew()
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


def test_constants_that_its_worker_has_told_are_no_other_work(stage: Stage):
    from gridsweep.state.events import Fingerprinted

    stage.under_way()
    stage.tell(Fingerprinted(stage.time, {"model": "a revision"}, stage.name))
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


# -- the API server is away


def test_away_for_a_day_nothing_is_lost_and_nothing_started_again(stage: Stage):
    stage.journal[0] = Submitted(BEGIN, sweep_of(1, steps=40))
    stage.state = State(stage.journal)
    stint = Stint((Member("e00", 0, 40),))
    stage.name = f"{stint.id}/1"
    stage.tell(Requested(stage.time, stage.name, stint, "d0", "a test"))
    stage.executor.act(stage.state)
    stage.turn(1.0), stage.turn(1.0)
    with stage.server.down():
        for _ in range(24 * 4):
            stage.time += timedelta(minutes=15)
            stage.tell(*stage.executor.observe(stage.state, stage.time))
            stage.executor.act(stage.state)
            stage.cluster.tick()
    assert stage.held.startswith("Kubernetes: the API server has not answered since 2024-06-10 02:")
    assert sum(isinstance(e, Held) for e in stage.journal) <= 3
    assert stage.executor.alive(stage.state)
    assert stage.run(60) == "ended"
    assert stage.kinds() == ["Requested", "Running", "Ended"]
    assert len(stage.kubelet.started) == 1 == stage.server.count("create", "rayjobs")


def test_away_at_the_very_end_it_says_what_is_left_to_do(stage: Stage):
    stage.request()
    assert stage.run() == "ended"
    stage.begin_anew()
    with stage.server.down(), pytest.raises(Unreachable, match="nothing is lost"):
        stage.executor.act(stage.state)
    stage.executor.act(stage.state)
    stage.cluster.tick()
    assert stage.server.all("rayjobs") == []
