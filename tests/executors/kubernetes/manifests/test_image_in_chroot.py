"""What scripts/image_in_chroot.py reads from the Dockerfile and the lock, without root and without a network."""

import os
import re
import subprocess
import sys

import pytest

from builders import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import worker_pod
from dockerfile_steps import LOCK, UnknownStep, apt_packages, parsed, without_gpu

TEXT = (PROJECT / "docker" / "worker.Dockerfile").read_text()
RUN_IT = os.environ.get("GRIDSWEEP_CHROOT")


def test_all_steps_of_the_dockerfile_are_known_and_no_instruction_is_lost():
    base, build, image = parsed(TEXT)
    names = [step.name for stage in (base, build, image) for step in stage]
    assert names == re.findall(r"^([A-Z]+) ", TEXT, re.M)
    assert [stage[0].text.partition(" AS ")[0] for stage in (build, image)] == ["base", "base"]
    assert [step.text for step in image if step.name == "USER"] == ["1000:1000"]


def test_the_apt_packages_are_those_of_each_stage():
    _, build, image = parsed(TEXT)
    assert apt_packages(build) == ["python3", "python3-venv"]
    assert apt_packages(image) == ["bash", "ca-certificates", "python3", "wget"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("WORKDIR /src", "VOLUME /src", "VOLUME /src: an unknown instruction"),
        ("WORKDIR /src", "ADD https://example.org/x /src", "an unknown instruction"),
        ("nvidia/cuda:13.0.2", "debian:12 AS base\nFROM nvidia/cuda:13.0.2", "neither NVIDIA's base image"),
        ("--require-hashes", "", "pip without --require-hashes"),
        ("--only-binary=:all: --no-deps", "", "pip without --no-deps --only-binary=:all:"),
        ("COPY pyproject.toml", "COPY --chown=1000 pyproject.toml", "unknown options or stages: --chown=1000"),
        ("--from=build", "--from=other", "unknown options or stages: --from=other"),
        ("RUN apt-get", "RUN --mount=type=cache apt-get", "an unknown form of RUN"),
        ('CMD ["gridsweep", "--help"]', "CMD gridsweep --help", "CMD as a line of shell"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused_with_its_line(old: str, new: str, words: str):
    with pytest.raises(UnknownStep, match=r"^line \d+: ") as refused:
        parsed(TEXT.replace(old, new, 1))
    assert words in str(refused.value)


def test_without_gpu_the_lock_lacks_cuda_alone():
    lock = (PROJECT / LOCK).read_text()
    kept, left_out, torch = without_gpu(lock)
    pin = r"^([a-z0-9-]+==[^\s\\]+)"
    assert sorted([*re.findall(pin, kept, re.M), *left_out, f"torch=={torch}"]) == sorted(re.findall(pin, lock, re.M))
    assert all(re.match("triton|cuda-|nvidia-", each) for each in left_out) and "triton" in " ".join(left_out)
    assert "nvidia-ml-py==" in kept and "torch==" not in kept
    assert kept.count("--hash") == len(re.findall("--hash=sha256:[0-9a-f]{64}", kept)) > 100
    assert set(kept.splitlines()) <= set(lock.splitlines())


def test_the_pod_is_what_the_rayjob_says():
    pod = worker_pod.rendered()
    assert (pod.user, pod.group, pod.environment["HOME"]) == (1000, 1000, "/tmp")
    assert pod.entrypoint == "exec python -P -m gridsweep.executors.kubernetes.start"
    assert '"total_steps": 4' in pod.environment["GRIDSWEEP_ASSIGNMENT"]
    assert pod.attempt.startswith("image/stints/") and pod.ray["num-gpus"] == "1"


def test_work_that_was_not_done_is_told(tmp_path):
    with pytest.raises(SystemExit, match="the worker did not train: None"):
        worker_pod.judged(worker_pod.rendered(), tmp_path)


@pytest.mark.skipif(not RUN_IT, reason="needs root, debootstrap, PyPI and minutes; GRIDSWEEP_CHROOT=FOLDER runs it")
@pytest.mark.slow
@pytest.mark.train
def test_the_image_trains_in_a_chroot():
    command = [sys.executable, PROJECT / "scripts" / "image_in_chroot.py", RUN_IT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worker: done" in done.stdout and "worker under Ray: done" in done.stdout
