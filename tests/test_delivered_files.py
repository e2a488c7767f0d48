"""What travels runs by itself: the Ray package, a worker's ConfigMap, the wheel. Each in a fresh process."""

import io
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gridsweep.executors.kubernetes.manifests.delivery import worker_sources
from gridsweep.executors.ray.packages import code
from gridsweep.records.attempts import Assignment, AttemptFolder, Part
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.train.model import TINY_QWEN2

LOADED = "\nimport sys; print(*sorted(sys.modules))"
NOT_FOR_A_WORKER = {"sqlite3", "httpx2", "click", "yaml", "rich", "gridsweep.records.journal"}


def fresh(code: str, path: Path, *options: str) -> set[str]:
    """The modules that are loaded after some code, in a process that finds this package in `path` only."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code + LOADED],
        env={"PYTHONPATH": str(path), "PATH": os.environ["PATH"]},
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture
def ray_package(tmp_path: Path) -> Path:
    zipfile.ZipFile(io.BytesIO(code()[1])).extractall(tmp_path / "ray")
    return tmp_path / "ray"


@pytest.fixture
def config_map(tmp_path: Path) -> Path:
    for name, text in worker_sources().items():
        path = tmp_path / "map" / "gridsweep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "map"


def test_the_ray_package_is_the_whole_package(ray_package: Path):
    import gridsweep

    here = Path(gridsweep.__file__).parent
    files = {path.relative_to(here) for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    found = {path.relative_to(ray_package / "gridsweep") for path in ray_package.rglob("*") if path.is_file()}
    assert found == files and Path("__init__.py") in found


def test_the_ray_entrypoint_needs_the_standard_library_only(ray_package: Path):
    loaded = fresh("import gridsweep.executors.ray.entrypoint", ray_package, "-S")
    others = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"__main__", "gridsweep"}
    assert {name for name in others if not name.startswith("_")} == set()
    assert not loaded & NOT_FOR_A_WORKER


def test_a_worker_imports_only_what_was_delivered(config_map: Path):
    first = fresh("import gridsweep.train.__main__, gridsweep.records.codec, gridsweep.records.attempts", config_map)
    assert not first & NOT_FOR_A_WORKER
    loaded = fresh("import gridsweep.train.worker", config_map)  # with torch, which brings libraries of its own
    assert "gridsweep.records.journal" not in loaded
    delivered = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in worker_sources()}
    ours = {name.removeprefix("gridsweep.") for name in loaded if name.startswith("gridsweep.")}
    assert ours <= delivered


@pytest.mark.train
def test_a_worker_trains_with_what_was_delivered(config_map: Path, tmp_path: Path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(f'{{"prompt": "Add {n} and 1.", "response": "It is {n + 1}."}}\n' for n in range(12)))
    folder = AttemptFolder(tmp_path / "store" / "stints" / "s" / "1")
    recipe = Recipe(steps=2, batch_size=2, accumulation=1, max_length=48, warmup=0.0)
    part = Part("e00", LoraParams(4, 16, 1e-3, 0.0), 1, 0, 2)
    data = Dataset(str(pairs), train_samples=8, validation_samples=4)
    folder.prepare(Assignment("s/1", Model(str(TINY_QWEN2)), data, recipe, 2, Device("device0"), (part,)))
    environment = {**os.environ, "PYTHONPATH": str(config_map)}
    command = [sys.executable, "-m", "gridsweep.train", str(folder.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    result = folder.result()
    assert result and not result.error and result.outcomes[0].status == "done", done.stderr


def built(to: Path) -> Path:
    """The wheel, built by the project's own backend."""
    from builders import PROJECT

    pytest.importorskip("hatchling", reason="the wheel is built by hatchling, which the extra `dev` brings")
    build = f"from hatchling.build import build_wheel; build_wheel({str(to)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=PROJECT, check=True, capture_output=True, timeout=120)
    (made,) = to.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    to = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(built(to)).extractall(to / "installed")
    return to / "installed"


def test_two_builds_of_the_wheel_are_identical(tmp_path_factory: pytest.TempPathFactory):
    one, two = (built(tmp_path_factory.mktemp(name)).read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_core_needs_at_most_fifteen_packages():
    from builders import PROJECT

    needed, left = set(), tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    while left:
        wanted = Requirement(left.pop())
        name = wanted.name.lower().replace("_", "-")
        if name not in needed and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            needed.add(name)
            left += metadata.requires(name) or []
    assert len(needed) <= 15, sorted(needed)


def test_the_wheel_holds_every_file_of_the_package(wheel: Path):
    import gridsweep

    here = Path(gridsweep.__file__).parent
    files = {path.relative_to(here) for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {
        path.relative_to(wheel / "gridsweep") for path in (wheel / "gridsweep").rglob("*") if path.is_file()
    } == files


def test_the_wheel_plans_its_own_template(wheel: Path, tmp_path: Path):
    environment = {"PYTHONPATH": str(wheel), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for words in (["init"], ["check", "sweep.yaml"], ["plan", "sweep.yaml"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-m", "gridsweep.cli", *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "0.2.0" in done.stdout
