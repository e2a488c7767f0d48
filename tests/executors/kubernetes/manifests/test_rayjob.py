"""A RayJob: the published set-up, corrected."""

import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.delivery import GRACE_SECONDS, STOP_WAIT_SECONDS, assignment_of
from gridsweep.executors.kubernetes.manifests.names import DIGEST, EXPERIMENT, SWEEP, TIER
from gridsweep.executors.kubernetes.manifests.rayjob import MAX_DELAY, QUEUE, THRESHOLD, rayjob
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment

TIERS = {"tier1": (8, "225", "24h", 24), "tier2": (4, "175", "48h", 48), "tier3": (9, "125", "96h", 96)}


def head(job):
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]


def jobs(manifests):
    return [manifest for manifest in manifests if manifest["kind"] == "RayJob"]


def variables(job):
    return {v["name"]: v.get("value") for v in head(job)["spec"]["containers"][0]["env"]}


@pytest.fixture(scope="module")
def gated(published):
    return jobs(bundle(published, cluster_of(published, "compute-gardener")).manifests)


def test_the_published_sweep_has_21_in_three_tiers_with_their_limits(gated):
    assert Counter(job["metadata"]["labels"][TIER] for job in gated) == {tier: n for tier, (n, *_) in TIERS.items()}
    assert len({job["metadata"]["name"] for job in gated}) == 21
    for job in gated:
        _, threshold, delay, hours = TIERS[job["metadata"]["labels"][TIER]]
        notes = head(job)["metadata"]["annotations"]
        assert (notes[THRESHOLD], notes[MAX_DELAY]) == (threshold, delay)
        assert head(job)["spec"]["schedulerName"] == "compute-gardener-scheduler"
        # The wait for the grid, then for one of two devices (11 rounds of 90 minutes), then the run.
        assert job["spec"]["activeDeadlineSeconds"] == (hours + 16.5 + 24) * 3600


def test_job_and_pod_say_which_sweep_experiment_and_tier_they_belong_to(gated, published):
    for job, experiment in zip(gated, published.experiments, strict=True):
        for labels in (job["metadata"]["labels"], head(job)["metadata"]["labels"]):
            assert (labels[SWEEP], labels[EXPERIMENT], labels[TIER]) == ("published", experiment.id, experiment.tier)
        for notes in (job["metadata"]["annotations"], head(job)["metadata"]["annotations"]):
            assert notes["gridsweep.io/r"] == str(experiment.params.r)
            assert float(notes["gridsweep.io/lr"]) == experiment.params.lr
            assert notes["gridsweep.io/tier-reason"] == experiment.reason


def test_it_is_one_pod_that_asks_for_the_gpu(gated):
    for job in gated:
        assert "workerGroupSpecs" not in job["spec"]["rayClusterSpec"]
        assert job["spec"]["submissionMode"] == "HTTPMode"
        assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-gpus"] == "1"
        (container,) = head(job)["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_nothing_lingers_and_nothing_is_tried_again_by_itself(gated):
    for job in gated:
        assert job["spec"]["shutdownAfterJobFinishes"]
        assert job["spec"]["ttlSecondsAfterFinished"] <= 60
        assert job["spec"]["backoffLimit"] == 0


def test_a_worker_has_time_for_its_checkpoint(gated):
    pod = head(gated[0])["spec"]
    assert pod["terminationGracePeriodSeconds"] == GRACE_SECONDS == 120
    assert STOP_WAIT_SECONDS < GRACE_SECONDS
    assert variables(gated[0])["RAY_JOB_STOP_WAIT_TIME_S"] == str(STOP_WAIT_SECONDS)  # KubeRay stops it through Ray
    assert "kill -TERM" in pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_the_assignment_in_it_is_the_whole_experiment(gated, published):
    for job, experiment in zip(gated, published.experiments, strict=True):
        text = variables(job)["GRIDSWEEP_ASSIGNMENT"].replace("$$(", "$(")
        told = codec.loads(Assignment, text)
        assert told == assignment_of(published, experiment.id)
        assert [(p.experiment, p.from_step, p.to_step) for p in told.members] == [(experiment.id, 0, 1500)]


@pytest.mark.parametrize("gate", ["none", "suspend", "kueue"])
def test_a_deadline_counts_no_wait_that_kuberay_does_not(published, gate):
    cluster = replace(cluster_of(published, gate), queue="gpus", run_deadline=timedelta(hours=3, milliseconds=1))
    job = rayjob(published, cluster, assignment_of(published, published.experiments[0].id))
    assert job["spec"]["activeDeadlineSeconds"] == 3 * 3600 + 1
    assert THRESHOLD not in head(job)["metadata"]["annotations"]
    assert "schedulerName" not in head(job)["spec"]


def test_suspend_is_ours_only_with_gate_suspend(published):
    work = assignment_of(published, published.experiments[0].id)
    cluster = replace(cluster_of(published, "compute-gardener"), queue="gpus")
    made = {g: rayjob(published, cluster, work, gate=g) for g in ("none", "suspend", "compute-gardener", "kueue")}
    assert {gate for gate, job in made.items() if "suspend" in job["spec"]} == {"suspend"}
    assert made["suspend"]["spec"]["suspend"] is True
    assert made["kueue"]["metadata"]["labels"][QUEUE] == "gpus"
    assert [gate for gate, job in made.items() if QUEUE in job["metadata"]["labels"]] == ["kueue"]


def test_kueue_needs_a_queue(published):
    with pytest.raises(SpecError, match=r"executor\.kubernetes\.queue"):
        bundle(published, cluster_of(published, "kueue"))


def test_equal_work_gives_equal_jobs_and_other_work_another_digest(published):
    cluster = cluster_of(published, "none")
    work = assignment_of(published, published.experiments[0].id)
    one, two = (rayjob(published, cluster, work) for _ in range(2))
    assert one == two
    other = rayjob(published, replace(cluster, image="other:1"), work)
    assert other["metadata"]["name"] == one["metadata"]["name"]
    assert other["metadata"]["annotations"][DIGEST] != one["metadata"]["annotations"][DIGEST]
    next_one = rayjob(published, cluster, replace(work, attempt=work.attempt.replace("/1", "/2")))
    assert next_one["metadata"]["name"] != one["metadata"]["name"]


def test_two_sweeps_in_one_namespace_share_neither_names_nor_folders(published):
    other = replace(published, name="other")
    one, two = (bundle(s, cluster_of(s, "compute-gardener")).manifests for s in (published, other))
    named = [{(m["kind"], m["metadata"]["name"]) for m in made} for made in (one, two)]
    assert named[0] & named[1] == {("PersistentVolumeClaim", "gridsweep-store")}  # the volume may be shared
    stores = [{variables(job)["GRIDSWEEP_STORE"] for job in jobs(made)} for made in (one, two)]
    assert stores == [{"/store/published"}, {"/store/other"}]


def test_a_pack_is_one_job(published):
    first, second = (assignment_of(published, e.id) for e in published.experiments[:2])
    pack = replace(first, attempt="s-0123456789ab/1", members=first.members + second.members)
    job = rayjob(published, cluster_of(published, "none"), pack)
    assert len(codec.loads(Assignment, variables(job)["GRIDSWEEP_ASSIGNMENT"]).members) == 2
    assert math.isfinite(job["spec"]["activeDeadlineSeconds"])
