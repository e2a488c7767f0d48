"""The patch of pods, field by field: what a cluster takes is taken, and what it refuses is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.checks import pod_templates, problems
from gridsweep.spec import loads

SPEC = """\
model: org/model
dataset: {id: org/data, train_samples: 1000}
estimates: {duration: 90m, power_w: 425}
"""


def pod_of(patch: dict[str, Any]) -> dict[str, Any]:
    """The pod of a worker, from a spec with a patch."""
    sweep = loads(f"{SPEC}executor: {json.dumps({'kubernetes': {'gate': 'suspend', 'pod': patch}})}\n")
    made = bundle(sweep, cluster_of(sweep)).manifests
    assert problems(made) == []
    template: dict[str, Any] = next(t for m in made if m["kind"] == "RayJob" for t in pod_templates(m))
    return template


def refused(patch: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as told:
        pod_of(patch)
    text = str(told.value)
    assert text.startswith("sweep.yaml:4: executor.kubernetes.pod: "), text
    return text.removeprefix("sweep.yaml:4: executor.kubernetes.pod: ")


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


def head(**fields: Any) -> dict[str, Any]:
    return spec(containers=[{"name": "ray-head", **fields}])


def init(**fields: Any) -> dict[str, Any]:
    return spec(initContainers=[{"name": "init", "image": "busybox", **fields}])


def volume(source: dict[str, Any], **mount: Any) -> dict[str, Any]:
    mounted = {"name": "data", "mountPath": "/data", **mount}
    return {
        "spec": {
            "volumes": [{"name": "data", **source}],
            "containers": [{"name": "ray-head", "volumeMounts": [mounted]}],
        }
    }


LEGAL = [
    spec(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]),
    spec(tolerations=[{"key": "sla", "operator": "Gt", "value": "900", "effect": "NoSchedule"}]),
    spec(priorityClassName="system-cluster-critical", runtimeClassName="gvisor"),
    spec(dnsPolicy="None", dnsConfig={"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}),
    spec(securityContext={"fsGroup": 2000, "supplementalGroups": [5]}),
    spec(securityContext={"runAsUser": 0, "runAsNonRoot": False}),
    volume({"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}),
    volume({"persistentVolumeClaim": {"claimName": "x"}}, subPath="a/b", readOnly=True),
    volume({"persistentVolumeClaim": {"claimName": "x"}}, subPathExpr="$(POD)"),
    volume({"csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True, "volumeAttributes": {"a": "x"}}}),
    volume({"configMap": {"name": "c", "items": [{"key": "a", "path": "b"}], "defaultMode": 0o444}}),
    volume({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
    init(restartPolicy="Always", command=["sh"], startupProbe={"exec": {"command": ["true"]}}),
    init(env=[{"name": "my-var", "value": "x"}, {"name": "1.x", "value": "x"}]),
    head(env=[{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
    head(resources={"limits": {"rdma/hca": "1", "hugepages-2Mi": "64Mi"}}),
    {"metadata": {"annotations": {"Example.com/a": "x", "b": "x" * 200_000}, "labels": {"example.com/t": "a_b.c"}}},
]


@pytest.mark.parametrize("patch", LEGAL, ids=json.dumps)
def test_what_a_cluster_takes_is_taken(patch: dict[str, Any]) -> None:
    made = pod_of(patch)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **made["metadata"]}, "spec": made["spec"]}
    kubernetes_validate.validate(pod, "1.36", strict=True)


MERGED = (
    "imagePullSecrets", "schedulingGates", "resourceClaims", "hostAliases", "topologySpreadConstraints", "volumes",
    "containers", "initContainers",
)  # fmt: skip


@pytest.mark.parametrize("element", [{}, {"nme": "x"}, {"name": ["x"]}, {"name": {}}, {"name": 3}, {"name": None}])
@pytest.mark.parametrize("name", MERGED)
def test_an_element_without_the_text_that_names_it_is_refused(name: str, element: dict[str, Any]) -> None:
    assert refused(spec(**{name: [element]})).startswith(f"spec.{name}[0]")


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        (head(env=[{"name": ["A"]}]), "spec.containers[0].env[0]"),
        (head(volumeMounts=[{"name": "tmp"}]), "spec.containers[0].volumeMounts[0]"),
        (head(volumeDevices=[{"name": "tmp", "devicePath": ["/x"]}]), "spec.containers[0].volumeDevices[0]"),
        (head(resources={"claims": [{"request": "x"}]}), "spec.containers[0].resources.claims[0] needs name"),
        (head(env=[{"name": "A", "value": "1"}] * 2), "spec.containers[0].env[1]: A is there twice"),
        (head(volumeMounts=[{"name": "tmp", "mountPath": "/d"}] * 2), "volumeMounts[1]: /d is there twice"),
        (spec(containers=[{"name": "ray-head"}] * 2), "spec.containers[1]: ray-head is there twice"),
        (spec(initContainers=[{"name": "a", "image": "b"}] * 2), "spec.initContainers[1]: a is there twice"),
        (spec(volumes=[{"name": "a", "emptyDir": {}}] * 2), "spec.volumes[1]: a is there twice"),
        (spec(schedulingGates=[{"name": "a/b"}] * 2), "spec.schedulingGates[1]: a/b is there twice"),
    ],
)
def test_unnamed_and_repeated_elements_are_refused(patch: dict[str, Any], told: str) -> None:
    assert told in refused(patch)


def test_legal_elements_of_one_key_all_stay() -> None:
    spread = [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": how} for how in ("DoNotSchedule", "ScheduleAnyway")
    ]
    assert pod_of(spec(topologySpreadConstraints=spread))["spec"]["topologySpreadConstraints"] == spread
    aliases = [{"ip": "1.2.3.4", "hostnames": [name]} for name in "ab"]
    assert pod_of(spec(hostAliases=aliases))["spec"]["hostAliases"] == aliases


def test_a_variable_without_a_value_is_empty() -> None:
    for value in ({}, {"value": None}):
        (container,) = pod_of(head(env=[{"name": "EMPTY", **value}]))["spec"]["containers"]
        assert {"name": "EMPTY"} in container["env"]


ILLEGAL = [
    (spec(affinity={"nodeAffinty": {}}), "nodeAffinty is unknown; did you mean nodeAffinity?"),
    (spec(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 6}]), "NoExec"),
    (spec(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": "6"}]), "whole"),
    (spec(tolerations=[{"key": "a", "value": 3}]), "quote numbers"),
    (spec(tolerations=[{"key": "a b", "operator": "Exists"}]), "no key that Kubernetes takes"),
    (spec(tolerations=[{"key": "a", "value": "x y"}]), "no value of a taint"),
    (spec(tolerations=[{"key": "a", "operator": "Gt", "value": "abc"}]), "a whole number"),
    (volume({"emptydir": {}}), "did you mean emptyDir?"),
    (volume({"emptyDir": {"sizeLimit": "1GB"}}), "a quantity"),
    (volume({"emptyDir": {"medium": "RAM"}}), "Memory"),
    (volume({"persistentVolumeClaim": {}}), "needs claimName"),
    (volume({"persistentVolumeClaim": "x"}), "must be a mapping"),
    (volume({"csi": {"driver": "d", "volumeAttributes": {"a": 1}}}), "a mapping of texts"),
    (volume({"hostPath": {}}), "needs path"),
    (volume({"configMap": {"name": "c", "defaultMode": 4096}}), "from 0 to 511"),
    (volume({"emptyDir": {}}, subPath="/a"), "a path within the volume"),
    (volume({"emptyDir": {}}, subPath="a/../../b"), "a path within the volume"),
    (volume({"emptyDir": {}}, subPath="a", subPathExpr="$(A)"), "give one of them"),
    (volume({"emptyDir": {}}, readonly=True), "did you mean readOnly?"),
    (volume({"emptyDir": {}}, mountPropagation="Both"), "HostToContainer"),
    (init(restartPolicy="Sometimes"), "must be one of Always"),
    (init(comand=["x"]), "did you mean command?"),
    (init(command="sh -c x"), "must be a list"),
    (init(image=" busybox"), "an image"),
    (init(imagePullPolicy="always"), "must be one of Always"),
    (init(lifecycle={"preStop": {"exec": {"command": ["x"]}}}), "needs restartPolicy: Always"),
    (init(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}), "above its limit"),
    (init(resources={"limits": {"cpu": "-1"}}), "a quantity"),
    (head(resources={"limits": {"disk": "1Gi"}}), "no resource"),
    (head(resources={"limit": {"rdma/hca": "2"}}), "did you mean limits?"),
    (head(resources={"limits": {"rdma/hca": "0.5"}}), "a whole number"),
    (head(resources={"limits": {"rdma/hca": "2"}, "requests": {"rdma/hca": "1"}}), "must equal its limit"),
    (head(livenessProbe={"httpget": {"port": 1}}), "did you mean httpGet?"),
    (head(livenessProbe={"httpGet": {"port": 1}, "exec": {}}), "exactly one of"),
    (head(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "Maybe"}]), "NotRequired"),
    (head(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c"}}}]), "needs key"),
    (head(envFrom=[{"configMapRef": {}}]), "needs name"),
    (head(env=[{"name": "A=B"}]), "a variable's name"),
    (spec(priorityClassName="Batch_1"), "lower-case"),
    (spec(runtimeClassName="NVIDIA X"), "lower-case"),
    (spec(serviceAccountName="My SA"), "lower-case"),
    (spec(preemptionPolicy="Sometimes"), "must be one of Never"),
    (spec(dnsPolicy="Cluster"), "must be one of ClusterFirst"),
    (spec(dnsPolicy="None"), "needs spec.dnsConfig.nameservers"),
    (spec(dnsConfig={"nameserver": ["1.1.1.1"]}), "did you mean nameservers?"),
    (spec(dnsConfig={"nameservers": ["a", "b", "c", "d"]}), "at most 3"),
    (spec(hostAliases=[{"ip": "x", "hostnames": ["a"]}]), "an address"),
    (spec(topologySpreadConstraints=[{"topologyKey": "zone"}]), "needs maxSkew and whenUnsatisfiable"),
    (spec(schedulingGates=[{"name": "bad gate!"}]), "PREFIX/NAME"),
    (spec(securityContext={"runasuser": 5}), "did you mean runAsUser?"),
    (spec(securityContext={"runAsUser": 0}), "runAsUser is 0"),
    (init(securityContext={"runAsUser": 0}), "runAsUser is 0"),
    (spec(securityContext={"fsGroup": "2000"}), "a whole number"),
    ({"metadata": {"annotations": {"a": "x" * 270_000}}}, "at most 262,144"),
    ({"metadata": {"annotations": {"a..b/c": "x"}}}, "no key"),
    ({"metadata": {"labels": {"a.-b/team": "x"}}}, "no key"),
    (head(workingDir="/x"), "spec.containers[0].workingDir is not supported"),
    (spec(hostname="x"), "spec.hostname is not supported"),
]


@pytest.mark.parametrize(("patch", "told"), ILLEGAL, ids=[told for _, told in ILLEGAL])
def test_what_a_cluster_refuses_is_refused_at_its_key(patch: dict[str, Any], told: str) -> None:
    assert told in refused(patch)


def test_keys_that_are_no_texts_are_refused() -> None:
    for pod in ("{spec: {affinity: {1: 2}}}", "{spec: {1: 2}}", "{spec: {volumes: [{1: 2}]}}"):
        with pytest.raises(SpecError, match=r"executor.kubernetes.pod: (metadata|spec)\."):
            loads(f"{SPEC}executor: {{kubernetes: {{pod: {pod}}}}}\n")


AMOUNTS = ("1e9", "100e6", "5.", "+1", "1E", "1Pi", "4500000000n", "0x", "12", "1.5Gi", "1e-1", ".5")


@pytest.mark.parametrize("quote", ["", "'"])
@pytest.mark.parametrize("amount", AMOUNTS)
def test_quantities_are_those_of_kubernetes_quoted_or_not(amount: str, quote: str) -> None:
    text = (
        f"{SPEC}executor: {{kubernetes: {{cpu: {quote}{amount}{quote}, gate: suspend, pod: {{spec: {{initContainers: "
    )
    text += f"[{{name: i, image: b, resources: {{limits: {{cpu: {quote}{amount}{quote}}}}}}}]}}}}}}}}\n"
    if amount == "0x":
        with pytest.raises(SpecError, match=r"cpu must be a quantity|cpu: must be a quantity"):
            loads(text)
        return
    sweep = loads(text)
    limits = cluster_of(sweep).pod["spec"]["initContainers"][0]["resources"]["limits"]
    assert isinstance(limits["cpu"], str) and isinstance(cluster_of(sweep).cpu, str)


@pytest.mark.parametrize(
    ("key", "amount", "told"),
    [
        ("memory", "0", "at least 64Mi"),
        ("memory", "0.5", "at least 64Mi"),
        ("memory", "1000m", "at least 64Mi"),
        ("memory", "63Mi", "at least 64Mi"),
        ("memory", "24GiB", "a quantity"),
        ("cpu", "0", "above 0"),
        ("cpu", "0m", "above 0"),
        ("cpu", "-1", "a quantity"),
        ("ephemeral_storage", "0", "above 0"),
    ],
)
def test_amounts_in_which_no_worker_starts_are_refused_with_the_line(key: str, amount: str, told: str) -> None:
    with pytest.raises(SpecError, match=rf"sweep.yaml:4: executor.kubernetes.{key}: must be {told}"):
        loads(f"{SPEC}executor: {{kubernetes: {{{key}: {amount}}}}}\n")


def test_enough_memory_is_enough() -> None:
    for memory in ("64Mi", "67108864", "1e9", "24Gi"):
        loads(f"{SPEC}executor: {{kubernetes: {{memory: {memory}}}}}\n")
