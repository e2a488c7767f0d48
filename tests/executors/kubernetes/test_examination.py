"""`doctor --kubernetes`: what a cluster lacks or would refuse, all at once, in the words of the programs."""

from __future__ import annotations

from typing import Any

import pytest

from gridsweep.executors.kubernetes.api import Conflict, Denied, Forbidden, NotFound, Resource
from gridsweep.executors.kubernetes.examination import Look, examined
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.spec import loads

SPEC = """
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
carbon: {provider: eia, zone: CISO}
env: {KEY: env:LICENCE}
executor: {kubernetes: {secret: mine, hugging_face_secret: hub, gate: %s, queue: gpus, ephemeral_storage: 9Gi}}
policy: immediate
"""


class Cluster:
    """An API server by its objects; what is in `forbidden` may not be read, what is in `refused` is refused."""

    def __init__(self, **objects: Any):
        self.objects = objects
        self.forbidden: set[str] = set()
        self.refused: dict[str, Exception] = {}
        self.tried: list[str] = []

    def may(self, verb: str, resource: Resource) -> bool:
        return f"{verb} {resource}" not in self.forbidden

    def _check(self, resource: Resource) -> None:
        if resource.plural in self.forbidden:
            raise Forbidden(f"may not read {resource}")

    def get(self, resource: Resource, name: str) -> Any:
        self._check(resource)
        if (found := self.objects.get(resource.plural, {}).get(name)) is None:
            raise NotFound(f"{resource} {name} not found")
        return found

    def list(self, resource: Resource, selector: str = "") -> tuple[list[Any], str]:
        self._check(resource)
        if resource.plural == "rayjobs" and "rayjobs" not in self.objects:
            raise NotFound("the server could not find the requested resource")
        return [*self.objects.get(resource.plural, {}).values()], "1"

    def try_create(self, resource: Resource, body: Any) -> Any:
        self.tried.append(body["kind"])
        if body["kind"] in self.refused:
            raise self.refused[body["kind"]]
        return body


def look(cluster: Cluster, gate: str = "none") -> dict[str, Look]:
    sweep = loads(SPEC % gate)
    made = bundle(sweep, cluster_of(sweep), spec="x")
    found = examined(cluster, cluster_of(sweep), made.manifests)  # type: ignore[arg-type]  # what it asks of an Api
    assert cluster.tried == [m["kind"] for m in made.manifests]
    return {f"{one.what}{'' if one.state == 'ok' else ' !'}": one for one in found}


def whole() -> Cluster:
    held = {"EIA_API_KEY": "", "LICENCE": ""}
    return Cluster(
        rayjobs={},
        persistentvolumeclaims={
            "gridsweep-store": {"status": {"phase": "Bound"}, "spec": {"resources": {"requests": {"storage": "99Gi"}}}}
        },
        runtimeclasses={"nvidia": {}},
        secrets={"mine": {"data": held}, "hub": {"data": {"HF_TOKEN": ""}}},
        resourcequotas={
            "team": {
                "metadata": {"name": "team"},
                "status": {"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": "4"}},
            }
        },
        localqueues={"gpus": {"spec": {"clusterQueue": "all"}}},
        clusterqueues={
            "all": {"spec": {"resourceGroups": [{"coveredResources": ["cpu", "memory", "nvidia.com/gpu"]}]}}
        },
    )


def test_a_cluster_with_everything_is_said_to_have_it():
    found = look(whole())
    assert [what for what in found if what.endswith("!")] == ["quota team !"]
    quota = found["quota team !"]
    assert (quota.seen, quota.state) == ("4 of 4 requests.nvidia.com/gpu are used", "note")
    assert found["claim gridsweep-store"].seen == "bound, 99Gi" and found["Secret mine"].seen == "has EIA_API_KEY"


def test_what_a_queue_does_not_cover_is_named_before_a_job_waits_for_ever():
    told = look(whole(), "kueue")["LocalQueue gpus !"]
    assert told.seen == "its ClusterQueue all does not cover ephemeral-storage" and "for ever" in told.advice


def test_all_that_is_missing_is_told_at_once():
    bare = Cluster()
    bare.forbidden = {"create pods", "get pods/proxy"}
    bare.refused = {
        "RayJob": Denied("ValidatingAdmissionPolicy 'P' with binding 'B' denied request: no GPUs on Mondays"),
        "NetworkPolicy": Conflict("is there already"),
    }
    found = look(bare, "suspend")
    assert found["RayJobs !"].advice.startswith("install the KubeRay operator")
    assert "may not create pods, get pods/proxy" in found["rights !"].seen
    assert (found["claim gridsweep-store !"].state, found["RuntimeClass nvidia !"].state) == ("note", "missing")
    assert found["Secret hub !"].advice.endswith("create secret generic hub --from-literal=HF_TOKEN=...")
    assert found["Secret mine !"].advice.endswith("create secret generic mine --from-literal=LICENCE=...")
    refused = found["dry run !"].seen
    assert "RayJob" in refused and "and 20 more" in refused and "denied request: no GPUs on Mondays" in refused
    assert found["dry run"].seen.startswith("2 of 23 objects")


@pytest.mark.parametrize("gate", ["none", "kueue"])
def test_what_may_not_be_read_is_unknown_and_not_missing(gate: str):
    shut = whole()
    shut.forbidden = {"persistentvolumeclaims", "runtimeclasses", "secrets", "resourcequotas", "localqueues"}
    found = look(shut, gate)
    assert not [one for one in found.values() if one.state == "missing"]
    assert "not looked at: this account may not read secrets" in found["Secret mine !"].seen
