"""What the schemas let through is found here."""

from copy import deepcopy

import pytest

from gridsweep.executors.kubernetes.manifests.checks import problems
from gridsweep.executors.kubernetes.manifests.rayjob import MAX_DELAY, THRESHOLD


def test_what_we_render_has_no_problems(rendered):
    for manifests in rendered.values():
        assert problems(manifests) == []


def head(job):
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]


def container(job):
    return head(job)["spec"]["containers"][0]


SPOILT = {
    "activeDeadlineSeconds": lambda job: job["spec"].update(activeDeadlineSeconds=0),
    "47": lambda job: job["metadata"].update(name="a" * 48),
    "DNS-1035": lambda job: job["metadata"].update(name="1a"),
    "no containers": lambda job: head(job)["spec"].update(containers=[]),
    "suspend needs": lambda job: job["spec"].update(shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0),
    "ttlSecondsAfterFinished": lambda job: job["spec"].update(suspend=False, shutdownAfterJobFinishes=False),
    "submissionMode": lambda job: job["spec"].update(submissionMode="HttpMode"),
    "the operator": lambda job: head(job)["spec"]["tolerations"][0].update(operator="Exist"),
    "no volume": lambda job: container(job)["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
    "variable": lambda job: container(job)["env"].append({"name": "HOME", "value": "/"}),
    "mountPath": lambda job: container(job)["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"}),
    "Go duration": lambda job: head(job)["metadata"]["annotations"].update({MAX_DELAY: "4d"}),
    "not a number": lambda job: head(job)["metadata"]["annotations"].update({THRESHOLD: "low"}),
    "label": lambda job: job["metadata"]["labels"].update({"gridsweep.io/tier": "tier 1"}),
    "annotation": lambda job: job["metadata"]["annotations"].update({"gridsweep.io/r": 16}),
    "backoffLimit": lambda job: job["spec"].update(backoffLimit=-1),
    "clusterSelector": lambda job: job["spec"].update(suspend=True, clusterSelector={"ray.io/cluster": "x"}),
    "deletionRules": lambda job: job["spec"].update(deletionStrategy={"deletionRules": [{"policy": "DeleteSelf"}]}),
    "entrypoint": lambda job: job["spec"].update(entrypoint=""),
    "image": lambda job: container(job).update(image=""),
}


@pytest.mark.parametrize("word", sorted(SPOILT))
def test_what_operators_refuse_or_hang_on_is_found(rendered, word):
    job = deepcopy(next(m for m in rendered["bare"] if m["kind"] == "RayJob"))
    SPOILT[word](job)
    found = problems([job])
    assert len(found) == 1
    assert word in found[0]


def test_a_name_that_is_there_twice_is_found(rendered):
    job = next(m for m in rendered["bare"] if m["kind"] == "RayJob")
    assert problems([job, job]) == [f"RayJob/{job['metadata']['name']}: is there 2 times"]
