"""The memory that a worker may use: the machine's, the container's, and its part beside other workers."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.train.machine_memory import of_containers, share, there

UNLIMITED_1 = "9223372036854771712"  # version 1's value for no limit


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_the_lowest_limit_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/user.slice/run-1.scope\n")
    mounts = written(
        tmp_path / "fs",
        {"user.slice/memory.max": "3000000", "user.slice/run-1.scope/memory.max": "max", "other/memory.max": "1"},
    )
    assert of_containers(proc, mounts) == [3000000]
    written(mounts, {"user.slice/run-1.scope/memory.high": "2000000"})
    assert there(proc, mounts) == 2000000


def test_a_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/kubepods/pod1/abc\n")  # not below the mounts
    assert there(proc, written(tmp_path / "fs", {"memory.max": "5000000"})) == 5000000


@pytest.mark.parametrize("line", ["4:memory:/docker/abc", "4:cpu,memory:/docker/abc", "4:memory:/elsewhere"])
def test_version_one(tmp_path: Path, line: str) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text(f"9:pids:/\n{line}\n")
    mounts = written(
        tmp_path / "fs",
        {"memory/memory.limit_in_bytes": UNLIMITED_1, "memory/docker/abc/memory.limit_in_bytes": "4000000"},
    )
    least = 4000000 if "docker" in line else psutil.virtual_memory().total
    assert there(proc, mounts) <= least
    assert (there(proc, mounts) == 4000000) == ("docker" in line)


def test_files_that_say_nothing_are_no_limit(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    mounts = written(tmp_path / "fs", {"memory.max": "soon", "memory/memory.limit_in_bytes": "0"})
    assert of_containers(proc, mounts) == []  # no /proc/self/cgroup either
    proc.write_text("nonsense\n0::/../../etc\n")
    assert of_containers(proc, mounts) == []


def test_the_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def getrlimit(kind: int) -> tuple[int, int]:
        return (7000000, 7000000) if kind == resource.RLIMIT_DATA else (resource.RLIM_INFINITY,) * 2

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert there(tmp_path / "none", tmp_path) == 7000000


def test_parts_of_a_machine() -> None:
    assert share(24.0, None, ()) == 24.0 and share(24.0, 8.0, ()) == 8.0 and share(24.0, 80.0, ()) == 24.0
    assert share(24.0, None, (None,)) == 12.0
    assert share(24.0, None, (8.0,)) == 16.0 and share(24.0, 8.0, (None,)) == 8.0
    assert share(24.0, 20.0, (20.0,)) == 12.0 and share(24.0, 4.0, (40.0,)) == 4.0


@given(st.lists(st.none() | st.floats(0.1, 100.0), min_size=1, max_size=5), st.floats(1.0, 100.0))
def test_workers_together_never_plan_for_more_than_there_is(claims: list[float | None], total: float) -> None:
    parts = [share(total, own, claims[:n] + claims[n + 1 :]) for n, own in enumerate(claims)]
    assert sum(parts) <= total * (1 + 1e-9) and all(part >= 0 for part in parts)
    assert all(own is None or part <= own for part, own in zip(parts, claims, strict=True))
