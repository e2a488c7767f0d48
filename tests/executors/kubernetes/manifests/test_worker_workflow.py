"""The workflow that builds, tries and publishes the worker's image."""

import os
import re
import subprocess

import pytest
import yaml

from builders import PROJECT
from gridsweep import __version__
from gridsweep.sweep.clusters import KubernetesCluster

PATH = PROJECT / ".github" / "workflows" / "worker-image.yml"
WORKFLOW = yaml.safe_load(PATH.read_text())
TRIGGERS = WORKFLOW[True]  # YAML 1.1 reads `on` as a truth value
JOBS = WORKFLOW["jobs"]


def steps(job: str, what: str) -> list[dict]:
    """The steps of a job that use an action, or whose script has a text."""
    return [each for each in JOBS[job]["steps"] if what in each.get("uses", "") + each.get("run", "")]


def test_it_runs_for_version_tags_by_hand_and_for_pull_requests_that_change_the_image():
    assert set(TRIGGERS) == {"push", "pull_request", "workflow_dispatch"}
    assert TRIGGERS["push"] == {"tags": ["v*"]}
    assert {"docker/**", "locks/worker.txt", "src/**"} <= set(TRIGGERS["pull_request"]["paths"])


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it():
    lines = [line for line in PATH.read_text().splitlines() if "uses:" in line]
    assert len(lines) == 7
    assert all(re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line) for line in lines)


def test_permissions_are_given_by_job_and_only_a_tag_can_write():
    assert WORKFLOW["permissions"] == {}
    assert JOBS["build"]["permissions"] == {"contents": "read"}
    assert JOBS["publish"]["permissions"] == {"contents": "read", "packages": "write"}
    assert (JOBS["build"]["if"], JOBS["publish"]["if"]) == ("github.ref_type != 'tag'", "github.ref_type == 'tag'")
    assert not steps("build", "login-action") and "secrets." not in str(JOBS["build"])
    for job in JOBS:
        (checkout,) = steps(job, "actions/checkout")
        assert checkout["with"]["persist-credentials"] is False
    assert "pull_request_target" not in PATH.read_text()


def test_no_expression_is_part_of_a_script():
    assert not [each for job in JOBS.values() for each in job["steps"] if "${{" in each.get("run", "")]


@pytest.mark.parametrize("job", JOBS)
def test_both_builds_are_of_the_dockerfile_for_amd64(job: str):
    (build,) = steps(job, "build-push-action")
    assert build["with"]["file"] == "docker/worker.Dockerfile" and build["with"]["platforms"] == "linux/amd64"
    assert build["with"]["context"] == "."  # this checkout, not Git's over the network


def test_a_build_for_a_pull_request_is_cached_and_not_pushed():
    (build,) = steps("build", "build-push-action")
    assert build["with"]["push"] is False and build["with"]["load"] is True
    assert build["with"]["cache-from"].startswith("type=gha") and build["with"]["cache-to"].startswith("type=gha")


def test_what_is_published_has_provenance_and_sbom_and_comes_from_no_cache():
    (build,) = steps("publish", "build-push-action")
    assert build["with"]["provenance"] == "mode=max" and build["with"]["sbom"] is True
    assert build["with"]["no-cache"] is True and not {"cache-from", "cache-to"} & set(build["with"])


@pytest.mark.parametrize("job", JOBS)
def test_the_image_trains_before_it_gets_its_tag(job: str):
    names = [each.get("uses", each.get("name", "")).partition("@")[0] for each in JOBS[job]["steps"]]
    assert names.index("The base") < names.index("docker/build-push-action") < names.index("Four steps as a pod")
    (tried,) = steps(job, "scripts/worker_pod.py")
    assert (PROJECT / "scripts" / "worker_pod.py").exists()
    if job == "publish":
        (tag,) = steps(job, "imagetools create")
        assert JOBS[job]["steps"].index(tried) < JOBS[job]["steps"].index(tag)
        assert tried["env"]["DIGEST"] == tag["env"]["DIGEST"] == "${{ steps.image.outputs.digest }}"
        (build,) = steps(job, "build-push-action")
        assert "tags" not in build["with"] and "push-by-digest=true" in build["with"]["outputs"]


def test_the_image_is_the_one_that_manifests_name():
    assert f"{WORKFLOW['env']['IMAGE']}:{__version__}" == KubernetesCluster().image


@pytest.mark.parametrize(("tag", "code"), [(f"v{__version__}", 0), ("v9.9.9", 1), (__version__, 1)])
def test_a_tag_that_is_not_the_packages_version_ends_it(tag: str, code: int, tmp_path):
    (step,) = steps("publish", "GITHUB_REF_NAME")
    output = tmp_path / "output"
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]],
        env={"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": str(output)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    assert output.exists() == (code == 0)
    assert f"version={__version__}\n" == output.read_text() if code == 0 else tag in done.stdout
