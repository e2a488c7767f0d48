"""Pods and RayJobs that a cluster refuses: what is told, what waits, what ends, each within a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import CLUSTER
from test_scenarios import BEGIN, STEPS, Stage, fresh, unschedulable, waiting

from gridsweep.errors import EXECUTOR, ExecutorError
from gridsweep.executors.kubernetes.api import Denied, Forbidden
from gridsweep.executors.kubernetes.api.client import _admission
from gridsweep.executors.kubernetes.conditions import condition
from gridsweep.executors.kubernetes.listing import UNTOLD
from gridsweep.render.progress import told
from gridsweep.state.events import Held, Lost, Paused, Pausing, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.stints import Member, Stint
from gridsweep.testing.executor_contract import sweep_of
from gridsweep.testing.kubernetes.operator import OUT_OF_REACH, UNCOVERED
from gridsweep.testing.kubernetes.server import ApiServer

MINUTE = 1 / 60
LIMIT_RANGE = "maximum memory usage per Container is 8Gi, but limit is 24Gi"
NO_CLASS = 'pod rejected: RuntimeClass "absent" not found'
DELETED = 'persistentvolumeclaim "gridsweep-store" is being deleted'


@pytest.fixture
def stage(server: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    fresh(server)
    stage = Stage(server, tmp_path)
    yield stage
    stage.close()


def set_(**what: object) -> Callable[[Stage], None]:
    def do(stage: Stage) -> None:
        for name, value in what.items():
            setattr(stage.cluster, name, value)

    return do


def warned(stage: Stage) -> None:
    """The claim's own events say why; the scheduler only names the claim."""
    about = {"kind": "PersistentVolumeClaim", "name": CLUSTER.volume}
    event = {"metadata": {"name": "a"}, "involvedObject": about, "type": "Warning", "lastTimestamp": "1"}
    stage.server.put("events", {**event, "reason": "ProvisioningFailed", "message": "no class"})
    stage.cluster.hold = OUT_OF_REACH


REFUSED = {
    "a LimitRange": (set_(refusal=LIMIT_RANGE), LIMIT_RANGE, "the namespace's LimitRange"),
    "no RuntimeClass": (set_(refusal=NO_CLASS), NO_CLASS, "executor.kubernetes.runtime_class"),
    "no image": (set_(no_image={CLUSTER.image}), f"the image {CLUSTER.image} cannot be pulled", "kubernetes.image"),
    "a claim being deleted": (unschedulable(DELETED), DELETED, "look at the claim"),
    "a claim never provisioned": (warned, f"{OUT_OF_REACH} (ProvisioningFailed: no class)", "look at the claim"),
    "a bad image name": (waiting("InvalidImageName", "couldn't parse"), "InvalidImageName", "kubernetes.image"),
    "a secret is missing": (waiting("CreateContainerConfigError", 'secret "hf" not found'), 'secret "hf"', ""),
}


@pytest.mark.parametrize("scenario", REFUSED)
def test_what_time_does_not_bring_is_told_and_ends_the_sweep_within_a_quarter_of_an_hour(stage: Stage, scenario: str):
    do, said, remedy = REFUSED[scenario]
    if scenario in ("a bad image name", "a secret is missing"):
        stage.request()
        tick = stage.cluster.tick
        do(stage)
    else:
        do(stage)
        stage.request()
        tick = stage.cluster.tick
    stage.turn(MINUTE), stage.turn(MINUTE)
    assert said in stage.held and "not there" not in stage.held and stage.end == ""
    stage.run(15, hours=MINUTE)
    assert stage.end == "lost"
    assert said in stage.state.constants.refusal and remedy in stage.state.constants.refusal
    assert stage.state.standings["e00"].fruitless == 0  # no retry is spent
    assert sum(isinstance(e, Held) for e in stage.journal) == 1  # the kubelet's words by turns are one reason
    tick()
    assert stage.server.all("rayjobs") == [] and stage.kubelet.started == []


