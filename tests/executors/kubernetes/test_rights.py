"""The rules of a Role suffice for all the code does, each is needed, and those that are missing are named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import CLUSTER, KubernetesBench
from test_refusals import DELETED, MINUTE
from test_scenarios import Stage, fresh

from gridsweep.errors import ExecutorError
from gridsweep.executors.kubernetes.api import Forbidden
from gridsweep.executors.kubernetes.manifests.roles import OPTIONAL, RIGHTS, laptop_rules
from gridsweep.executors.kubernetes.preflight import check_cluster
from gridsweep.state.events import Ended, Pausing
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.testing.executor_contract import Story, stand_in, sweep_of
from gridsweep.testing.kubernetes.operator import UNCOVERED
from gridsweep.testing.kubernetes.server import ApiServer
from gridsweep.testing.kubernetes.store import KINDS


def staged(server: ApiServer, tmp: Path, *, outside: bool, cluster: KubernetesCluster = CLUSTER) -> Stage:
    fresh(server)
    server.put("persistentvolumeclaims", {"metadata": {"name": CLUSTER.volume}, "status": {"phase": "Bound"}})
    server.grant(laptop_rules() if outside else RIGHTS)
    return Stage(server, tmp / "volume", cluster, mirror=tmp / "mirror" if outside else None)


def asked(server: ApiServer) -> set[tuple[str, str, str]]:
    return {(KINDS[plural], plural, verb) for verb, plural, _ in server.requests}


@pytest.mark.parametrize("outside", [True, False])
def test_the_rules_suffice_and_each_is_used(server: ApiServer, tmp_path: Path, outside: bool):
    used = set()
    queue = KubernetesCluster(gate="kueue", queue="gpus")
    for number, cluster in enumerate((CLUSTER, queue)):
        stage = staged(server, tmp_path / str(number), outside=outside, cluster=cluster)
        check_cluster(stage.api, cluster, outside=outside)
        stage.cluster.queue_says = UNCOVERED if cluster is queue else None
        stage.cluster.hold = DELETED
        stage.request()
        stage.turn(MINUTE), stage.turn(MINUTE)
        stage.cluster.hold = stage.cluster.queue_says = ""
        stage.turn(1.0), stage.turn(1.0)
        stage.tell(Pausing(stage.time, stage.name, "enough"))
        assert stage.run(5, hours=0.01) == "paused"
        stage.request()
        assert stage.run() == "ended"
        stage.begin_anew()
        stage.executor.act(stage.state)  # a rerun of what is finished
        used |= asked(server)
        stage.close()
    granted = {(group, plural, verb) for group, plural, verbs in stage_rules(outside) for verb in verbs}
    by_watch_and_conflict = {("ray.io", "rayjobs", "watch"), ("ray.io", "rayjobs", "get")}
    assert used <= granted and granted - used <= by_watch_and_conflict


def stage_rules(outside: bool):
    return laptop_rules() if outside else RIGHTS


def test_real_workers_and_the_watch_need_no_more(tmp_path: Path):
    with KubernetesBench(tmp_path, mounted=False) as bench:
        bench.server.grant(laptop_rules())
        story = Story(bench, bench.executor(stand_in()), sweep_of(1))
        story.request()
        assert isinstance(story.finish(), Ended)
        assert bench.server.count("watch", "rayjobs")


@pytest.mark.parametrize("outside", [True, False])
def test_all_that_is_missing_is_named_in_one_error_before_anything_else(
    server: ApiServer, tmp_path: Path, outside: bool
):
    stage = staged(server, tmp_path, outside=outside)
    server.rights = set()
    with pytest.raises(Forbidden) as caught:
        stage.executor.ready()
    for group, plural, verbs in stage_rules(outside):
        for verb in verbs:
            named = f"{verb} {plural}{'.' * bool(group)}{group}" in str(caught.value)
            assert named is ((group, plural) not in OPTIONAL)
    assert "get persistentvolumeclaims" in str(caught.value)
    assert server.requests == []  # nothing but reviews
    stage.close()


def test_a_laptop_may_what_the_controller_may_and_read_the_volume():
    laptop = {(group, plural): set(verbs) for group, plural, verbs in laptop_rules()}
    assert all(set(verbs) <= laptop[group, plural] for group, plural, verbs in RIGHTS)
    assert laptop["", "pods/proxy"] == {"get", "delete"} and laptop["", "pods"] == {"list", "get", "create", "delete"}
    assert len(laptop) == len(laptop_rules())


def test_an_error_of_the_cluster_is_an_executor_error():
    assert issubclass(Forbidden, ExecutorError)
