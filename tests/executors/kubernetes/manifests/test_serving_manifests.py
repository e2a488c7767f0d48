"""vLLM in a cluster."""

from itertools import pairwise

import pytest

from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests.bundle import cluster_of
from gridsweep.executors.kubernetes.manifests.serving import max_rank, serving, startup_seconds

BASE = "Qwen/Qwen2.5-Coder-7B-Instruct"


def of(manifests, kind):
    (found,) = (m for m in manifests if m["kind"] == kind)
    return found


def container(manifests):
    (found,) = of(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize(("ranks", "allowed"), [([1], 1), ([2], 8), ([16, 32], 32), ([33], 64), ([500], 512), ([], 1)])
def test_the_largest_rank_is_the_smallest_that_is_allowed_and_fits(ranks, allowed):
    assert max_rank(ranks) == allowed


def test_a_rank_vllm_does_not_serve_is_refused():
    with pytest.raises(SpecError, match="513"):
        max_rank([16, 513])


def test_the_arguments_name_the_base_and_every_adapter(served):
    made = container(served)
    assert made["command"] == ["vllm", "serve"]
    arguments = made["args"]
    assert arguments[0] == BASE
    modules = arguments[arguments.index("--lora-modules") + 1 :]
    assert [m.partition("=")[0] for m in modules] == ["best0", "best1"]
    options = dict(pairwise(arguments))
    assert (options["--max-lora-rank"], options["--max-loras"], options["--max-cpu-loras"]) == ("32", "2", "2")
    assert "--enable-lora" in arguments and "--revision" not in arguments


def test_a_revision_is_passed_on(published):
    made = serving(
        BASE,
        "abc123",
        {"a": "experiments/x/adapter"},
        [8],
        cluster_of(published, "compute-gardener"),
        max_model_len=None,
    )
    arguments = container(made)["args"]
    assert arguments[arguments.index("--revision") + 1] == "abc123"
    assert "--max-model-len" not in arguments
    assert arguments[-1] == "a=/store/experiments/x/adapter"


def test_the_image_is_pinned_and_the_key_comes_from_a_secret(served):
    made = container(served)
    assert made["image"].rpartition(":")[2].startswith("v")
    (key,) = (v for v in made["env"] if v["name"] == "VLLM_API_KEY")
    assert key["valueFrom"]["secretKeyRef"] == {"name": "gridsweep-serving", "key": "API_KEY"}


def test_a_start_has_time_for_download_and_loading(served):
    probe = container(served)["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= startup_seconds(BASE) > 15.2e9 / 25e6 + 300
    assert of(served, "Deployment")["spec"]["progressDeadlineSeconds"] > startup_seconds(BASE)


def test_the_volume_is_read_only_but_for_the_cache(served):
    mounts = {m["mountPath"]: m for m in container(served)["volumeMounts"]}
    assert mounts["/store"]["readOnly"]
    assert mounts["/store/huggingface"]["subPath"] == "huggingface"
    assert "/dev/shm" in mounts


def test_one_server_has_one_gpu_at_a_time(served):
    assert of(served, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert of(served, "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    selector = of(served, "Deployment")["spec"]["selector"]["matchLabels"]
    assert of(served, "Service")["spec"]["selector"] == selector


@pytest.mark.parametrize(
    "adapters", [{}, {"a=b": "x"}, {"a b": "x"}, {"a": "/home/me/adapter"}, {"a": "/store/../etc"}, {"-a": "x"}]
)
def test_what_vllm_could_not_read_is_refused(published, adapters):
    with pytest.raises(SpecError):
        serving(BASE, None, adapters, [8], cluster_of(published))