def test_while_another_attempt_runs_one_that_is_refused_stays_held(stage: Stage):
    stage.journal[0] = Submitted(BEGIN, sweep_of(2, steps=STEPS))
    stage.state = State(stage.journal)
    stage.under_way()
    stage.cluster.refusal = NO_CLASS
    first, stint = stage.name, Stint((Member("e01", 0, STEPS),))
    stage.name = f"{stint.id}/1"
    stage.tell(Requested(stage.time, stage.name, stint, "d1", "a test"))
    for _ in range(30):
        stage.turn(MINUTE)
    assert stage.end == "" and NO_CLASS in stage.held
    stage.run(12)
    assert stage.state.attempts[first].end == "ended" and stage.end == "lost" and stage.state.constants.refusal


def test_a_used_up_quota_of_gpus_waits_with_its_words_and_goes_on_by_itself(stage: Stage):
    stage.cluster.gpu_quota = 0
    stage.request()
    for _ in range(30):
        stage.turn(1.0)
    assert stage.held == (
        "Kubernetes: its pod is refused: exceeded quota: team, requested: requests.nvidia.com/gpu=1, "
        "used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=0"
    )
    assert sum(isinstance(e, Held) for e in stage.journal) == 1
    stage.cluster.gpu_quota = 1
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


@pytest.mark.parametrize("again", [False, True])
def test_a_used_up_quota_of_rayjobs_waits_and_is_tried_again(stage: Stage, again: bool):
    stage.server.job_quota = 0
    stage.request()
    for _ in range(5):
        stage.turn(MINUTE)
    assert "its RayJob is not created yet: exceeded quota: jobs, requested: count/rayjobs.ray.io=1" in stage.held
    assert stage.end == "" and stage.server.count("create", "rayjobs") <= 6
    if again:  # another loop reads from the journal that this RayJob was never made
        stage.begin_anew()
    stage.server.job_quota = 1
    assert stage.run() == "ended" and len(stage.kubelet.started) == 1


def test_paused_while_a_quota_refuses_its_rayjob_it_ends_without_one(stage: Stage):
    stage.server.job_quota = 0
    stage.request()
    stage.turn(MINUTE)
    stage.tell(Pausing(stage.time, stage.name, "stop"))
    assert stage.run(5, hours=MINUTE) == "paused"


def test_a_policy_that_denies_is_told_with_its_words(stage: Stage):
    stage.server.policy = "label cost-center is required"
    with pytest.raises(
        Denied, match="ValidatingAdmissionPolicy 'P' with binding 'B' denied request: label cost"
    ) as caught:
        stage.request()
    assert caught.value.exit_code == EXECUTOR and "Role" not in str(caught.value)


def test_a_webhook_that_denies_is_told_as_one_and_a_missing_right_is_not():
    denied = _admission('admission webhook "v.kueue.io" denied the request: no queue', "rayjobs a")
    assert isinstance(denied, Denied) and 'webhook "v.kueue.io" denied the request: no queue' in str(denied)
    said = 'rayjobs.ray.io is forbidden: User "loop" cannot create resource "rayjobs" in API group "ray.io"'
    assert _admission(said, "rayjobs a") is None


