"""The double: it answers what was recorded from the real programs, and fails a test that asks for anything else."""

from __future__ import annotations

import pytest
from bench import CLUSTER, api_of

from gridsweep.executors.kubernetes.api import CLAIMS, EVENTS, JOBS, PODS, Denied, QuotaExceeded, Resource, Unreachable
from gridsweep.testing.kubernetes.server import ApiServer

UNRECORDED = {
    "a kind": lambda api: api.list(Resource("batch", "jobs")),
    "a form of selector": lambda api: api.list(PODS, "a in (b,c)"),
    "a negative selector": lambda api: api.list(PODS, "a!=b"),
    "pods by a field": lambda api: api.list(PODS, fields="status.phase=Running"),
    "events by another field": lambda api: api.list(EVENTS, fields="source=kubelet"),
    "a part of an object": lambda api: api.get(PODS, "a/log"),
    "another method": lambda api: api._asked("PUT", JOBS.path(CLUSTER.namespace, "a"), "update", JOBS, "a"),
}


@pytest.mark.parametrize("scenario", UNRECORDED)
def test_what_was_never_recorded_fails_the_test(scenario: str):
    with pytest.raises(AssertionError, match="never recorded"), ApiServer() as server:
        api = api_of(server, patience=0.0)
        for plural in ("pods", "events"):
            server.put(plural, {"metadata": {"name": "a"}})
        with pytest.raises(Unreachable):
            UNRECORDED[scenario](api)
        api.close()


def test_its_refusals_are_the_recorded_words():
    with ApiServer() as server:
        api = api_of(server)
        server.job_quota = 0
        with pytest.raises(QuotaExceeded) as caught:
            api.create(JOBS, {"metadata": {"name": "a"}})
        counted = "count/rayjobs.ray.io"
        assert caught.value.said == (
            f"exceeded quota: jobs, requested: {counted}=1, used: {counted}=0, limited: {counted}=0"
        )
        server.policy = "no"
        with pytest.raises(Denied, match="ValidatingAdmissionPolicy 'P' with binding 'B' denied request: no"):
            api.create(JOBS, {"metadata": {"name": "a"}})
        server.grant([("", "pods", ("list",))])
        assert api.may("list", PODS) and not api.may("get", CLAIMS) and not api.may("create", JOBS)
        api.close()
