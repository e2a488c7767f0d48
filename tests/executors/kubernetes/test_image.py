"""An image without the worker, started for real."""

from __future__ import annotations

from pathlib import Path

from bench import CLUSTER, KubernetesBench, drive_sweep

from builders import real_sweep
from gridsweep.errors import EXECUTOR
from gridsweep.runs.run import exit_code


def test_an_image_without_the_worker_stops_the_sweep_and_says_so(tmp_path: Path):
    with KubernetesBench(tmp_path, mounted=True, sweep="test") as bench:
        bench.kubelet.bare.add(CLUSTER.image)
        state = drive_sweep(real_sweep(4, devices=2), tmp_path / "run", bench.server, bench.store)
    assert "has no worker of this version in it (" in state.halted and "No module named 'gridsweep'" in state.halted
    assert CLUSTER.image in state.halted and "set executor.kubernetes.image" in state.halted
    assert exit_code(state) == EXECUTOR
    assert not any(a.end == "ended" for a in state.attempts.values())
