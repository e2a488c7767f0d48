"""What every pod may do: the restricted profile, no secrets, no more rights than are used."""

import re

import pytest

from gridsweep.executors.kubernetes.manifests.checks import pod_templates
from gridsweep.executors.kubernetes.manifests.delivery import START
from gridsweep.executors.kubernetes.manifests.yaml_text import document

ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}


@pytest.fixture(scope="module")
def pods(rendered):
    """(name of the object, pod) of every pod."""
    found = [
        (f"{what}: {m['kind']}/{m['metadata']['name']}", template["spec"])
        for what, manifests in rendered.items()
        for m in manifests
        for template in pod_templates(m)
    ]
    assert len(found) == 7 * 21 + 2
    return found


def test_every_pod_meets_the_restricted_profile(pods):
    for where, pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), where
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED_VOLUMES, where
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert "privileged" not in context, where
            assert not any("hostPort" in port for port in container.get("ports", ())), where


def test_every_container_has_requests_and_limits(pods):
    for where, pod in pods:
        for container in pod["containers"]:
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][kind]), where
            assert ":" in container["image"] and not container["image"].endswith(":latest"), where


def test_only_the_loop_has_a_token_of_the_cluster(pods):
    with_token = {where for where, pod in pods if pod["automountServiceAccountToken"]}
    assert with_token == {"none: Job/published-controller"}


def test_what_must_be_written_can_be(pods):
    """The root is read-only: temporary files, shared memory and home lie elsewhere."""
    for where, pod in pods:
        for container in pod["containers"]:
            writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            values = {variable["name"]: variable.get("value", "") for variable in container["env"]}
            assert "/tmp" in writable and values["HOME"] == "/tmp", where
            if "HF_HOME" in values:
                assert any(values["HF_HOME"].startswith(path) for path in writable), where
            if "nvidia.com/gpu" in container["resources"]["limits"]:
                assert "/dev/shm" in writable, where
                assert "NVIDIA_VISIBLE_DEVICES" not in values, where  # it would show the GPUs of others


def test_secrets_are_named_and_never_there(rendered):
    for manifests in rendered.values():
        for manifest in manifests:
            assert manifest["kind"] != "Secret"
            for template in pod_templates(manifest):
                for container in template["spec"]["containers"]:
                    for variable in container["env"]:
                        if re.search("TOKEN|KEY|PASSWORD|SECRET", variable["name"]):
                            assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]
                    assert "--api-key" not in container.get("args", ())
            if manifest["kind"] != "ConfigMap":
                assert not re.search(r"hf_[A-Za-z0-9]{20,}|-----BEGIN", document(manifest))


def test_the_loop_may_do_what_it_does_and_no_more(rendered):
    (role,) = (m for m in rendered["none"] if m["kind"] == "Role")
    rights = {
        (g, r): set(rule["verbs"]) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"]
    }
    assert rights == {
        ("ray.io", "rayjobs"): {"get", "list", "watch", "create", "delete"},
        ("", "pods"): {"list"},
        ("", "persistentvolumeclaims"): {"get"},
        ("", "events"): {"list"},
        ("kueue.x-k8s.io", "workloads"): {"list"},
    }
    (binding,) = (m for m in rendered["none"] if m["kind"] == "RoleBinding")
    (account,) = (m for m in rendered["none"] if m["kind"] == "ServiceAccount")
    assert [subject["name"] for subject in binding["subjects"]] == [account["metadata"]["name"]]
    assert not any(m["kind"].startswith("Cluster") for manifests in rendered.values() for m in manifests)


def test_the_loop_is_one_and_its_journal_is_its_own(rendered):
    (loop,) = (m for m in rendered["none"] if m["kind"] == "Job")
    assert (loop["spec"]["parallelism"], loop["spec"]["completions"]) == (1, 1)
    assert loop["spec"]["podReplacementPolicy"] == "Failed"
    (container,) = loop["spec"]["template"]["spec"]["containers"]
    assert container["command"] == list(START)  # the command line, once the image's version is right
    assert container["args"] == ["run", "/config/sweep.yaml", "--folder", "/state/run"]
    claims = {m["metadata"]["name"]: m["spec"] for m in rendered["none"] if m["kind"] == "PersistentVolumeClaim"}
    assert claims["published-journal"]["accessModes"] == ["ReadWriteOnce"]
    assert {claim["storageClassName"] for claim in claims.values()} == {"fast"}


def test_every_pod_of_ours_is_behind_a_network_policy(rendered):
    for what, manifests in rendered.items():
        policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
        for manifest in manifests:
            for template in pod_templates(manifest):
                labels = template["metadata"]["labels"]
                behind = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
                assert behind, what
                assert all(set(p["policyTypes"]) == {"Ingress", "Egress"} for p in behind)


def test_ray_takes_jobs_from_the_operator_and_the_sweep_alone(rendered):
    (policy,) = (m["spec"] for m in rendered["bare"] if m["kind"] == "NetworkPolicy")
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [8265]
    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [
        {"gridsweep.io/sweep": "published"},
        {"app.kubernetes.io/component": "kuberay-operator"},
    ]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443}
