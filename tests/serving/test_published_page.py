"""docs/from-the-published-setup.md: what it shows of curl, jq and kubectl is true of the server and the manifests.

Its `gridsweep` commands are run by tests/test_doc_commands.py.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapter_files import run_with_adapters
from builders import PROJECT
from gridsweep import load
from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.serving import serving

PAGE = (PROJECT / "docs" / "from-the-published-setup.md").read_text(encoding="utf-8")
BLOCKS = [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S) if kind in ("", "bash")]
WINNER = "r16-a128-lr1e-4-d0p1-70736214"
JQ = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


CURL = [words(block) for block in BLOCKS if re.search(r"^curl ", block, re.M)]
KUBECTL = re.findall(r"^ {4}(kubectl -n gridsweep .*?)(?: {2,}.*)?$", PAGE, re.M)


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """What the page applies: the published sweep and a server, by kind and name."""
    sweep = load(PROJECT / "examples" / "published.yaml")
    cluster = cluster_of(sweep, "compute-gardener")
    path = f"/store/published/experiments/{WINNER}/adapter"
    found = [*bundle(sweep, cluster).manifests, *serving(sweep.model.id, None, {WINNER: path}, [16], cluster)]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def jq(program: list[str], given: object) -> str:
    done = subprocess.run(program, input=json.dumps(given), capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


@pytest.mark.train
def test_the_curl_calls_are_answered(server):
    asked = {}
    for command in CURL:
        url = next(word for word in command if word.startswith("http://localhost:8000/"))
        path = url.removeprefix("http://localhost:8000")
        if "-d" not in command:
            assert server.get(path).status == 200
            continue
        body = json.loads(command[command.index("-d") + 1])
        assert body.pop("model") == WINNER
        asked[path] = server.ask("POST", path, {**body, "model": "e00", "max_tokens": 8})
    assert sorted(asked) == ["/v1/chat/completions", "/v1/completions"]
    assert {answer.status for answer in asked.values()} == {200}
    assert server.chat("tiny-qwen2:e00").status == 404  # the page says so of `base:adapter`


@JQ
@pytest.mark.parametrize("base_first", [True, False], ids=["as vLLM lists", "as the small server lists"])
def test_the_winner_is_found_in_the_list_of_models(base_first):
    (command,) = (command for command in CURL if "|" in command)
    base, adapters = {"id": "base", "parent": None}, [{"id": name, "parent": "base"} for name in ("best", "second")]
    listed = [base, *adapters] if base_first else [*adapters, base]
    assert jq(command[command.index("|") + 1 :], {"data": listed}) == "best\n"


@JQ
def test_annotations_are_read_as_a_table():
    (block,) = (block for block in BLOCKS if "initial-carbon-intensity" in block)
    command = words(block)
    ours = "compute-gardener-scheduler.kubernetes.io"
    notes = {f"{ours}/initial-carbon-intensity": "287.5", f"{ours}/bind-time-carbon-intensity": "142.3"}
    more = {f"{ours}/carbon-intensity-threshold": "175.0"}
    pods = [{"metadata": {"labels": {"gridsweep.io/experiment": "r8-a1"}, "annotations": notes | more}}]
    assert jq(command[command.index("|") + 1 :], {"items": pods}) == "r8-a1\t287.5\t142.3\t175.0\n"


@JQ
def test_losses_and_carbon_are_joined(tmp_path, gridsweep):
    run = run_with_adapters(tmp_path / "run", 2)
    for verb in ("models", "report"):
        (line,) = re.findall(rf"^ {{4}}gridsweep {verb} runs/demo --json \| (jq .*)$", PAGE, re.M)
        code, out, err = gridsweep(verb, run, "--json")
        assert code == 0, err
        told = jq(words(line), json.loads(out))
        if verb == "models":
            assert [row.split("\t")[0] for row in told.splitlines()] == ["1", "2"] and "null" not in told
        else:
            assert told == "{}\n"


def test_what_kubectl_names_is_there(objects):
    for command in KUBECTL:
        asked = words(command)
        if "port-forward" in asked:
            service = objects["Service", asked[-2].removeprefix("svc/")]
            assert service["metadata"]["namespace"] == "gridsweep"
            assert asked[-1] == f"8000:{service['spec']['ports'][0]['port']}"
        for label in re.findall(r"(gridsweep\.io/\w+)=(\w+)", command):
            name, value = label
            jobs = [each for (kind, _), each in objects.items() if kind == "RayJob"]
            assert any(job["metadata"]["labels"].get(name) == value for job in jobs), command
        for name in re.findall(r"-L (\S+)", command):
            job = next(each for (kind, _), each in objects.items() if kind == "RayJob")
            assert set(name.split(",")) <= set(job["metadata"]["labels"])
    assert len(KUBECTL) > 8
    server = yaml.safe_dump(list(objects.values()))
    assert "name: gridsweep-serving" in server and "key: API_KEY" in server and "HF_HOME" in server


def test_the_pod_that_mounts_the_claim_meets_the_restricted_profile(objects):
    (block,) = (block for block in BLOCKS if "model-browser" in block)
    given = next(word for word in words(block) if word.startswith("--overrides="))
    pod = json.loads(given.removeprefix("--overrides="))["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in objects
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/store"}]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_steps_have_their_old_words():
    """The headings of the published page, in its order."""
    heads = [
        "Quick start", "Step 1: Create the PVC", "Step 2: Build and push the Docker image",
        "Step 3: Create the training script ConfigMap", "Step 4: Generate the hyperparameter sweep",
        "Step 5: Submit experiments", "Step 6: Monitor progress", "Accessing fine-tuned models",
        "Deploying with vLLM", "Testing the API", "Cleanup", "Troubleshooting", "Jobs not scheduling",
        "OOM errors", "Model re-downloading",
    ]  # fmt: skip
    places = [PAGE.index(f"# {head}\n") for head in heads]
    assert places == sorted(places)
    assert Path(PROJECT / "examples" / "published.yaml").exists()
