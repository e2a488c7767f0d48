"""The patch of pods: what a platform team asks of all pods, merged as Kubernetes merges it, and checked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.checks import pod_templates, problems
from gridsweep.executors.kubernetes.manifests.patches import patched
from gridsweep.runs.amendments import amendments
from gridsweep.spec import loads

SPEC = """
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
executor:
  kubernetes:
    pod:
"""
ASKED = """\
      metadata:
        labels: {team: ml}
        annotations: {cost-centre: "42"}
      spec:
        priorityClassName: batch
        imagePullSecrets: [{name: registry}]
        tolerations: [{key: spot, operator: Exists}]
        nodeSelector: {zone: a, "nvidia.com/gpu.present": null}
        affinity: {nodeAffinity: {}}
        volumes: [{name: data, hostPath: {path: /data}}, {name: tmp, emptyDir: {sizeLimit: 99Gi}}]
        containers:
          - name: ray-head
            env: [{name: NCCL_DEBUG, value: INFO}, {name: RAY_USAGE_STATS_ENABLED, value: "1"}]
            resources: {limits: {ephemeral-storage: 20Gi}, requests: {ephemeral-storage: 20Gi}}
            volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
          - name: controller
            resources: {limits: {memory: 2Gi}}
"""


@pytest.fixture(scope="module")
def pods():
    """The worker's and the loop's pod, and those without a patch."""
    sweep = loads(SPEC + ASKED)
    found = {}
    for name, cluster in (("with", cluster_of(sweep)), ("without", replace(cluster_of(sweep), pod={}))):
        for gate in ("suspend", "none"):
            made = bundle(sweep, replace(cluster, gate=gate), spec="x").manifests
            assert problems(made) == []
            found[name, gate] = next(t for m in made if m["kind"] in ("RayJob", "Job") for t in pod_templates(m))
    return found


def test_a_workers_pod_gets_all_of_it(pods):
    made, plain = pods["with", "suspend"], pods["without", "suspend"]
    assert made["metadata"]["labels"] == {**plain["metadata"]["labels"], "team": "ml"}
    assert made["metadata"]["annotations"]["cost-centre"] == "42"
    spec, before = made["spec"], plain["spec"]
    assert (spec["priorityClassName"], spec["imagePullSecrets"]) == ("batch", [{"name": "registry"}])
    assert spec["tolerations"] == [*before["tolerations"], {"key": "spot", "operator": "Exists"}]
    assert spec["nodeSelector"] == {"zone": "a"}  # null took the other away
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "99Gi"}} in spec["volumes"]
    assert [v["name"] for v in spec["volumes"]] == [*(v["name"] for v in before["volumes"]), "data"]
    (head,), (was,) = spec["containers"], before["containers"]
    assert {v["name"]: v.get("value") for v in head["env"]} == {
        **{v["name"]: v.get("value") for v in was["env"]}, "NCCL_DEBUG": "INFO", "RAY_USAGE_STATS_ENABLED": "1"
    }  # fmt: skip
    assert head["resources"]["limits"] == {**was["resources"]["limits"], "ephemeral-storage": "20Gi"}
    assert {m["mountPath"] for m in head["volumeMounts"]} == {*(m["mountPath"] for m in was["volumeMounts"]), "/data"}
    assert (head["image"], head["lifecycle"]) == (was["image"], was["lifecycle"])


def test_the_loops_pod_gets_what_holds_for_all(pods):
    made, plain = pods["with", "none"], pods["without", "none"]
    assert made["metadata"]["labels"]["team"] == "ml"
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert "nodeSelector" not in made["spec"] and made["spec"]["volumes"] == plain["spec"]["volumes"]
    (loop,), (was,) = made["spec"]["containers"], plain["spec"]["containers"]
    assert loop["resources"]["limits"] == {**was["resources"]["limits"], "memory": "2Gi"} and loop["env"] == was["env"]


def test_limits_of_the_loops_container_are_its_requests_too(pods):
    (loop,) = pods["with", "none"]["spec"]["containers"]
    assert loop["resources"]["requests"] == loop["resources"]["limits"]


def test_a_pod_that_a_cluster_would_refuse_is_an_error_of_the_spec_at_its_key_under_every_gate():
    sweep = loads(SPEC + ASKED)
    patch = {"spec": {"containers": [{"name": "ray-head", "volumeMounts": [{"name": "nope", "mountPath": "/n"}]}]}}
    for gate in ("suspend", "none"):
        with pytest.raises(SpecError, match=r"a cluster would refuse the pods.*mounts 'nope'") as told:
            bundle(sweep, replace(cluster_of(sweep), gate=gate, pod=patch), spec="x")
        assert told.value.where == "executor.kubernetes.pod"


def test_null_removes_a_limit_and_the_request_that_follows_it():
    limits = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    template = {"metadata": {}, "spec": {"containers": [{"name": "reader", "resources": limits}]}}
    text = SPEC.rstrip() + " {spec: {containers: [{name: reader, resources: {limits: {cpu: null}}}]}}\n"
    made = patched(template, cluster_of(loads(text)).pod)
    left = {"memory": "1Gi"}
    assert made["spec"]["containers"][0]["resources"] == {"limits": left, "requests": left}


def test_an_init_container_meets_the_restricted_profile_and_a_reference_replaces_a_value():
    patch = {"spec": {"initContainers": [{"name": "first", "image": "a:1"}]}}
    made = patched({"metadata": {}, "spec": {"containers": [{"name": "ray-head", "resources": {}}]}}, patch)
    assert made["spec"]["initContainers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_without_a_patch_nothing_changes(pods):
    assert patched(pods["without", "suspend"], {}) is pods["without", "suspend"]


@pytest.mark.parametrize(
    ("pod", "told"),
    [
        ("{spec: {toleration: []}}", "spec.toleration is unknown; did you mean tolerations?"),
        ("{metadata: {label: {a: b}}}", "metadata.label is unknown; did you mean labels?"),
        ("{metadata: {labels: {a: 1}}}", "quote numbers and true or false"),
        ("{spec: {restartPolicy: Always}}", "spec.restartPolicy cannot be changed; gridsweep's pods depend on it"),
        ("{spec: {hostNetwork: true}}", "cannot be changed"),
        ("{spec: {activeDeadlineSeconds: 3}}", "set executor.kubernetes.run_deadline instead"),
        ("{spec: {containers: [{name: ray-head, image: x}]}}", "set executor.kubernetes.image instead"),
        ("{spec: {containers: [{name: mine}]}}", "must be one of ray-head, controller, reader, not 'mine'"),
        ("{spec: {containers: [{env: []}]}}", "must be one of ray-head"),
        ("{spec: {containers: 3}}", "spec.containers must be a list of mappings, not 3"),
        ("{spec: {containers: [3]}}", "spec.containers must be a list of mappings"),
        ("{spec: {priority: high}}", "spec.priority must be a whole number, not 'high'"),
        ("{sepc: {}}", "sepc is unknown"),
        ("{metadata: {labels: {gridsweep.io/sweep: other}}}", "gridsweep or KubeRay selects by it"),
        ("{metadata: {labels: {ray.io/cluster: null}}}", "gridsweep or KubeRay selects by it"),
        (
            "{spec: {containers: [{name: ray-head, env: [{name: GRIDSWEEP_STORE, value: /x}]}]}}",
            "GRIDSWEEP_STORE can",
        ),
        (
            "{spec: {containers: [{name: ray-head, env: [{name: A, value: 1}]}]}}",
            "or valueFrom; quote numbers",
        ),
        ("{spec: {containers: [{name: ray-head, env: [null]}]}}", "env must be a list of mappings"),
        ("{spec: {containers: [{name: ray-head, env: [{name: A, $patch: delete}]}]}}", r"\$patch is no field"),
        ("{spec: {containers: [{name: ray-head, volumeMounts: [{name: x, mountPath: /store/}]}]}}", "does not use"),
        (
            "{spec: {containers: [{name: ray-head, resources: {limits: {memory: 1Gi}}}]}}",
            "set executor.*memory",
        ),
        ("{spec: {containers: [{name: ray-head, resources: {limits: {nvidia.com/gpu: null}}}]}}", "trains on one GPU"),
        ("{spec: {containers: [{name: controller, resources: {limits: {cpu: lots}}}]}}", "must be a quantity"),
        ("{spec: {containers: null}}", "spec.containers must be a list, not nothing"),
        ("{spec: {volumes: [{name: store, emptyDir: {}}]}}", "store cannot be changed"),
        ("{spec: {volumes: [{name: x, emptyDir: {}, hostPath: {path: /}}]}}", r"volumes\[0\] needs exactly one of"),
        ("{spec: {volumes: [null]}}", "spec.volumes must be a list of mappings"),
        ("{spec: {topologySpreadConstraints: [null]}}", "must be a list of mappings"),
        ("{spec: {initContainers: [{name: ray-head, image: x}]}}", "needs a name of its own and an image"),
        ("{spec: {priority: 99999999999999}}", "must be a whole number"),
        ("[1]", "must be a mapping, not a list"),
        ("{metadata: {labels: {a b: x}}}", "metadata.labels.a b: no key that Kubernetes takes"),
        ("{metadata: {labels: {a: x y}}}", "metadata.labels.a: 'x y' is no value of a label"),
        ("{metadata: {annotations: {-a: x}}}", "metadata.annotations.-a: no key that Kubernetes takes"),
        ("{spec: {nodeSelector: {a: x y}}}", "spec.nodeSelector.a: 'x y' is no value of a label"),
        ("{spec: {tolerations: [{key: a, operator: Foo}]}}", r"tolerations\[0\]: the operator 'Foo' is unknown"),
        ("{spec: {tolerations: [{key: a, effect: Now}]}}", "the effect 'Now' is unknown"),
        ("{spec: {tolerations: [{key: a, operator: Exists, value: b}]}}", "with the operator Exists there is no value"),
        ("{spec: {tolerations: [{}]}}", "without a key, the operator must be Exists"),
        ("{spec: {tolerations: [{keys: a}]}}", "keys is unknown; did you mean key?"),
        (
            "{spec: {containers: [{name: ray-head, volumeMounts: [{name: nope, mountPath: /n}]}]}}",
            "'nope' is no volume",
        ),
        ("{spec: {containers: [{name: reader, volumeMounts: [{name: shm, mountPath: /n}]}]}}", "'shm' is no volume"),
        (
            "{spec: {volumes: [{name: a, emptyDir: {}}], containers: "
            "[{name: controller, volumeMounts: [{name: a, mountPath: /n}]}]}}",
            "'a' is no volume of its pod: config, state, store, tmp",
        ),
        (
            "{spec: {initContainers: [{name: i, image: b, volumeMounts: [{name: nope, mountPath: /n}]}]}}",
            r"initContainers\[0\].volumeMounts\[0\]: 'nope' is no volume",
        ),
        ("{spec: {initContainers: [{name: A b, image: x}]}}", "needs a name of its own and an image"),
        ("{spec: {initContainers: [{name: i, image: x, resources: {limits: {cpu: lots}}}]}}", "must be a quantity"),
        *(
            (
                f"{{spec: {{containers: [{{name: ray-head, volumeMounts: [{{name: tmp, mountPath: {path}}}]}}]}}}}",
                "not use",
            )
            for path in ("/store/../store", "//store", "/./tmp", "/", "/a/../b", "store", "/a:b", "/store/.")
        ),
        *(
            (
                f"{{spec: {{containers: [{{name: ray-head, env: [{{name: A, valueFrom: {one}}}]}}]}}}}",
                "needs exactly one of",
            )
            for one in ("{}", "{fieldRef: {fieldPath: a}, secretKeyRef: {name: a, key: b}}", "{secretRef: {name: a}}")
        ),
        *(
            (
                f"{{spec: {{containers: [{{name: ray-head, envFrom: [{one}]}}]}}}}",
                "needs exactly one of configMapRef, sec",
            )
            for one in ("{}", "{prefix: A}", "{configMapRef: {name: a}, secretRef: {name: a}}", "{secretRef: a}")
        ),
        ("{spec: {volumes: [{name: A, emptyDir: {}}]}}", "must be a name of lower-case letters"),
    ],
)
def test_what_no_pod_has_is_refused_by_its_place(pod, told):
    with pytest.raises(SpecError, match=f"executor.kubernetes.pod: .*{told}"):
        loads(SPEC.rstrip() + f" {pod}\n")


def test_the_pods_may_change_between_two_runs_and_their_place_may_not():
    plain = loads(SPEC.replace("    pod:\n", "    cpu: 4\n"))
    for change in ("cpu: 8", "image: a/b:1", "node_selector: {a: b}", "memory: 9Gi", "pod: {spec: {priority: 3}}"):
        other = loads(SPEC.replace("    pod:\n", f"    {change}\n"))
        assert amendments(plain, other)[0].startswith(f"executor.kubernetes.{change.partition(':')[0]}")
    with pytest.raises(SpecError, match=r"the pods of executor\.kubernetes"):
        amendments(plain, loads(SPEC.replace("    pod:\n", "    namespace: other\n")))