@pytest.fixture
def queued(server: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    fresh(server)
    stage = Stage(server, tmp_path, KubernetesCluster(gate="kueue", queue="gpus"))
    yield stage
    stage.close()


def test_what_kueue_says_is_told_and_a_resource_that_no_queue_covers_ends_it(queued: Stage):
    queued.cluster.queue_says = UNCOVERED
    queued.request()
    queued.turn(MINUTE), queued.turn(MINUTE)
    assert queued.held == f"Kueue: its RayJob is suspended: {UNCOVERED}"
    assert queued.run(15, hours=MINUTE) == "lost" and "ask for a ClusterQueue" in queued.state.constants.refusal


def test_without_the_right_to_read_it_kueues_reason_is_missing_and_nothing_else(queued: Stage):
    queued.cluster.queue_says = UNCOVERED
    queued.server.forbid("list", "workloads")
    queued.request()
    queued.turn(MINUTE), queued.turn(1.0)
    assert queued.held == f"Kueue: its RayJob is suspended: {UNTOLD}"
    queued.cluster.queue_says = ""
    assert queued.run() == "ended"


def test_a_pod_that_never_comes_is_not_told_as_on_its_way_for_a_day(stage: Stage):
    stage.request()
    stage.status(jobDeploymentStatus="Initializing")
    stage.cluster.tick = lambda: None
    stage.turn(MINUTE)
    assert stage.held == "KubeRay: its pod is not there yet"
    stage.turn(0.1), stage.turn(0.1)
    assert "not there after 10 minutes" in stage.held and "look at its operator" in stage.held and stage.end == ""


def test_a_pod_that_waits_for_gpus_is_not_held_by_compute_gardener(server: ApiServer, tmp_path: Path):
    fresh(server)
    stage = Stage(server, tmp_path, KubernetesCluster(gate="compute-gardener"))
    stage.cluster.intensity, stage.cluster.gpus = 10.0, 0
    stage.request()
    stage.turn(MINUTE)
    assert stage.held == "Kubernetes: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    stage.close()


@pytest.mark.parametrize("seen", [True, False])
def test_an_eviction_is_told_as_one_also_when_the_pod_is_gone(stage: Stage, seen: bool):
    stage.under_way()
    stage.cluster.evict(stage.name)
    if seen:
        stage.turn(0.001)
    else:  # KubeRay has replaced the pod; the kubelet's event is left
        about = {"kind": "Pod", "name": stage.server.all("pods")[0]["metadata"]["name"]}
        event = {"metadata": {"name": "b"}, "involvedObject": about, "type": "Warning", "reason": "Evicted"}
        stage.server.put("events", {**event, "message": "The node was low on resource: memory."})
    for pod in stage.server.all("pods"):
        stage.server.remove("pods", pod["metadata"]["name"])
    stage.run(5, hours=0.01)
    assert stage.end == "lost"
    assert stage.state.attempts[stage.name].reason == "its pod was evicted: The node was low on resource: memory."


def test_a_hold_that_is_over_names_who_held_what(stage: Stage):
    stage.cluster.hold = "no"
    stage.request()
    stage.turn(MINUTE)
    stage.cluster.hold = ""
    stage.turn(MINUTE)
    stage.run()
    told_ = [told(stage.state, event) for event in stage.journal if isinstance(event, Held)]
    assert told_[0].endswith("Kubernetes holds e00: no") and told_[-1].endswith("Kubernetes released e00")
    assert told(stage.state, Held(BEGIN, stage.name, "", "")).endswith("the hold of e00 is over")  # of older versions


def test_held_and_paused_before_it_began_no_attempt_is_lost(stage: Stage):
    stage.cluster.hold = "no"
    stage.request()
    stage.turn(MINUTE)
    stage.tell(Pausing(stage.time, stage.name, "the grid is dirty"))
    assert stage.run(5, hours=MINUTE) == "paused"
    assert not any(isinstance(e, Lost) for e in stage.journal)
    (paused,) = [e for e in stage.journal if isinstance(e, Paused)]
    assert [(o.experiment, o.status, o.step) for o in paused.outcomes] == [("e00", "paused", 0)]


def test_missing_rights_stay_what_they_are(stage: Stage):
    stage.server.forbid("create", "rayjobs")
    with pytest.raises(Forbidden, match="ask for a Role"):
        stage.request()


def test_no_condition_of_a_raycluster_is_no_reason():
    job = {"metadata": {}, "spec": {}, "status": {"jobDeploymentStatus": "Initializing", "rayClusterStatus": None}}
    assert condition(job, [], started=False).stuck == "absent"
    with pytest.raises(ExecutorError):
        raise Denied("an example")
